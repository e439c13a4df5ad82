module github.com/wharfage/wharfage/examples

go 1.26.0

require (
	github.com/google/go-containerregistry v0.22.1
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/regclient/regclient v0.11.7
	github.com/wharfage/wharfage v0.0.0
	oras.land/oras-go/v2 v2.6.4
)

require (
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7 // indirect
	github.com/opencontainers/distribution-spec/specs-go v0.0.0-20250123160558-a139cc423184 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/wharfage/wharfage => ../

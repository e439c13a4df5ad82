module github.com/wharfage/wharfage/examples

go 1.26.0

require (
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/wharfage/wharfage v0.0.0
)

require github.com/opencontainers/distribution-spec/specs-go v0.0.0-20250123160558-a139cc423184 // indirect

replace github.com/wharfage/wharfage => ../

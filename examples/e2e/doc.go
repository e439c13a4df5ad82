// Package e2e drives real registry clients against examples/registry over
// loopback: crane, regctl, oras, notation and skopeo, each installed by exact
// version into the user's cache folder when it is not there. Its tests are all
// it has:
//
//	go test ./examples/e2e
//
// Where skopeo, which comes as a Debian package, cannot be installed, its steps
// are skipped; with CI=true they fail. cosign and helm take minutes to build: their
// steps are skipped unless
//
//	go test ./examples/e2e -slow-clients
//
// has built them once.
package e2e

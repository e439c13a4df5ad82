// Package bench measures this module beside what else reads and serves
// manifests in Go. Its tests assert that all readers find the same descriptors
// and all servers return the same bytes; times are for people to judge. The
// benchmarks need Linux, which tells processor time and peak memory of a
// process.
//
// # Parse
//
//	go test -run '^$' -bench Parse ./examples/bench
//
// Processor time to read a manifest: manifest.Parse, which also checks it,
// beside encoding/json into the types of image-spec, go-containerregistry,
// regclient and oras-go. "+sha256" is Parse and the digest, which regclient and
// oras-go compute too. x is how many times as long as Parse the row took. With
// GOEXPERIMENT=jsonv2 the peers are about twice as fast.
//
//	go test -run '^$' -bench Push -count 5 ./examples/bench
//
// Processor time to push one more referrer of a subject that has 100, and
// 100,000.
//
// # HTTP
//
//	go test -run '^$' -bench HTTP ./examples/bench
//
// Servers are processes of their own, so that their processor time is not that
// of the load, and new in each round. Rounds go through all servers in turn; the
// tables show medians, and, as "x bare", medians of the ratios within a round. The
// yardstick, bare, is the least that a registry can be: net/http, a map, and
// sha256 of what is put. "bare, files" keeps blobs in files instead, as the other
// rows of that name do.
//
//   - HTTPSmall: 2,000 artifacts, each a layer of 16 KiB and its manifest, over
//     16 connections. A push is POST, PUT, and PUT of the manifest under a tag;
//     a pull gets that and the layer.
//   - HTTPLarge: 8 layers of 32 MiB over 4 connections, pushed once and pulled
//     four times, and the server's peak memory with that; then with one
//     layer of 1 GiB. Files are under the temporary folder, not synced.
//   - HTTPPushReferrer: a push to a subject that has 100, and 100,000,
//     referrers; "x bare" is times the first.
//   - HTTPReferrers: pages of the referrers of a subject that has 100,000,
//     beside a handler that writes the same bytes ready-made.
package bench

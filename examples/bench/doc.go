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
// of the load, and new in each round. Each round goes through all servers, in another order; the
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
//
// # Copy
//
//	go test -run '^$' -bench 'Copy$' -benchtime 1x ./examples/bench
//
// An image with 1,000 referrers, and an index of 20 platforms with 8 layers each, between
// two registries that answer each request after 20 ms: replication.Copier over
// examples/store/remote beside oras-go with 16 tasks at once and regclient, as it comes
// (3 requests at once on each side) and with 16. "again" is the same copy once more, with
// nothing new, and x is how many times as long as the first row it took. TestCopyRequests
// holds the first row to its number of requests.
//
// # Graph
//
//	go test -run '^$' -bench GraphExport -benchtime 1x ./examples/bench
//
// The graph of a subject with 100,000 referrers as text, out of boltstore and pgstore:
// the most memory that the process has meanwhile.
//
// # Storage
//
//	go test -run '^$' -bench Storage -timeout 1h ./examples/bench
//
// The registry of examples/registry with -data, beside others that keep
// everything, or all blobs, on the disk: distribution with its filesystem driver,
// which is installed once, and go-containerregistry with its disk handler, which
// keeps manifests in memory and syncs nothing. All are processes of their own
// and keep their data under the temporary folder. Each benchmark ends with what
// it is to reach. -short takes a tenth of everything, to see that it works.
//
//   - StorageSmall: HTTPSmall for these. Between measurements the disk is synced.
//   - StorageGrowth: pushes, pulls and pages of listings in a store of 100
//     manifests and in one of 100,000, which has a million links; and the time
//     from the start of a server to its first answer.
//     The large one has about 200,000 files.
//   - StorageMemory: 8 blobs of 1 GiB pushed at once, and pulled at once, and the
//     server's peak memory.
//
// Do not delete many files in the minutes before: ext4 then takes ten times as
// long to make new ones. The benchmarks wait for that to end, for a while.
package bench

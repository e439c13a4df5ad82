// Package wharfage is an OCI registry as a library: [Handler] serves the
// distribution API over storage that you bring.
//
// The smallest registry keeps everything in memory:
//
//	h := wharfage.NewMemory()
//	http.ListenAndServe("127.0.0.1:5000", h)
//
// A registry of your own implements two interfaces, or takes ready ones:
//
//	blob.Store      bytes by digest          blob/memblob, blob/dirblob
//	manifest.Store  manifests and tags       manifest/memmanifest
//
// and hands them to a Handler, whose other fields are optional.
//
// # Map
//
//   - package blob: the contract for bytes, and the functions that verify them
//   - package manifest: the strict reader of manifests, the contract for
//     manifests and tags, builders
//   - package referrers: who names whom as subject; the graph
//   - package lifecycle: policies in ECR's language, evaluated and explained
//   - package events: what a change tells, in ECR's shapes and as CloudEvents
//   - package repository: names, settings, creation templates, quotas
//   - package replication: copies, synchronization, ECR's rules; a
//     pull-through cache in package pullthrough
//   - package scan: when images are scanned, and results as referrers
//   - the module in examples/: a quick tour, a server, adapters for databases
//
// # Testing
//
// Packages blobtest, manifesttest, referrerstest, lifecycletest, repositorytest,
// replicationtest and queuetest check your stores against the contracts, and
// wharfagetest a registry over stores that fail. A Handler over memory stores in an
// httptest.Server is a registry for the tests of a client.
//
// # Compatibility
//
// Before version 1 an exported name may change from one minor version to the
// next; CHANGELOG.md says how. The last two Go releases are supported.
package wharfage

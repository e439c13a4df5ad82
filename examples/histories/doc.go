// Package histories compares stores with a model: a registry in a few hundred
// lines of maps, written from the contracts alone. Its tests are all it has.
//
// # Random histories
//
// TestHistories makes up programs of about a hundred operations on a few
// repositories, tags, blobs and documents, runs each on a store and on the
// model, and compares each answer, and after the last the whole content. A
// program that fails is made shorter until nothing can be left out, and printed
// one operation a line.
//
//	go test ./examples/histories                                                           # some hundred of them
//	go test ./examples/histories -run '^TestHistories$' -rapid.checks 10000 -timeout 2h    # what a release takes
//	go test ./examples/histories -run '^TestHistories$/boltstore' -rapid.seed 1            # these again
//
// The table of stores is in stores_test.go; a store that is new there is to pass
// 10,000 histories. On a slow disk a TMPDIR in memory helps.
//
// TestHistoriesRejectBrokenStores breaks a store in several ways, each of which
// the model must find. TestHistoriesHaveAllOutcomes counts what happens in
// histories, so that a change which makes them tame is seen.
//
// # Concurrent clients
//
// TestTagsAreLinearizable lets eight clients move, remove and resolve a few
// tags at once, over HTTP with If-Match and If-None-Match, and through Apply.
// Porcupine then looks for an order of the calls in which each answer is what a
// register with compare-and-swap would say. TestReferrersAreASet lets clients
// push and delete referrers while others list them: who begins to list after a
// push was acknowledged must see it.
//
//	go test ./examples/histories -run 'Linearizable|Set' -linear.histories 1000 -timeout 1h
//	go test ./examples/histories -run 'Linearizable' -linear.histories 100 -linear.ops 200
package histories

// Package scan decides when images are scanned for vulnerabilities, and keeps
// what was found. It has no scanner: bring one that implements [Scanner].
//
// When: a [Configuration] in ECR's terms says which repositories are scanned on
// push, continuously, or by hand; no image is scanned twice within a day unless
// it came back from the archive. A [Runner] does it.
//
// What was found becomes a referrer of the image, of the type [ArtifactType]: it
// travels with the image, shows up for every OCI client and needs no store of
// its own. Its status and its counts are annotations, so that a listing has them
// without a read; its findings are its layer. An image has one result, which the
// next one replaces in the same step, but for one that has a tag or is listed by an
// index: that stays, and the last one counts. A scan that failed leaves it, and has a
// result of its own beside it until the next one.
//
// # Trust
//
// A result is as good as those who may push to the repository, since they can
// push a manifest that looks like one. Where that matters refuse
// such pushes ([IsResult]), or sign results.
//
// # Testing
//
// Package scantest has a scanner that finds what it is told.
package scan

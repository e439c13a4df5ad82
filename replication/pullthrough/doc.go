// Package pullthrough makes a registry a cache of others, by the rules of Amazon
// ECR's pull-through cache.
//
// A [Cache] stands between a wharfage.Handler and its stores. What a pull does not
// find there it fetches from the upstream that a [Rule] names, verifies, and stores;
// all that no rule covers passes through. Wrap the Handler in [Middleware], so that
// clients are told when they get an old copy.
//
//   - Blobs stream to all who ask while they are stored, from one transfer, each client at its
//     own pace. The last byte comes after the digest was checked and the blob is stored: what is wrong
//     never ends cleanly, and is never seen in the store.
//   - Tags are asked for upstream when they were not for a day, referrers for six hours. When
//     upstream fails, what is here is served.
//   - A manifest is stored when it is first pulled, and what it names when that is: a cache
//     of lists for ten platforms, of which one is pulled, holds a tenth. That breaks no
//     promise to those who read through the Cache, and collections do not mind. With
//     [Cache].Background all of an image is imported, as ECR does, and a
//     tag moves to its next image only when that is here as a whole.
//
// What is pushed into a repository that a rule covers is stored as in any other.
package pullthrough

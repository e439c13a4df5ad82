// Package manifest reads, checks and stores manifests and tags.
//
// [Parse] reads a document: OCI image manifests and indexes, Docker schema 2
// manifests and lists, schema 1, and the withdrawn artifact manifests. To store
// one, call [Pusher].Push. To keep manifests somewhere, implement [Store].
//
// # Bytes are the truth
//
// A document is stored and served as the bytes that were pushed. Nothing is
// ever converted, canonicalised or written again, since its digest would
// change. Parse decides once what a document is and refuses what two readers
// could understand differently.
//
// # Life of a manifest
//
//   - [Writer].Apply makes manifests, tags and with them the referrers lists
//     visible in one step, or nothing. A blob or child that a manifest needs is
//     there when it becomes visible, and stays while it is.
//   - A subject is a weak link: it need not exist, before or after.
//   - A tag names one manifest, and moving it leaves the old one in place,
//     untagged.
//   - Removing a manifest takes its tags along. What refers to it stays.
//
// # Errors
//
// Each error that a caller can act on is found with [errors.Is]:
//
//   - [ErrNotFound] (MANIFEST_UNKNOWN): no such manifest or tag.
//   - [ErrInvalid] (MANIFEST_INVALID): the document is refused; *[InvalidError]
//     lists where and why.
//   - [ErrTooLarge] (status 413): the document is longer than the limit.
//   - [ErrDigest] (DIGEST_INVALID): the document is not what its digest says, or
//     the digest is none that can be computed here.
//   - [ErrName] (NAME_INVALID): no valid repository or tag.
//   - [ErrMissing] (MANIFEST_BLOB_UNKNOWN): *[MissingError] lists what the
//     repository lacks.
//   - [ErrRefused] (DENIED): [Pusher].MoveTag or [Deleter].KeepTag said no.
//   - [ErrUnchanged]: what is pushed is there already, with all of its tags, and
//     [PushRequest].New refuses that.
//   - [ErrConflict]: a condition did not hold at commit; *[ConflictError] says
//     which.
//   - [ErrUnsupported]: the store cannot do what the Change asks.
//
// # Testing an implementation
//
// Package manifesttest checks a Store against every sentence of this package.
package manifest

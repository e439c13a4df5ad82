// Package blob stores content under its digest.
//
// To keep blobs somewhere, implement [Store]; to use one, call [Put],
// [ReadAll], [Mount] and, for content that arrives in pieces, [Append] and
// [Finish]. Those functions verify digests, sizes and offsets, so a Store
// never hashes.
//
// # Life of a blob
//
//   - [Put], or [Append] and [Finish], write bytes. They are visible in a
//     repository, whole and durable, from the moment the call returns nil, and
//     not at all before.
//   - [Mount] makes a blob of one repository visible in another.
//   - A blob is visible in the repositories that it was put or mounted into and
//     in no other: how stores share bytes between repositories cannot be seen.
//   - An answer "it is here" is a promise. Put, Mount, Finish and a positive
//     [Reader].Stat all set [Info].TouchedAt, and a collector leaves alone what
//     was touched within the lease, so that a client which skips an upload
//     because of that answer has time to push the manifest that needs the blob.
//   - [Deleter].Delete hides it at once. [Collect] deletes what nothing needs.
//
// # Below a store
//
// A store that has a database for links and sessions keeps bytes in [Objects].
//
// # Errors
//
// Each error that a caller can act on is found with [errors.Is]:
//
//   - [ErrNotFound] (BLOB_UNKNOWN): no such blob in this repository.
//   - [ErrUploadNotFound] (BLOB_UPLOAD_UNKNOWN): no such session: never begun,
//     finished, aborted or expired.
//   - [ErrDigest] and [ErrSize] (DIGEST_INVALID, SIZE_INVALID): the content is
//     not what its descriptor says. Nothing became visible.
//   - [ErrOffset] (BLOB_UPLOAD_INVALID, status 416): a chunk does not begin where the
//     last one ended. The session is as it was.
//   - [ErrRange]: the range asked for begins beyond the end of the blob.
//   - [ErrConflict]: somebody else changed the session first, or a blob may not
//     be deleted now.
//   - [ErrTooMany] (TOOMANYREQUESTS): the store takes no more sessions for now.
//   - [ErrUnsupported]: the digest's algorithm is not sha256 or sha512, or the
//     store cannot do what was asked.
//
// # Testing an implementation
//
// Package blobtest checks a Store against every sentence of this package.
package blob

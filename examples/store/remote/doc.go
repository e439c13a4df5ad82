// Package remote is a registry over HTTP, as a replication.Source and a
// replication.Target: any that speaks the OCI distribution API, with the referrers
// API or without.
//
// # Credentials
//
// They are those of Docker's configuration file and credential helpers
// ([DockerCredentials]), or any other [auth.CredentialFunc], and are bound to the origin
// of the registry: scheme, host and port. A token server at another host gets them if it
// is of the same registrable domain, never over http when the registry is on https, or
// if the operator lists it in Realms. No redirect and no upload Location takes them to
// another origin, and requests for tokens follow no redirect at all. Errors hold neither
// secrets nor the query of a URL, which may be signed.
//
// # Addresses
//
// A [Guard] looks at the address of each connection, after the name is resolved, and
// refuses those of private networks, so that a registry cannot make its client reach what
// only the client can. The registry itself, and what the operator allows, are exempt. URLs
// that documents hold are not followed.
//
// # Errors
//
// What is missing is manifest.ErrNotFound or blob.ErrNotFound. Answers of a registry are
// a [*StatusError], which matches the errors of packages replication, manifest and blob
// that say the same. What may not come again is a replication.TemporaryError, with the
// Retry-After of the registry: nothing is tried again here.
package remote

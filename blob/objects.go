package blob

import (
	"context"
	"io"
	"iter"
	"time"
)

// Object is what is known of the bytes under a key.
type Object struct {
	Key     string
	Size    int64     // bytes
	ModTime time.Time // when they were put, by the clock of who keeps them
}

// Objects keeps bytes under opaque keys: no digests, no repositories, no
// sessions. Stores that have those in a database keep their bytes below it, in
// Objects. For all methods:
//
//   - They may be called from many goroutines and processes at once.
//   - They refuse an ended ctx with its error, and honour it while they wait.
//   - A key is one or more components of [a-zA-Z0-9._+=-], joined by "/", each of 1
//     to 200 characters, without "." at its begin or end, 1000 characters in all.
//     Other keys match [ErrUnsupported]. A key is never the folder of another.
//   - Whoever puts makes a key that nobody else uses or has used. So a
//     deletion, however late, can only hit the bytes that it means: generations
//     in the terms of model/collect.pml.
//   - A failure is never reported as ErrNotFound.
type Objects interface {
	// Put stores what r yields under key and returns how much that is. It is
	// durable, and visible all at once, when Put returns. An error, from r or
	// else, means that nothing is visible, unless the failure was that of an
	// answer which got lost: then all of it may be.
	Put(ctx context.Context, key string, r io.Reader) (int64, error)

	// Open returns n bytes from off on; n == -1 means to the end, and an n beyond
	// the end is cut there. off == Size is an empty reader. Errors: ErrNotFound;
	// ErrRange when off > Size. The reader never ends early without an error.
	Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, Object, error)

	// Delete removes the bytes under key, durably. When there are none, it
	// succeeds or says ErrNotFound.
	Delete(ctx context.Context, key string) error

	// List yields what lies in the folder named under, which has the form of a key, or
	// everything if under is "", in byte order of keys, strictly after the key after. What is put or deleted meanwhile
	// may be seen or not. It ends at its first error: it is never short without one.
	List(ctx context.Context, under, after string) iter.Seq2[Object, error]
}

// ObjectSweeper is implemented by Objects that calls which never returned can
// leave something behind in that no key shows.
type ObjectSweeper interface {
	// Sweep removes what such calls left before cutoff, and tells how many
	// things those were. No call may be under way that has lasted since; one that
	// has, fails.
	Sweep(ctx context.Context, cutoff time.Time) (int, error)
}

// Linker is implemented by Objects that clients can fetch from without us.
type Linker interface {
	// Link returns a URL that answers a GET, with or without a Range, with the
	// bytes under key, to anyone who has it, until about ttl from now.
	Link(ctx context.Context, key string, ttl time.Duration) (string, error)
}

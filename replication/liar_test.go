package replication_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

var zero time.Time

// liar answers with other bytes.
type liar struct {
	replication.BlobReader
	change func([]byte) []byte
}

func (l liar) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := l.BlobReader.Open(ctx, repo, dgst, 0, -1)
	if err != nil {
		return nil, info, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, info, err
	}
	b = l.change(slices.Clone(b))
	return io.NopCloser(bytes.NewReader(b[min(int(off), len(b)):])), blob.Info{Size: -1}, nil
}

type liarManifests struct {
	replication.ManifestReader
	change func([]byte) []byte
}

func (l liarManifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, err := l.ManifestReader.Get(ctx, repo, dgst)
	rec.Raw = l.change(slices.Clone(rec.Raw))
	return rec, err
}

// listed is an Index that lists the same for every subject.
type listed []ocispec.Descriptor

func (x listed) Referrers(context.Context, string, digest.Digest, string, digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for _, d := range x {
			if !yield(d, nil) {
				return
			}
		}
	}
}

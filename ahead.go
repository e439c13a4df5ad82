package wharfage

import (
	"context"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// fewAhead is for a reader who may not want many.
const fewAhead = 16

// ahead reads a listing some items at a time, first as many as are surely wanted, and
// fewer where they are long: size tells about how many bytes an item has.
func ahead[T any](listing iter.Seq2[T, error], first int, size func(*T) int) iter.Seq2[[]T, error] {
	const most, mostBytes = 512, 4 << 20
	return func(yield func([]T, error) bool) {
		n, bytes := min(first, most), 0
		items := make([]T, 0, n)
		for item, err := range listing {
			if err != nil {
				if len(items) == 0 || yield(items, nil) {
					yield(nil, err)
				}
				return
			}
			items = append(items, item)
			if bytes += size(&item); len(items) == n || bytes >= mostBytes {
				if !yield(items, nil) {
					return
				}
				n, bytes = min(4*n, most), 0
				items = make([]T, 0, n)
			}
		}
		if len(items) > 0 {
			yield(items, nil)
		}
	}
}

// sizeOf tells about how many bytes a record takes without its Raw: an annotation, or a
// list of children, can be as long as a document.
func sizeOf(rec *manifest.Record) int {
	return annotationsSize(rec.Desc.Annotations) + 100*(len(rec.Manifests)+len(rec.Blobs))
}

func annotationsSize(annotations map[string]string) (n int) {
	for k, v := range annotations {
		n += len(k) + len(v)
	}
	return n
}

// withRecord is an item of a listing, and the manifest that it is about.
type withRecord[T any] struct {
	item   T
	record manifest.Record // without Raw
}

// described looks up the manifests that a listing is about, many in one step.
// Items about what is gone since are left out.
func described[T any](ctx context.Context, r manifest.Reader, repo string, listing iter.Seq2[T, error], first int, digestOf func(*T) digest.Digest, size func(*T) int) iter.Seq2[withRecord[T], error] {
	return func(yield func(withRecord[T], error) bool) {
		for items, err := range ahead(listing, first, size) {
			var recs []manifest.Record
			if err == nil {
				dgsts := make([]digest.Digest, len(items))
				for i := range items {
					dgsts[i] = digestOf(&items[i])
				}
				recs, err = manifest.Describe(ctx, r, repo, dgsts)
			}
			if err != nil {
				yield(withRecord[T]{}, err)
				return
			}
			for i, rec := range recs {
				if rec.Desc.Digest != "" && !yield(withRecord[T]{items[i], rec}, nil) {
					return
				}
			}
		}
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// ensure makes sure that a blob is in r, in one of the ways that clients do. A
// positive answer, whatever to, holds for the lease.
func (w *worker) ensure(ctx context.Context, r *repository, l layer) error {
	switch w.rand.IntN(4) {
	case 0:
		want := []int{http.StatusOK, http.StatusNotFound}
		if r.needs(l.Digest) {
			want = want[:1]
		}
		a, err := w.do(ctx, "HEAD", blobOf(r, l.Digest), nil, nil, want...)
		if err != nil || a.status == http.StatusOK {
			return err
		}
	case 1:
		done, err := w.mount(ctx, r, l)
		if done || err != nil {
			return err
		}
	}
	return w.upload(ctx, r, l)
}

// mount tries another repository, which may be another worker's. Then nobody
// knows what it has.
func (w *worker) mount(ctx context.Context, r *repository, l layer) (done bool, err error) {
	from, want := repoName(w.rand.IntN(w.o.workers), w.rand.IntN(reposEach)), []int{http.StatusCreated, http.StatusAccepted}
	for _, own := range w.repos {
		if own != r && own.needs(l.Digest) {
			from, want = own.name, want[:1]
			break
		}
	}
	uri := with(with(uploads(r), "mount", string(l.Digest)), "from", from)
	a, err := w.do(ctx, "POST", uri, nil, nil, want...)
	if err != nil || a.status == http.StatusCreated {
		return true, err
	}
	return true, w.finish(ctx, a.header.Get("Location"), w.layers.content(l), l.Digest)
}

func uploads(r *repository) string { return "/v2/" + r.name + "/blobs/uploads/" }

// begin starts an upload and returns where it is.
func (w *worker) begin(ctx context.Context, r *repository) (string, error) {
	a, err := w.do(ctx, "POST", uploads(r), nil, nil, http.StatusAccepted)
	return a.header.Get("Location"), err
}

// patch sends a chunk that begins at off, and returns where the upload is now.
func (w *worker) patch(ctx context.Context, location string, off int, chunk []byte) (string, error) {
	h := octets.Clone()
	h.Set("Content-Range", fmt.Sprintf("%d-%d", off, off+len(chunk)-1))
	a, err := w.do(ctx, "PATCH", location, h, chunk, http.StatusAccepted)
	if end := "0-" + strconv.Itoa(off+len(chunk)-1); err == nil && a.header.Get("Range") != end {
		err = fmt.Errorf("after a chunk Range is %q, want %q", a.header.Get("Range"), end)
	}
	return a.header.Get("Location"), err
}

// finish sends what is left.
func (w *worker) finish(ctx context.Context, location string, rest []byte, dgst digest.Digest) error {
	_, err := w.do(ctx, "PUT", with(location, "digest", string(dgst)), octets, rest, http.StatusCreated)
	return err
}

func (w *worker) upload(ctx context.Context, r *repository, l layer) error {
	content := w.layers.content(l)
	how := w.rand.IntN(10)
	if how < 3 {
		_, err := w.do(ctx, "POST", with(uploads(r), "digest", string(l.Digest)), octets, content, http.StatusCreated)
		return err
	}
	location, err := w.begin(ctx, r)
	if err != nil || how < 6 {
		if err == nil {
			err = w.finish(ctx, location, content, l.Digest)
		}
		return err
	}
	if how < 8 { // as Docker does
		a, err := w.do(ctx, "PATCH", location, octets, content, http.StatusAccepted)
		if err == nil {
			err = w.finish(ctx, a.header.Get("Location"), nil, l.Digest)
		}
		return err
	}
	off := 0
	for size := 1 + len(content)/(1+w.rand.IntN(5)); len(content)-off > size; off += size {
		if w.rand.IntN(10) == 0 { // a chunk that does not fit
			h := octets.Clone()
			h.Set("Content-Range", fmt.Sprintf("%d-%d", off+1, off+10))
			if _, err := w.do(ctx, "PATCH", location, h, content[:10], http.StatusRequestedRangeNotSatisfiable); err != nil {
				return err
			}
		}
		if location, err = w.patch(ctx, location, off, content[off:off+size]); err != nil {
			return err
		}
	}
	return w.finish(ctx, location, content[off:], l.Digest)
}

// pushOrphan pushes what no manifest will need.
func (w *worker) pushOrphan(ctx context.Context, r *repository) error {
	return w.ensure(ctx, r, w.newLayer())
}

// half uploads a part of a layer.
func (w *worker) half(ctx context.Context, r *repository) (location string, off int, content []byte, err error) {
	content = w.layers.content(w.newLayer())
	if location, err = w.begin(ctx, r); err == nil {
		off = len(content) / 2
		location, err = w.patch(ctx, location, 0, content[:off])
	}
	return location, off, content, err
}

func (w *worker) endUpload(ctx context.Context, r *repository) error {
	location, _, _, err := w.half(ctx, r)
	if err == nil {
		_, err = w.do(ctx, "DELETE", location, nil, nil, http.StatusNoContent)
	}
	if err == nil {
		_, err = w.do(ctx, "GET", location, nil, nil, http.StatusNotFound)
	}
	return err
}

func (w *worker) abandonUpload(ctx context.Context, r *repository) error {
	_, _, _, err := w.half(ctx, r)
	return err
}

// breakChunk ends the connection in the middle of a chunk. What was
// acknowledged before is still there.
func (w *worker) breakChunk(ctx context.Context, r *repository) error {
	location, off, content, err := w.half(ctx, r)
	if err != nil {
		return err
	}
	rest := content[off:]
	broken := errors.New("broken off")
	part := io.MultiReader(bytes.NewReader(rest[:len(rest)/2]), failing{broken})
	if a, err := w.send(ctx, "PATCH", location, octets, part, int64(len(rest))); !errors.Is(err, broken) {
		return fmt.Errorf("a chunk that was broken off: status %d, %v", a.status, err)
	}
	a, err := w.do(ctx, "GET", location, nil, nil, http.StatusNoContent)
	if want := "0-" + strconv.Itoa(off-1); err == nil && a.header.Get("Range") != want {
		err = fmt.Errorf("after a chunk that was broken off Range is %q, want %q", a.header.Get("Range"), want)
	}
	if err == nil && w.rand.IntN(2) == 0 {
		err = w.finish(ctx, location, rest, digest.FromBytes(content))
	}
	return err
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (w *worker) wrongDigest(ctx context.Context, r *repository) error {
	content, other := w.layers.content(w.newLayer()), digest.FromString("something else")
	if _, err := w.do(ctx, "POST", with(uploads(r), "digest", string(other)), octets, content, http.StatusBadRequest); err != nil {
		return err
	}
	_, err := w.do(ctx, "HEAD", blobOf(r, other), nil, nil, http.StatusNotFound)
	return err
}

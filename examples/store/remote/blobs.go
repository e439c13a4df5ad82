package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// Blobs are those of a registry. See [Registry.Source] and [Registry.Target].
type Blobs struct {
	r    *Registry
	push bool
}

var (
	_ blob.Reader          = (*Blobs)(nil)
	_ blob.Writer          = (*Blobs)(nil)
	_ blob.Uploads         = (*Blobs)(nil)
	_ replication.Receiver = (*Blobs)(nil)
)

// Stat implements [blob.Reader] with a request for each digest. When a blob was
// touched stays unknown.
func (b *Blobs) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	out := make([]blob.Info, len(dgsts))
	err := each(ctx, dgsts, func(ctx context.Context, i int, d digest.Digest) error {
		resp, err := b.r.done(ctx, of(http.MethodHead, repo, "blobs/", string(d), actions(b.push)...), http.StatusOK, http.StatusNotFound)
		if err == nil {
			err = sameDigest(resp, d)
		}
		if err != nil {
			return blobError("stat", repo, d, err)
		}
		if resp.StatusCode == http.StatusOK {
			out[i] = blob.Info{Digest: d, Size: resp.ContentLength}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// each calls f for each digest, a few at once.
func each(ctx context.Context, dgsts []digest.Digest, f func(ctx context.Context, i int, d digest.Digest) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16) // goroutines; requests have their own limit
	for i, d := range dgsts {
		g.Go(func() error { return f(ctx, i, d) })
	}
	return g.Wait()
}

// sameDigest checks the digest that an answer claims, if it is of the algorithm asked
// for: another may be the registry's own choice.
func sameDigest(resp *http.Response, d digest.Digest) error {
	got := resp.Header.Get("Docker-Content-Digest")
	if algorithm, _, _ := strings.Cut(string(d), ":"); strings.HasPrefix(got, algorithm+":") && got != string(d) {
		return fmt.Errorf("%w: the answer says that it is %.200q", replication.ErrContent, got)
	}
	return nil
}

// Open implements [replication.BlobReader]: lengths and offsets are checked, and the
// digest is not, since who reads does that. An answer that is cut off ends with an
// error that matches replication.ErrContent and may be read on from there.
func (b *Blobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	content, info, err := b.open(ctx, repo, dgst, off, n)
	if err != nil {
		return nil, blob.Info{}, blobError("open", repo, dgst, notFound(err, blob.ErrNotFound))
	}
	return content, info, nil
}

func (b *Blobs) open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	q := of(http.MethodGet, repo, "blobs/", string(dgst), actions(b.push)...)
	if off > 0 || n >= 0 {
		last := ""
		if n >= 0 {
			last = strconv.FormatInt(off+max(n, 1)-1, 10) // no range is empty
		}
		q.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%s", off, last)}}
	}
	resp, err := b.r.do(ctx, q, http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, blob.Info{}, err
	}
	info := blob.Info{Digest: dgst, Size: resp.ContentLength}
	if err = sameDigest(resp, dgst); err == nil && resp.StatusCode != http.StatusOK {
		var first int64
		first, info.Size, err = contentRange(resp.Header.Get("Content-Range"))
		switch {
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && info.Size == off: // nothing is left
			n, err = 0, nil
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
			err = fmt.Errorf("%w: at %d", blob.ErrRange, off)
		case err == nil && first != off:
			err = fmt.Errorf("%w: it begins at %d, not at %d", replication.ErrContent, first, off)
		case err == nil && min(resp.ContentLength, info.Size) >= 0 && resp.ContentLength < info.Size-off && (n < 0 || resp.ContentLength < n):
			err = fmt.Errorf("%w: of the range there are %d bytes", replication.ErrContent, resp.ContentLength)
		}
	} else if err == nil && off > 0 { // the registry knows no ranges
		if info.Size >= 0 && off > info.Size {
			err = fmt.Errorf("%w: at %d of %d", blob.ErrRange, off, info.Size)
		} else if _, err = io.CopyN(io.Discard, resp.Body, off); err == io.EOF {
			err = fmt.Errorf("%w: at %d", blob.ErrRange, off)
		}
	}
	if err != nil {
		resp.Body.Close()
		return nil, blob.Info{}, err
	}
	if n < 0 {
		return resp.Body, info, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, n), resp.Body}, info, nil
}

// contentRange reads "bytes 0-9/10" and "bytes */10" (RFC 9110 section 14.4). size -1
// is unknown.
func contentRange(s string) (first, size int64, err error) {
	part, total, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	from, _, _ := strings.Cut(part, "-")
	if size = -1; ok && total != "*" {
		size, err = strconv.ParseInt(total, 10, 64)
	}
	if err == nil && part != "*" {
		first, err = strconv.ParseInt(from, 10, 64)
	}
	if err != nil || !ok || first < 0 {
		return 0, -1, fmt.Errorf("%w: Content-Range %.200q", replication.ErrContent, s)
	}
	return first, size, nil
}

// Put implements [blob.Writer] in two requests. It fails with a
// replication.TemporaryError where the content would have to be sent a second time.
func (b *Blobs) Put(ctx context.Context, repo string, desc ocispec.Descriptor, content io.Reader) error {
	at, _, err := b.begin(ctx, repo, "")
	if err == nil {
		used := false
		err = b.send(ctx, repo, at, desc, func(context.Context) (io.ReadCloser, error) {
			if used {
				return nil, errOneShot
			}
			used = true
			return io.NopCloser(content), nil
		})
	}
	return blobError("put", repo, desc.Digest, err)
}

// begin asks for a session. The answer is nil if there is none because the query was a
// mount, and it is done.
func (b *Blobs) begin(ctx context.Context, repo, query string, from ...string) (*url.URL, *http.Response, error) {
	q := of(http.MethodPost, repo, "blobs/uploads/", query, auth.ActionPull, auth.ActionPush)
	for _, f := range from {
		if f != repo {
			q.scopes = append(q.scopes, auth.ScopeRepository(f, auth.ActionPull))
		}
	}
	resp, err := b.r.done(ctx, q, http.StatusAccepted, http.StatusCreated)
	if err != nil || resp.StatusCode == http.StatusCreated && query != "" {
		return nil, resp, err
	}
	at, err := location(resp)
	return at, resp, err
}

// send sends a whole blob to a session.
func (b *Blobs) send(ctx context.Context, repo string, at *url.URL, desc ocispec.Descriptor, open func(context.Context) (io.ReadCloser, error)) error {
	q := of(http.MethodPut, repo, "blobs/uploads/", "", auth.ActionPull, auth.ActionPush)
	q.at, q.header, q.open, q.size = withDigest(at, desc.Digest), http.Header{"Content-Type": {"application/octet-stream"}}, open, max(desc.Size, -1)
	resp, err := b.r.done(ctx, q, http.StatusCreated, http.StatusNoContent)
	if err == nil {
		err = sameDigest(resp, desc.Digest)
	}
	return notFound(err, blob.ErrUploadNotFound)
}

// withDigest adds a parameter to what a Location has already.
func withDigest(at *url.URL, d digest.Digest) *url.URL {
	u := *at
	u.RawQuery = strings.TrimPrefix(u.RawQuery+"&digest="+url.QueryEscape(string(d)), "&")
	return &u
}

// Receive implements [replication.Receiver]. One request mounts the blob, or begins to
// send it; without candidates it mounts from repo itself, which finds what is there. A
// registry that never does the latter is asked by HEAD instead, once the first blob
// that was sent has shown it.
func (b *Blobs) Receive(ctx context.Context, repo string, desc ocispec.Descriptor, from []string,
	open func(ctx context.Context, off int64) (io.ReadCloser, error)) (replication.Received, error) {
	done, err := b.receive(ctx, repo, desc, from, open)
	if err != nil {
		return "", blobError("receive", repo, desc.Digest, err)
	}
	return done, nil
}

func (b *Blobs) receive(ctx context.Context, repo string, desc ocispec.Descriptor, from []string,
	open func(ctx context.Context, off int64) (io.ReadCloser, error)) (replication.Received, error) {
	self := len(from) == 0
	if self && b.r.selfMount.Load() != no {
		from = []string{repo}
	}
	var at *url.URL
	for _, f := range from {
		b.abandon(ctx, repo, at)
		session, resp, err := b.begin(ctx, repo, mount(desc.Digest, f), f)
		switch {
		case err == nil && session == nil && f == repo:
			b.r.selfMount.Store(yes)
			return replication.Present, sameDigest(resp, desc.Digest)
		case err == nil && session == nil:
			return replication.Mounted, sameDigest(resp, desc.Digest)
		case err != nil && !isRefusal(err):
			return "", err
		case err != nil && f == repo:
			b.r.selfMount.Store(no)
		}
		at = session // nil where it refuses to mount
	}
	if at == nil && self {
		infos, err := b.Stat(ctx, repo, []digest.Digest{desc.Digest})
		if err != nil || infos[0].Digest != "" {
			return replication.Present, err
		}
	}
	if at == nil {
		var err error
		if at, _, err = b.begin(ctx, repo, ""); err != nil {
			return "", err
		}
	}
	err := b.send(ctx, repo, at, desc, func(ctx context.Context) (io.ReadCloser, error) { return open(ctx, 0) })
	if err == nil && self && b.r.selfMount.CompareAndSwap(unknown, yes) {
		// It is there now: does a mount find it? If this cannot be told, nothing is lost.
		if session, _, err := b.begin(ctx, repo, mount(desc.Digest, repo), repo); err == nil && session != nil {
			b.r.selfMount.Store(no)
			b.abandon(ctx, repo, session)
		}
	}
	return replication.Sent, err
}

func mount(d digest.Digest, from string) string {
	return "?mount=" + url.QueryEscape(string(d)) + "&from=" + escape(from)
}

// isRefusal tells whether err is the answer of a registry that does not mount, or not for
// this client.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Status < 500 && e.Status != http.StatusTooManyRequests
}

// abandon ends a session, where the registry can. It would run out by itself.
func (b *Blobs) abandon(ctx context.Context, repo string, at *url.URL) {
	if at != nil {
		q := of(http.MethodDelete, repo, "blobs/uploads/", "", auth.ActionPull, auth.ActionPush)
		q.at = at
		b.r.done(ctx, q, http.StatusNoContent)
	}
}

// blobError adds what failed.
func blobError(op, repo string, d digest.Digest, err error) error {
	if _, ok := err.(*blob.Error); ok || err == nil {
		return err
	}
	return &blob.Error{Op: op, Repo: repo, Digest: d, Err: err}
}

func manifestError(op, repo, object string, err error) error {
	if _, ok := err.(*manifest.Error); ok || err == nil {
		return err
	}
	return &manifest.Error{Op: op, Repo: repo, Object: object, Err: err}
}

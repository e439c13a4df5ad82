package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/replication"
)

// chunk is how many bytes of a session are in memory, and sent in one request, unless
// the registry wants more (OCI-Chunk-Min-Length).
const (
	chunk    = 8 << 20
	maxChunk = 64 << 20
)

// session returns where the session of u is to be found: its State, or else its ID.
func (b *Blobs) session(u blob.Upload) (at *url.URL, err error) {
	if err = b.r.Check(); err != nil {
		return nil, err
	}
	where := string(u.State)
	if where == "" && strings.Contains(u.ID, "/") {
		where = u.ID
	} else if where == "" {
		where = u.Repo + "/blobs/uploads/" + u.ID
	}
	if at, err = b.r.base.Parse(where); err != nil {
		return nil, fmt.Errorf("%w: its state is none of this registry", blob.ErrUploadNotFound)
	}
	return at, nil
}

// at is u with its session at a Location. The ID is the last segment of that if it is
// enough to find the session again, else all of it.
func (b *Blobs) at(u blob.Upload, location *url.URL) blob.Upload {
	u.State, u.ID = []byte(location.String()), location.String()
	if plain := b.r.base.JoinPath(u.Repo, "blobs/uploads", path.Base(location.Path)); plain.String() == u.ID {
		u.ID = path.Base(location.Path)
	}
	return u
}

// Begin implements [blob.Uploads], but for the form of the ID, which may be long. ID and
// State of an Upload are the Location that the registry has given last, so that another
// process can go on with it.
func (b *Blobs) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	query := ""
	if alg != digest.SHA256 {
		query = "?digest-algorithm=" + url.QueryEscape(string(alg))
	}
	at, resp, err := b.begin(ctx, repo, query)
	if err != nil {
		return blob.Upload{}, blobError("begin upload", repo, "", err)
	}
	least, _ := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64)
	b.r.chunk.Store(int32(min(max(least, chunk), maxChunk)))
	return b.at(blob.Upload{Repo: repo, Algorithm: alg, UpdatedAt: b.r.now()}, at), nil
}

// Lookup implements [blob.Uploads]. The registry does not tell the Hash. A session that it
// does not want to speak of is ErrUploadNotFound too.
func (b *Blobs) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	u, err := b.status(ctx, blob.Upload{Repo: repo, ID: id, Algorithm: digest.SHA256, UpdatedAt: b.r.now()})
	return u, uploadError("lookup", u, err)
}

// status asks how far a session is.
func (b *Blobs) status(ctx context.Context, u blob.Upload) (blob.Upload, error) {
	at, err := b.session(u)
	if err != nil {
		return u, err
	}
	resp, err := b.step(ctx, http.MethodGet, u.Repo, at, nil, nil, http.StatusNoContent, http.StatusOK)
	if e, ok := errors.AsType[*StatusError](err); ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusRequestedRangeNotSatisfiable) {
		err = fmt.Errorf("%w: %w", blob.ErrUploadNotFound, err) // distribution, where another request was faster
	}
	if err != nil {
		return u, err
	}
	return b.advanced(u, resp, at)
}

// step is a request to a session.
func (b *Blobs) step(ctx context.Context, method, repo string, at *url.URL, header http.Header, content []byte, ok ...int) (*http.Response, error) {
	q := of(method, repo, "blobs/uploads/", "", auth.ActionPull, auth.ActionPush)
	q.at, q.header = at, header
	if content != nil {
		q.size = int64(len(content))
		q.open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	}
	resp, err := b.r.done(ctx, q, ok...)
	return resp, notFound(err, blob.ErrUploadNotFound)
}

// advanced is u as an answer says that it is: Range is "0-" and the last byte, also
// where there is none yet.
func (b *Blobs) advanced(u blob.Upload, resp *http.Response, at *url.URL) (blob.Upload, error) {
	if resp.Header.Get("Location") != "" {
		var err error
		if at, err = location(resp); err != nil {
			return u, err
		}
	}
	_, last, ok := strings.Cut(resp.Header.Get("Range"), "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil && last != "-1" || end < -1 {
		return u, fmt.Errorf("%w: Range %.200q", replication.ErrContent, resp.Header.Get("Range"))
	}
	if u.Size = end + 1; u.Size == 1 {
		u.Size = 0 // "0-0" is how registries say that nothing is there; one byte is sent again
	}
	return b.at(u, at), nil
}

// Append implements [blob.Uploads] in requests of some MiB. A session that is ahead
// of u has what an interrupted Append of this client has sent: so much of r is
// skipped and not sent again. Should it be other bytes, the registry refuses the digest
// in the end.
func (b *Blobs) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	next, err := b.append(ctx, u, r)
	if err != nil {
		return u, uploadError("append", u, err)
	}
	return next, nil
}

func (b *Blobs) append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	at, err := b.session(u)
	if err != nil {
		return u, err
	}
	most := max(chunk, int(b.r.chunk.Load()))
	buf := make([]byte, 0, 512)
	for end := false; !end; {
		buf, end, err = fill(buf[:0], r, most)
		if err != nil {
			return u, err
		}
		for rest := buf; len(rest) > 0; {
			head := http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", u.Size, u.Size+int64(len(rest))-1)}}
			resp, err := b.step(ctx, http.MethodPatch, u.Repo, at, head, rest, http.StatusAccepted, http.StatusNoContent, http.StatusRequestedRangeNotSatisfiable)
			if err != nil {
				return u, err
			}
			want := u.Size + int64(len(rest))
			var is blob.Upload
			if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
				is, err = b.status(ctx, u)
			} else if is, err = b.advanced(u, resp, at); err == nil && want == 1 {
				is.Size = 1
			}
			if err == nil && (is.Size <= u.Size || is.Size > want && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable) {
				err = fmt.Errorf("%w: it is at %d, not at %d", blob.ErrConflict, is.Size, u.Size)
			}
			if err != nil {
				return u, err
			}
			step := min(is.Size-u.Size, int64(len(rest)))
			rest = rest[step:]
			is.Size = u.Size + step
			u = is
			if at, err = b.session(u); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

// fill reads up to most bytes, and takes memory by what arrives.
func fill(buf []byte, r io.Reader, most int) (out []byte, end bool, err error) {
	for len(buf) < most {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), most)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, true, nil
		}
		if err != nil {
			return buf, true, err
		}
	}
	return buf, false, nil
}

// Save implements [blob.Uploads]. The registry has saved already: nothing is to be done.
func (b *Blobs) Save(ctx context.Context, _, _ blob.Upload) error { return ctx.Err() }

// Commit implements [blob.Uploads].
func (b *Blobs) Commit(ctx context.Context, _, u blob.Upload, dgst digest.Digest) error {
	at, err := b.session(u)
	if err == nil {
		var resp *http.Response
		if resp, err = b.step(ctx, http.MethodPut, u.Repo, withDigest(at, dgst), nil, nil, http.StatusCreated, http.StatusNoContent); err == nil {
			err = sameDigest(resp, dgst)
		}
	}
	return uploadError("commit", u, err)
}

// Abort implements [blob.Uploads]. Where a registry cannot, the session runs out by itself.
func (b *Blobs) Abort(ctx context.Context, u blob.Upload) error {
	at, err := b.session(u)
	if err == nil {
		_, err = b.step(ctx, http.MethodDelete, u.Repo, at, nil, nil, http.StatusNoContent, http.StatusAccepted, http.StatusOK, http.StatusBadRequest, http.StatusMethodNotAllowed)
	}
	return uploadError("abort", u, err)
}

func uploadError(op string, u blob.Upload, err error) error {
	if _, ok := err.(*blob.Error); ok || err == nil {
		return err
	}
	id, _, _ := strings.Cut(path.Base(u.ID), "?") // the query is as good as a key
	return &blob.Error{Op: op, Repo: u.Repo, ID: id, Err: err}
}

package boltstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Manifests implements [manifest.Store], all of its optional abilities, and
// [referrers.JSONIndex].
type Manifests struct{ db *DB }

var _ interface {
	manifest.Store
	manifest.Catalog
	manifest.Stater
	manifest.Describer
	manifest.Counter
	manifest.Outbox
	referrers.JSONIndex
} = (*Manifests)(nil)

func manifestError(op, repo, object string, err error) error {
	if err == nil {
		return nil
	}
	return &manifest.Error{Op: op, Repo: repo, Object: object, Err: err}
}

func manifestFailure(op, repo, object string) func(error) error {
	return func(err error) error { return manifestError(op, repo, object, err) }
}

// stored is a record and where its Raw is.
type stored struct {
	manifest.Record
	body parts.Part
}

const recordForm = 1

// recordRow encodes a record without Raw and digest, which is in the key. What
// Stat asks for comes first.
func recordRow(s *stored) []byte {
	b := make([]byte, 0, 256+36*(len(s.Blobs)+len(s.Manifests)))
	b = appendString(append(b, recordForm), s.Desc.MediaType)
	b = binary.AppendUvarint(b, uint64(s.Desc.Size))
	b = appendString(b, s.Desc.ArtifactType)
	b = appendKey(b, s.body.Key)
	b = binary.AppendUvarint(b, uint64(s.body.Size))
	b = appendTime(appendTime(b, s.PushedAt), s.TouchedAt)
	b = appendString(b, string(s.Subject))
	b = binary.AppendUvarint(b, uint64(len(s.Desc.Annotations)))
	for _, k := range slices.Sorted(maps.Keys(s.Desc.Annotations)) {
		b = appendString(appendString(b, k), s.Desc.Annotations[k])
	}
	b = appendDigests(b, s.Manifests)
	b = appendDigests(b, s.Blobs)
	if s.StorageClass == manifest.Standard && s.ArchivedAt.IsZero() && s.RestoredAt.IsZero() {
		return b
	}
	return appendTime(appendTime(appendString(b, string(s.StorageClass)), s.ArchivedAt), s.RestoredAt)
}

func readDescriptor(r *row, dgst digest.Digest) ocispec.Descriptor {
	r.version(recordForm)
	return ocispec.Descriptor{MediaType: r.string(), Digest: dgst, Size: int64(r.uvarint()), ArtifactType: r.string()}
}

func readRecord(dgst digest.Digest, b []byte) (s stored, err error) {
	r := row{s: string(b)}
	s.Desc = readDescriptor(&r, dgst)
	if key := r.take(shortLen); r.err == nil {
		s.body = parts.Part{Key: unpackKey(key), Size: int64(r.uvarint())}
	}
	s.PushedAt, s.TouchedAt = r.time(), r.time()
	s.Subject = digest.Digest(r.string())
	if n := r.count(); n > 0 {
		s.Desc.Annotations = make(map[string]string, n)
		for range n {
			key := r.string()
			s.Desc.Annotations[key] = r.string()
		}
	}
	s.Manifests = r.digests()
	s.Blobs = r.digests()
	if r.s != "" { // else it never was in the archive
		s.StorageClass, s.ArchivedAt, s.RestoredAt = manifest.StorageClass(r.string()), r.time(), r.time()
	}
	if r.err != nil {
		return stored{}, fmt.Errorf("manifest %s: %w", dgst, r.err)
	}
	return s, nil
}

// record returns a manifest without its Raw.
func (t *tx) record(repo []byte, dgst digest.Digest) (s stored, found bool, err error) {
	v := t.get(manifestRows, digestRow(repo, dgst))
	if v == nil {
		return stored{}, false, nil
	}
	s, err = readRecord(dgst, v)
	return s, err == nil, err
}

// Get implements [manifest.Reader].
func (m *Manifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	s, err := m.get(ctx, repo, dgst)
	if err != nil {
		return manifest.Record{}, manifestError("get", repo, string(dgst), err)
	}
	return s.Record, nil
}

func (m *Manifests) get(ctx context.Context, repo string, dgst digest.Digest) (stored, error) {
	before := ""
	for {
		var s stored
		err := m.db.view(ctx, func(t *tx) (err error) {
			var found bool
			if s, found, err = t.record(name(repo), dgst); err == nil && !found {
				err = manifest.ErrNotFound
			}
			return err
		})
		if err != nil {
			return stored{}, err
		}
		if s.body.Key == before {
			return stored{}, fmt.Errorf("its object %s is missing: the store is damaged", before)
		}
		s.Raw, err = m.db.body(ctx, s.body)
		if !errors.Is(err, blob.ErrNotFound) {
			return s, err
		}
		before = s.body.Key // deleted meanwhile, and perhaps put again
	}
}

// body returns the bytes of an object, which are the caller's.
func (db *DB) body(ctx context.Context, p parts.Part) ([]byte, error) {
	if v, ok := db.bodies.get(p.Key); ok {
		return []byte(v), nil
	}
	r, err := db.files.Open(ctx, parts.Content{Parts: []parts.Part{p}}, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, p.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read object %s: %v", p.Key, err)
	}
	db.bodies.put(p.Key, string(b))
	return b, nil
}

func tagRow(t manifest.Tag) []byte {
	return appendTime(digestRow(make([]byte, 0, sha512Len+timeLen), t.Digest), t.MovedAt)
}

func readTag(name string, v []byte) (manifest.Tag, error) {
	d, n := readDigest(v)
	r := row{s: string(v[n:])}
	t := manifest.Tag{Name: name, Digest: d, MovedAt: r.time()}
	if r.err != nil {
		return manifest.Tag{}, fmt.Errorf("tag %s: %w", name, r.err)
	}
	return t, nil
}

func (t *tx) tag(repo []byte, name string) (tag manifest.Tag, found bool, err error) {
	v := t.get(tagRows, append(repo[:len(repo):len(repo)], name...))
	if v == nil {
		return manifest.Tag{}, false, nil
	}
	tag, err = readTag(name, v)
	return tag, err == nil, err
}

// Resolve implements [manifest.Reader].
func (m *Manifests) Resolve(ctx context.Context, repo, tag string) (out manifest.Tag, err error) {
	err = m.db.view(ctx, func(t *tx) (err error) {
		var found bool
		if out, found, err = t.tag(name(repo), tag); err == nil && !found {
			err = manifest.ErrNotFound
		}
		return err
	})
	if err != nil {
		return manifest.Tag{}, manifestError("resolve", repo, tag, err)
	}
	return out, nil
}

// Stat implements [manifest.Stater].
func (m *Manifests) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	out := make([]ocispec.Descriptor, len(dgsts))
	prefix := name(repo)
	err := m.db.view(ctx, func(t *tx) error {
		for i, d := range dgsts {
			if v := t.get(manifestRows, digestRow(prefix, d)); v != nil {
				r := row{s: string(v)}
				if out[i] = readDescriptor(&r, d); r.err != nil {
					return fmt.Errorf("manifest %s: %w", d, r.err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, manifestError("stat", repo, "", err)
	}
	return out, nil
}

// Describe implements [manifest.Describer].
func (m *Manifests) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	out := make([]manifest.Record, len(dgsts))
	prefix := name(repo)
	err := m.db.view(ctx, func(t *tx) error {
		for i, d := range dgsts {
			s, _, err := t.record(prefix, d)
			if err != nil {
				return err
			}
			out[i] = s.Record
		}
		return nil
	})
	if err != nil {
		return nil, manifestError("describe", repo, "", err)
	}
	return out, nil
}

// Count implements [manifest.Counter]: it passes over the keys of the repository.
func (m *Manifests) Count(ctx context.Context, repo string, dgst digest.Digest) (manifests, tags int, err error) {
	prefix := name(repo)
	err = m.db.view(ctx, func(t *tx) error {
		for range t.heads(manifestRows, prefix, prefix) {
			manifests++
		}
		if row, ok := appendDigest(prefix, dgst); ok {
			row = append(row, tagMark)
			for range t.under(manifestRows, row, row) {
				tags++
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, manifestError("count", repo, string(dgst), err)
	}
	return manifests, tags, nil
}

// Manifests implements [manifest.Reader].
func (m *Manifests) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return func(yield func(manifest.Record, error) bool) {
		for s, err := range m.records(ctx, repo, after) {
			if !yield(s.Record, err) {
				return
			}
		}
	}
}

func (m *Manifests) records(ctx context.Context, repo string, after digest.Digest) iter.Seq2[stored, error] {
	prefix := name(repo)
	return list(ctx, m.db, append(name(repo), afterDigest(string(after))...), func(t *tx, from []byte, n int) (page []stored, _ []byte, err error) {
		size := 0
		for k, v := range t.heads(manifestRows, prefix, from) {
			if len(page) == n || size > pageBytes {
				return page, append([]byte(nil), k...), nil
			}
			size += len(v)
			dgst, _ := readDigest(k[len(prefix):])
			s, err := readRecord(dgst, v)
			if err != nil {
				return nil, nil, err
			}
			page = append(page, s)
		}
		return page, nil, nil
	}, manifestFailure("list manifests", repo, ""))
}

// Tags implements [manifest.Reader].
func (m *Manifests) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	prefix := name(repo)
	from := append(name(repo), after...)
	if after != "" {
		from = next(from)
	}
	return list(ctx, m.db, from, func(t *tx, from []byte, n int) (page []manifest.Tag, _ []byte, err error) {
		for k, v := range t.under(tagRows, prefix, from) {
			if len(page) == n {
				return page, append([]byte(nil), k...), nil
			}
			tag, err := readTag(string(k[len(prefix):]), v)
			if err != nil {
				return nil, nil, err
			}
			page = append(page, tag)
		}
		return page, nil, nil
	}, manifestFailure("list tags", repo, ""))
}

// Repos implements [manifest.Catalog].
func (m *Manifests) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return repos(ctx, m.db, manifestRows, after, manifestFailure("list repositories", "", ""))
}

// referrerPrefix is that of all referrers of a subject, or of those of a type,
// which may be as long as it likes.
func referrerPrefix(repo string, subject digest.Digest, artifactType string) []byte {
	b := name(repo, string(subject))
	if artifactType == "" {
		return append(b, 'a')
	}
	sum := sha256.Sum256([]byte(artifactType))
	return append(append(b, 't'), sum[:]...)
}

// Referrers implements [referrers.Index].
func (m *Manifests) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for e, err := range m.ReferrersJSON(ctx, repo, subject, artifactType, after) {
			var desc ocispec.Descriptor
			if err == nil {
				if err = json.Unmarshal([]byte(e.JSON), &desc); err != nil {
					err = manifestError("list referrers", repo, string(subject), err)
				}
			}
			if !yield(desc, err) || err != nil {
				return
			}
		}
	}
}

// ReferrersJSON implements [referrers.JSONIndex].
func (m *Manifests) ReferrersJSON(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error] {
	prefix := referrerPrefix(repo, subject, artifactType)
	from := append(prefix[:len(prefix):len(prefix)], afterDigest(string(after))...)
	return list(ctx, m.db, from, func(t *tx, from []byte, n int) (page []manifest.ReferrerJSON, _ []byte, err error) {
		size := 0
		for k, v := range t.under(referrerRows, prefix, from) {
			if len(page) == n || size > pageBytes {
				return page, append([]byte(nil), k...), nil
			}
			size += len(v)
			dgst, _ := readDigest(k[len(prefix):])
			page = append(page, manifest.ReferrerJSON{Digest: dgst, JSON: string(v)})
		}
		return page, nil, nil
	}, manifestFailure("list referrers", repo, string(subject)))
}

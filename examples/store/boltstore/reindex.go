package boltstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// Reindex derives anew what can be derived from the manifests of repo as they
// were pushed: the facts of their records, which blobs and manifests they need,
// the lists of referrers, and from the tags which of them a manifest has. It
// returns how many rows were wrong, missing or too many. It may run while the
// store is in use.
//
// Records are neither made nor removed. One whose bytes cannot be read, or no
// longer be parsed, keeps its facts; Reindex goes on, and returns the first such error at
// the end.
func (db *DB) Reindex(ctx context.Context, repo string) (changed int, err error) {
	var damage error
	for s, err := range db.Manifests().records(ctx, repo, "") {
		if err != nil {
			return changed, err
		}
		want, err := db.derive(ctx, s)
		if ctx.Err() != nil {
			return changed, manifestError("reindex", repo, "", ctx.Err())
		}
		if err != nil && damage == nil {
			damage = manifestError("reindex", repo, string(s.Desc.Digest), err)
		}
		n, err := db.mend(ctx, func(t *tx) ([]fact, error) { return t.wrongFacts(name(repo), s, want) })
		if changed += n; err != nil {
			return changed, manifestError("reindex", repo, string(s.Desc.Digest), err)
		}
	}
	for tag, err := range db.Manifests().Tags(ctx, repo, "") {
		if err != nil {
			return changed, err
		}
		n, err := db.mend(ctx, func(t *tx) ([]fact, error) { return t.wrongTag(name(repo), tag.Name) })
		if changed += n; err != nil {
			return changed, manifestError("reindex", repo, tag.Name, err)
		}
	}
	for _, table := range []int{linkRows, manifestRows, referrerRows} {
		n, err := db.removeStale(ctx, repo, table)
		if changed += n; err != nil {
			return changed, manifestError("reindex", repo, "", err)
		}
	}
	return changed, damage
}

// derive returns the record that the bytes of s make. It is s itself if they
// cannot be parsed.
func (db *DB) derive(ctx context.Context, s stored) (stored, error) {
	raw, err := db.body(ctx, s.body)
	if err != nil {
		return s, err
	}
	dgst := s.Desc.Digest
	if got := manifest.Digest(dgst.Algorithm(), raw); got != dgst {
		return s, fmt.Errorf("its object %s: %w: it has %s", s.body.Key, manifest.ErrDigest, got)
	}
	m, err := manifest.Parse(s.Desc.MediaType, raw)
	if err != nil {
		return s, err
	}
	rec := m.Record(dgst, raw)
	// Of unknown types, those that were manifests when it was pushed.
	isManifest := func(d digest.Digest) bool { return slices.Contains(s.Manifests, d) }
	for _, d := range rec.Blobs {
		if isManifest(d) {
			rec.Manifests = append(rec.Manifests, d)
		}
	}
	rec.Blobs = slices.DeleteFunc(rec.Blobs, isManifest)
	rec.Raw, rec.PushedAt, rec.TouchedAt = nil, s.PushedAt, s.TouchedAt
	return stored{rec, s.body}, nil
}

// mend puts the rows that wrong finds, and deletes those without a value.
func (db *DB) mend(ctx context.Context, wrong func(*tx) ([]fact, error)) (n int, err error) {
	if err = db.view(ctx, func(t *tx) error {
		rows, err := wrong(t)
		n = len(rows)
		return err
	}); err != nil || n == 0 {
		return 0, err
	}
	err = db.update(ctx, func(t *tx) error {
		rows, err := wrong(t)
		if err != nil {
			return err
		}
		for _, f := range rows {
			if f.value == nil {
				t.delete(f.table, f.key)
			} else {
				t.put(f.table, f.key, f.value)
			}
		}
		n = len(rows)
		return nil
	})
	if err != nil {
		n = 0
	}
	return n, err
}

// wrongFacts compares the rows of s, if it is still there, with those that want
// makes.
func (t *tx) wrongFacts(repo []byte, s, want stored) (wrong []fact, err error) {
	now, found, err := t.record(repo, s.Desc.Digest)
	if err != nil || !found || now.body != s.body {
		return nil, err
	}
	// Since s was read:
	want.TouchedAt = now.TouchedAt
	want.StorageClass, want.ArchivedAt, want.RestoredAt = now.StorageClass, now.ArchivedAt, now.RestoredAt
	row := digestRow(repo, s.Desc.Digest)
	rows := append(t.factsOf(repo, want), fact{manifestRows, row, recordRow(&want)})
	return slices.DeleteFunc(rows, func(f fact) bool {
		v := t.get(f.table, f.key)
		return v != nil && bytes.Equal(v, f.value)
	}), nil
}

func (t *tx) factsOf(repo []byte, s stored) []fact {
	return facts(repo, &s, digestRow(nil, s.Desc.Digest), []byte(manifest.NewReferrerJSON(s.Desc).JSON))
}

// wrongTag looks for what is noted of a tag behind its manifest.
func (t *tx) wrongTag(repo []byte, name string) (wrong []fact, err error) {
	tag, found, err := t.tag(repo, name)
	if err != nil || !found {
		return nil, err
	}
	row := append(append(digestRow(repo, tag.Digest), tagMark), name...)
	if t.has(manifestRows, row) {
		return nil, nil
	}
	return []fact{{manifestRows, row, nothing}}, nil
}

// removeStale deletes the derived rows of repo in a table that nothing makes.
func (db *DB) removeStale(ctx context.Context, repo string, table int) (n int, err error) {
	prefix := name(repo)
	for page, err := range list(ctx, db, prefix, func(t *tx, from []byte, _ int) (page [][]fact, _ []byte, err error) {
		var stale []fact
		seen := derived{}
		looked := 0
		for k, v := range t.under(table, prefix, from) {
			if looked++; looked > 4*pageLen {
				return [][]fact{stale}, append([]byte(nil), k...), nil
			}
			if t.isStale(table, prefix, k, v, seen) {
				stale = append(stale, fact{table, append([]byte(nil), k...), nil})
			}
		}
		return [][]fact{stale}, nil, nil
	}, func(err error) error { return err }) {
		if err != nil {
			return n, err
		}
		removed, err := db.mend(ctx, func(t *tx) ([]fact, error) {
			seen := derived{}
			return slices.DeleteFunc(slices.Clone(page), func(f fact) bool {
				v := t.get(f.table, f.key)
				return v == nil || !t.isStale(f.table, prefix, f.key, v, seen)
			}), nil
		})
		if n += removed; err != nil {
			return n, err
		}
	}
	return n, nil
}

// derived are the keys that a few manifests make, each behind its table: one that lists
// thousands is asked for each of them.
type derived map[digest.Digest]map[string]bool

// derivedFrom is nil for a manifest that is not there.
func (t *tx) derivedFrom(repo []byte, dgst digest.Digest, seen derived) (map[string]bool, error) {
	if keys, ok := seen[dgst]; ok {
		return keys, nil
	}
	s, found, err := t.record(repo, dgst)
	if err != nil {
		return nil, err
	}
	var keys map[string]bool
	if found {
		keys = map[string]bool{}
		for _, f := range t.factsOf(repo, s) {
			keys[string(rune(f.table))+string(f.key)] = true
		}
	}
	const few = 8
	if len(seen) == few {
		clear(seen)
	}
	seen[dgst] = keys
	return keys, nil
}

// isStale tells whether k and v are a derived row that nothing makes. It is false when
// that cannot be told.
func (t *tx) isStale(table int, repo, k, v []byte, seen derived) bool {
	rest := k[len(repo):]
	var owner []byte // digest of the manifest that the row is derived from
	switch table {
	case linkRows, manifestRows:
		n := digestLen(rest)
		if len(rest) <= n {
			return false // no derived row
		}
		if owner = v; table == manifestRows {
			if owner = rest[n+1:]; rest[n] == tagMark {
				dgst, _ := readDigest(rest)
				tag, found, err := t.tag(repo, string(owner))
				return err == nil && (!found || tag.Digest != dgst)
			}
		}
	case referrerRows:
		_, owner, _ = bytes.Cut(rest, []byte{0})
		if bytes.HasPrefix(owner, []byte("t")) {
			owner = owner[min(len(owner), sha256.Size):]
		}
		owner = owner[min(len(owner), 1):]
	}
	dgst, _ := readDigest(owner)
	keys, err := t.derivedFrom(repo, dgst, seen)
	return err == nil && !keys[string(rune(table))+string(k)]
}

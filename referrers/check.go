package referrers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Difference is an entry of a list of referrers that is not what the manifests
// make it.
type Difference struct {
	Subject      digest.Digest // whose list it is
	ArtifactType string        // for which the list was asked; "" is all
	Digest       digest.Digest // of the entry
	Kind         DifferenceKind
}

// DifferenceKind is what is wrong with an entry.
type DifferenceKind string

// Kinds of differences. Each completes "the list of referrers …".
const (
	Lacks   DifferenceKind = "lacks it"
	Extra   DifferenceKind = "has it, and it is none"
	Differs DifferenceKind = "has an entry that is not the manifest's"
)

func (d Difference) String() string {
	s := fmt.Sprintf("the list of referrers of %s %s", d.Subject, d.Kind)
	if d.ArtifactType != "" {
		s += fmt.Sprintf(", asked for %q", d.ArtifactType)
	}
	return s
}

// Check compares an index with the manifests of a repository: the list of
// referrers of each subject and of each manifest, also by artifact type. What the
// index holds of subjects that are neither is not seen.
//
// It changes nothing. Others may write meanwhile: what seems wrong is looked at
// again, and is no difference if the manifest went or came to be otherwise. It
// ends with its first error. Memory is some hundred bytes for each manifest.
// [Checker] takes documents for what they say, and wharfage.Check uses it.
func Check(ctx context.Context, x Index, r manifest.Reader, repo string) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		c := &Checker{Index: x, Repo: repo, Read: func(ctx context.Context, dgst digest.Digest) (manifest.Record, bool, error) {
			rec, err := r.Get(ctx, repo, dgst)
			if manifest.IsNotFound(err) {
				return manifest.Record{}, true, nil
			}
			return rec, true, err
		}}
		fail := func(err error) { yield(Difference{}, &manifest.Error{Op: "check referrers", Repo: repo, Err: err}) }
		for rec, err := range r.Manifests(ctx, repo, "") {
			if err != nil {
				fail(err)
				return
			}
			c.Add(rec)
			c.AddSubject(rec.Desc.Digest)
		}
		for _, subject := range c.Subjects() {
			differences, err := c.Compare(ctx, subject)
			for _, d := range differences {
				if !yield(d, nil) {
					return
				}
			}
			if err != nil {
				fail(err)
				return
			}
		}
	}
}

// Checker compares lists of referrers with the manifests that it is told of.
type Checker struct {
	Index Index
	Repo  string
	// Read returns what a manifest is now: the zero Record if it is not there, and
	// not ok if that cannot be known, so that nothing is said of it.
	Read func(ctx context.Context, dgst digest.Digest) (rec manifest.Record, ok bool, err error)

	lists map[digest.Digest][]expectation // by subject
}

// expectation is the entry that a manifest makes in a list.
type expectation struct {
	digest       digest.Digest
	artifactType string
	sum          entrySum
}

// entrySum stands for an entry of a list of referrers, however the index
// writes it. Zero is none.
type entrySum [sha256.Size]byte

func sumOf(desc ocispec.Descriptor) entrySum {
	return sha256.Sum256([]byte(manifest.NewReferrerJSON(desc).JSON))
}

// Add notes the entry that a manifest makes, if it has a subject.
func (c *Checker) Add(rec manifest.Record) {
	if rec.Subject != "" {
		c.AddSubject(rec.Subject)
		c.lists[rec.Subject] = append(c.lists[rec.Subject], expectation{rec.Desc.Digest, rec.Desc.ArtifactType, sumOf(rec.Desc)})
	}
}

// AddSubject notes that dgst may have a list, which then has nothing but what is
// added.
func (c *Checker) AddSubject(dgst digest.Digest) {
	if c.lists == nil {
		c.lists = map[digest.Digest][]expectation{}
	}
	if _, ok := c.lists[dgst]; !ok {
		c.lists[dgst] = nil
	}
}

// Subjects returns those that were noted, in order.
func (c *Checker) Subjects() []digest.Digest { return slices.Sorted(maps.Keys(c.lists)) }

// Compare compares the lists of one subject. What it returns is right with an
// error too, which is of the Index, of Read, or of ctx.
func (c *Checker) Compare(ctx context.Context, subject digest.Digest) ([]Difference, error) {
	all := c.lists[subject]
	types := []string{""} // which is all
	for _, e := range all {
		types = append(types, e.artifactType)
	}
	slices.Sort(types)
	var out []Difference
	told := map[digest.Digest]bool{} // what is wrong without a type is wrong with it too
	for _, typ := range slices.Compact(types) {
		want := map[digest.Digest]entrySum{}
		for _, e := range all {
			if typ == "" || typ == e.artifactType {
				want[e.digest] = e.sum
			}
		}
		some, err := c.compare(ctx, subject, typ, want, told)
		out = append(out, some...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// looks is how often an entry must be found wrong before it is a difference.
// Between looks the manifest must be the same: a list tells no times.
const looks = 8

// compare looks for what is in one of a list and want, and looks at it again.
func (c *Checker) compare(ctx context.Context, subject digest.Digest, typ string, want map[digest.Digest]entrySum, told map[digest.Digest]bool) (out []Difference, err error) {
	have, err := c.list(ctx, subject, typ)
	if err != nil {
		return nil, err
	}
	suspects := map[digest.Digest]bool{}
	for d, sum := range have {
		if want[d] != sum && !told[d] {
			suspects[d] = true
		}
	}
	for d := range want {
		if _, ok := have[d]; !ok && !told[d] {
			suspects[d] = true
		}
	}
	var before map[digest.Digest]current
	for look := 0; look < looks && len(suspects) > 0; look++ {
		if before, err = c.current(ctx, suspects, subject, typ); err != nil {
			return nil, err
		}
		if have, err = c.list(ctx, subject, typ); err != nil {
			return nil, err
		}
		after, err := c.current(ctx, suspects, subject, typ)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(suspects, func(d digest.Digest, _ bool) bool {
			return have[d] == before[d].sum || before[d] != after[d]
		})
	}
	for _, d := range slices.Sorted(maps.Keys(suspects)) {
		told[d] = true
		kind := Differs
		switch {
		case before[d].sum == entrySum{}:
			kind = Extra
		case have[d] == entrySum{}:
			kind = Lacks
		}
		out = append(out, Difference{Subject: subject, ArtifactType: typ, Digest: d, Kind: kind})
	}
	return out, nil
}

func (c *Checker) list(ctx context.Context, subject digest.Digest, typ string) (map[digest.Digest]entrySum, error) {
	have := map[digest.Digest]entrySum{}
	for e, err := range JSON(ctx, c.Index, c.Repo, subject, typ, "") {
		if err != nil {
			return nil, err
		}
		var desc ocispec.Descriptor
		if json.Unmarshal([]byte(e.JSON), &desc) == nil {
			have[e.Digest] = sumOf(desc)
		} else {
			have[e.Digest] = sha256.Sum256([]byte(e.JSON))
		}
	}
	return have, ctx.Err()
}

// current is what a list should show of a manifest, as it is now.
type current struct {
	sum    entrySum // zero if the manifest is not there, or no such referrer
	there  bool
	pushed int64
}

// current reads the suspects. Those of which nothing can be known are none any
// longer.
func (c *Checker) current(ctx context.Context, suspects map[digest.Digest]bool, subject digest.Digest, typ string) (map[digest.Digest]current, error) {
	out := map[digest.Digest]current{}
	for d := range suspects {
		if manifest.CheckContentDigest(string(d)) != nil { // which no store can hold
			out[d] = current{}
			continue
		}
		rec, ok, err := c.Read(ctx, d)
		if err != nil {
			return nil, err
		}
		if !ok {
			delete(suspects, d)
			continue
		}
		now := current{there: rec.Desc.Digest != "", pushed: rec.PushedAt.UnixNano()}
		if now.there && rec.Subject == subject && hasType(rec.Desc, typ) {
			now.sum = sumOf(rec.Desc)
		}
		out[d] = now
	}
	return out, nil
}

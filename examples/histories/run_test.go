package histories

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// op is one operation of a history: what is printed, and what it does. It names
// what it is about without knowing what there is, so that any history can run,
// also one with operations left out.
type op struct {
	text string
	do   func(*run)
}

// history is a program of operations.
type history []op

// GoString is what rapid prints.
func (h history) GoString() string {
	var b strings.Builder
	for i, o := range h {
		fmt.Fprintf(&b, "\n\t%3d  %s", i+1, o.text)
	}
	return b.String()
}

// run is a history that runs on a store and on the model.
type run struct {
	ctx   context.Context
	now   time.Time
	sys   *system
	model *model

	vars      [3]variable // Uploads, by variable of the history
	ids       map[string]*upload
	positions []string // of the model's events
	forgotten string   // the position through which events were forgotten
	since     time.Time

	detail error          // of the last answer, for people
	seen   map[string]int // how often an operation had an outcome, if not nil
	text   string         // of the operation under way
}

// variable is an Upload of the store, and of the model.
type variable struct {
	value
	real blob.Upload
	old  blob.Upload // of which Append made real
}

// divergence is an answer that is not right.
type divergence struct {
	step int    // counted from 1; 0 is the comparison after the last
	op   string // and its text
	got  string
	want []string
	err  error // the store's, if there was one
}

func (d *divergence) Error() string {
	where := "after the last step"
	if d.step > 0 {
		where = fmt.Sprintf("step %d, %s", d.step, d.op)
	}
	want := strings.Join(d.want, "\n  or: ")
	return fmt.Sprintf("%s:\n got: %s\nwant: %s", where, d.got, want)
}

// runHistory returns a *divergence, or nil, and the final content.
func runHistory(h history, open opener) (dump string, failure error) {
	return runSeen(h, open, nil)
}

// runSeen also counts outcomes.
func runSeen(h history, open opener, seen map[string]int) (dump string, failure error) {
	r := &run{ctx: context.Background(), now: epoch, ids: map[string]*upload{}, seen: seen}
	sys, err := open(func() time.Time { return r.now })
	if err != nil {
		return "", err
	}
	r.sys = sys
	defer func() {
		if sys.close != nil {
			if err := sys.close(); err != nil && failure == nil {
				failure = err
			}
		}
	}()
	r.model = newModel(epoch, lease)
	r.model.sharedTouch = sys.sharedTouch
	defer func() {
		if p := recover(); p != nil {
			d, is := p.(*divergence)
			if !is {
				panic(p)
			}
			failure = d
		}
	}()
	for i, o := range h {
		r.step(i+1, o)
	}
	r.step(0, op{"compare()", func(r *run) { dump = r.compareAll() }})
	return dump, nil
}

func (r *run) step(n int, o op) {
	defer func() {
		if p := recover(); p != nil {
			if d, is := p.(*divergence); is {
				d.step, d.op = n, o.text
			}
			panic(p)
		}
	}()
	r.detail, r.text = nil, o.text
	r.model.now = r.now
	o.do(r)
}

// same ends the run unless got is one of want.
func (r *run) same(got string, want ...string) {
	if !slices.Contains(want, got) {
		panic(&divergence{got: got, want: want, err: r.detail})
	}
	if r.seen != nil {
		r.seen[outcome(r.text, got)]++
	}
}

// answer is the class of an error, which is kept for people.
func (r *run) answer(err error) string {
	if err != nil {
		r.detail = err
	}
	return class(err)
}

// touched compares a TouchedAt.
func (r *run) touched(repo string, info blob.Info) {
	earliest, latest := r.model.touched(repo, info.Digest)
	if at := info.TouchedAt; at.Before(earliest) || at.After(latest) {
		r.same(fmt.Sprintf("%s in %s: TouchedAt is %s", name(info.Digest), repo, showTime(at)),
			fmt.Sprintf("between %s and %s", showTime(earliest), showTime(latest)))
	}
}

// rendered is a listing as an answer.
func rendered[T any](r *run, seq iter.Seq2[T, error], show func(T) string) string {
	var out list
	for v, err := range seq {
		if err != nil {
			return r.answer(err)
		}
		out.add(show(v))
	}
	return out.String()
}

// compareAll compares everything that can be seen, and returns what it is, in a
// form that does not depend on the store.
func (r *run) compareAll() string {
	var dump strings.Builder
	check := func(what, got, want string) {
		r.same(what+": "+got, what+": "+want)
		fmt.Fprintf(&dump, "%s: %s\n", what, got)
	}
	m := r.model
	check("repositories with manifests", rendered(r, r.sys.manifests.Repos(r.ctx, ""), showString), m.manifestRepos(""))
	if c, is := blob.As[blob.Catalog](r.sys.blobs); is {
		r.same(rendered(r, c.Repos(r.ctx, ""), showString), m.blobRepos(""))
	}
	for _, repo := range repoNames {
		check(repo+" blobs", r.blobs(repo, ""), m.blobs(repo, ""))
		check(repo+" manifests", rendered(r, r.sys.manifests.Manifests(r.ctx, repo, ""), showListed), m.manifests(repo, ""))
		check(repo+" tags", rendered(r, r.sys.manifests.Tags(r.ctx, repo, ""), showTag), m.tags(repo, ""))
		for _, s := range subjects {
			for _, typ := range types {
				check(repo+" referrers of "+name(s)+" "+typ, r.referrers(repo, s, typ, ""), m.referrers(repo, s, typ, ""))
			}
		}
		// Each pair of a repository and a digest, those that are not there too.
		for _, d := range documents {
			check(repo+" get "+d.name, r.get(repo, d.record.Desc.Digest), m.get(repo, d.record.Desc.Digest))
		}
		for _, c := range contents {
			check(repo+" open "+c.name, r.open(repo, c.dgst, 0, -1), m.open(repo, c.dgst, 0, -1))
			check(repo+" stat "+c.name, r.stat(repo, []digest.Digest{c.dgst}), m.stat(repo, []digest.Digest{c.dgst}))
		}
		for d := range m.repo(repo).blobs { // what uploads made
			r.same(r.open(repo, d, 0, -1), m.open(repo, d, 0, -1))
		}
		for _, tag := range tagNames {
			check(repo+" resolve "+tag, r.resolve(repo, tag), m.resolve(repo, tag))
		}
		if r.sys.pulls != nil {
			r.same(r.pulls(repo, ""), m.pulls(repo, ""))
			r.madeAt(repo)
		}
	}
	r.sessions(nil)
	r.events(0)
	return dump.String()
}

// madeAt compares from when on pulls are known with what was said before.
func (r *run) madeAt(repo string) {
	since, err := r.sys.pulls.Since(r.ctx, repo)
	r.same(r.answer(err), ok)
	if r.since.IsZero() {
		r.since = since
	}
	if since.IsZero() || since.After(r.now) || !since.Equal(r.since) {
		r.same("pulls are known since "+showTime(since), "since "+showTime(r.since)+", the time of the store's making")
	}
}

func showString(s string) string { return s }

func showListed(rec manifest.Record) string { return showRecord(rec, string(rec.Raw)) }

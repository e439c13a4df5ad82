package wharfagetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// run is one case: an operation over stores of which one fails.
type run struct {
	kind
	text             string
	surfaced         func() int
	collectAll       func(context.Context, blob.Store, manifest.Store) error
	blobs, bareBlobs blob.Store
	manifests, bare  manifest.Store

	ctx   context.Context
	h     *wharfage.Handler
	faint bool // while calls may fail

	// allowed are the states that each thing may be in. Things that nobody has
	// touched are not there.
	allowed  map[thing][]string
	session  string // the path of the upload under way
	problems []error
}

// thing is what an operation may change: a blob or a manifest by its digest, a
// tag by its name, or the session. Its state is "" if it is not there, else
// "there", or what the tag names, or how far the session is.
type thing struct {
	kind, repo, name string
}

type effect struct {
	thing
	state string
}

const there = "there"

func newRun(blobs blob.Store, manifests manifest.Store, k kind, n int, collect func(context.Context, blob.Store, manifest.Store) error) *run {
	r := &run{kind: k, bareBlobs: blobs, bare: manifests, collectAll: collect, allowed: map[thing][]string{}}
	r.blobs, r.manifests, r.text, r.surfaced = k.faulty(blobs, manifests, n)
	return r
}

func (r *run) String() string { return r.text }

func (r *run) failf(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

// test runs the case. The stores are empty before it, and after it if it finds
// nothing wrong.
func (r *run) test(ctx context.Context, op operation) error {
	r.ctx = ctx
	for _, phase := range []struct {
		name string
		do   func()
	}{
		{"before the fault", func() { r.over(r.bareBlobs, r.bare); r.must(op.setup) }},
		{"with the fault", func() {
			r.faint = true
			r.over(r.blobs, r.manifests)
			op.do(r)
			r.faint = false
			r.look()
		}},
		{"once more, without the fault", func() { r.over(r.bareBlobs, r.bare); r.must(op.do); r.look() }},
		{"after a collection", func() { r.collected(); r.look() }},
		{"when the manifests are deleted", r.clear},
	} {
		if phase.do(); len(r.problems) > 0 {
			return fmt.Errorf("%s: %w", phase.name, errors.Join(r.problems...))
		}
	}
	return nil
}

func (r *run) over(blobs blob.Store, manifests manifest.Store) {
	r.h = &wharfage.Handler{Blobs: blobs, Manifests: manifests}
}

func (r *run) must(do func(*run) bool) {
	if do != nil && !do(r) && len(r.problems) == 0 {
		r.failf("the operation did not succeed")
	}
}

// send makes a request, and tells whether its answer is want. Then its effects
// are to be seen. If it failed, they are not, unless the answer was lost.
func (r *run) send(method, path string, body string, want int, effects ...effect) (http.Header, bool) {
	req := httptest.NewRequestWithContext(r.ctx, method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", manifest.MediaTypeImage)
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, req)
	what := fmt.Sprintf("%s %s is answered %d", method, path, w.Code)
	switch {
	case w.Code == want:
		r.became(effects, false)
		return w.Header(), true
	case !r.faint && method == http.MethodDelete && w.Code == http.StatusNotFound && r.done(effects):
		r.became(effects, false)
		return w.Header(), true // the first time already, and only the answer was lost
	case !r.faint:
		r.failf("%s: %s", what, w.Body)
		return nil, false
	}
	r.became(effects, true)
	full := errors.Is(r.err, syscall.ENOSPC)
	if w.Code < 500 || full != (w.Code == http.StatusInsufficientStorage) {
		r.failf("%s when a store failed with %q", what, r.err)
	}
	if strings.Contains(w.Body.String(), r.err.Error()) {
		r.failf("%s, with details of the store: %s", what, w.Body)
	}
	return nil, false
}

// became takes note of effects. Of a failure nothing is to be seen, unless the
// answer was lost.
func (r *run) became(effects []effect, failed bool) {
	for _, e := range effects {
		have, known := r.allowed[e.thing]
		if !known {
			have = []string{""}
		}
		switch {
		case !failed:
			r.allowed[e.thing] = []string{e.state}
		case r.late:
			r.allowed[e.thing] = append(slices.Clone(have), e.state)
		default:
			r.allowed[e.thing] = have
		}
	}
}

// done tells whether effects are to be seen.
func (r *run) done(effects []effect) bool {
	for _, e := range effects {
		if got, err := r.state(e.thing); err != nil || got != e.state {
			return false
		}
	}
	return true
}

// look compares the stores with what is allowed.
func (r *run) look() {
	states := map[thing]string{}
	for t, allowed := range r.allowed {
		got, err := r.state(t)
		if err != nil {
			r.failf("%s %s in %s: %w", t.kind, t.name, t.repo, err)
			continue
		}
		states[t] = got
		if !slices.Contains(allowed, got) {
			r.failf("%s %s in %s is %q, want one of %q", t.kind, t.name, t.repo, got, allowed)
		}
	}
	for t, state := range states {
		switch {
		case t.kind == "tag" && state != "" && states[thing{"manifest", t.repo, state}] == "":
			r.failf("tag %s in %s names %s, which is not there", t.name, t.repo, state)
		case t.kind == "manifest" && state != "":
			for _, dgst := range needs[digest.Digest(t.name)] {
				if got, err := r.state(thing{"blob", t.repo, string(dgst)}); err != nil || got == "" {
					r.failf("manifest %s in %s lacks blob %s: %v", t.name, t.repo, dgst, err)
				}
			}
		}
	}
}

// state looks into the stores, past faults and the Handler.
func (r *run) state(t thing) (string, error) {
	switch t.kind {
	case "blob":
		_, err := blob.ReadAll(r.ctx, r.bareBlobs, t.repo, ocispec.Descriptor{Digest: digest.Digest(t.name), Size: int64(len(contents[digest.Digest(t.name)]))})
		if errors.Is(err, blob.ErrNotFound) {
			return "", nil
		}
		return there, err
	case "manifest":
		rec, err := r.bare.Get(r.ctx, t.repo, digest.Digest(t.name))
		if manifest.IsNotFound(err) {
			return "", nil
		}
		if err == nil && string(rec.Raw) != contents[digest.Digest(t.name)] {
			err = fmt.Errorf("wrong bytes: %q", rec.Raw)
		}
		return there, err
	case "tag":
		tag, err := r.bare.Resolve(r.ctx, t.repo, t.name)
		if manifest.IsNotFound(err) {
			return "", nil
		}
		return string(tag.Digest), err
	}
	id := r.session[strings.LastIndexByte(r.session, '/')+1:]
	u, err := r.bareBlobs.Lookup(r.ctx, t.repo, id)
	if errors.Is(err, blob.ErrUploadNotFound) {
		return "", nil
	}
	return fmt.Sprint(u.Size), err
}

// collect is an operation too.
func (r *run) collect(effects ...effect) bool {
	err := r.collectAll(r.ctx, r.h.Blobs, r.h.Manifests)
	if err == nil {
		r.became(effects, false)
		return true
	}
	if !r.faint {
		r.failf("collect: %w", err)
	}
	for _, e := range effects { // some of them
		r.allowed[e.thing] = append(slices.Clone(r.allowed[e.thing]), e.state)
	}
	return false
}

// collected collects, and settles what is allowed then.
func (r *run) collected() {
	if err := r.collectAll(r.ctx, r.bareBlobs, r.bare); err != nil {
		r.failf("collect: %w", err)
		return
	}
	needed := map[thing]bool{}
	for t, allowed := range r.allowed {
		if t.kind == "manifest" && allowed[0] != "" {
			for _, dgst := range needs[digest.Digest(t.name)] {
				needed[thing{"blob", t.repo, string(dgst)}] = true
			}
		}
	}
	for t := range r.allowed {
		if t.kind == "blob" && !needed[t] || t.kind == "session" {
			r.allowed[t] = []string{""}
		}
	}
	for name, err := range r.repos() {
		for info, err := range r.bareBlobs.Blobs(r.ctx, name, "") {
			if err != nil || !needed[thing{"blob", name, string(info.Digest)}] {
				r.failf("blob %s in %s, which nothing needs, is left (%v)", info.Digest, name, err)
			}
		}
		if err != nil {
			r.failf("repositories: %w", err)
		}
	}
	if l, ok := blob.As[blob.SessionLister](r.bareBlobs); ok {
		for u, err := range l.Sessions(r.ctx, "") {
			r.failf("the session %s of %s is left (%v)", u.ID, u.Repo, err)
		}
	}
}

// repos lists the repositories with a blob, as far as the store can.
func (r *run) repos() iter.Seq2[string, error] {
	if c, ok := blob.As[blob.Catalog](r.bareBlobs); ok {
		return c.Repos(r.ctx, "")
	}
	return func(yield func(string, error) bool) {
		_ = yield(app, nil) && yield(base, nil)
	}
}

// clear deletes the manifests, and collects.
func (r *run) clear() {
	for t := range maps.Clone(r.allowed) {
		state, err := r.state(t)
		if t.kind == "manifest" && state != "" && err == nil {
			r.send("DELETE", "/v2/"+t.repo+"/manifests/"+t.name, "", http.StatusAccepted, effect{t, ""})
		}
	}
	for t := range r.allowed {
		r.allowed[t] = []string{""}
	}
	r.collected()
	r.look()
	for name, err := range r.repos() {
		for range r.bareBlobs.Blobs(r.ctx, name, "") {
			r.failf("repository %s has blobs (%v)", name, err)
		}
	}
	if c, ok := r.bare.(manifest.Catalog); ok {
		for name, err := range c.Repos(r.ctx, "") {
			r.failf("repository %s has manifests (%v)", name, err)
		}
	}
}

package histories

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

func drawSweep(d draws) op {
	age, dry := drawAge(d), drawSeldom(d)
	return opf(func(r *run) {
		cutoff := r.now.Add(-age)
		if s, is := blob.As[blob.Sweeper](r.sys.blobs); is {
			for _, err := range s.Sweep(r.ctx, cutoff, dry) {
				r.same(r.answer(err), ok)
			}
		}
		if !dry {
			r.settle(func(v *variable) bool { return !v.staged.After(cutoff) })
		}
	}, "sweep(older than %v%s)", age, showDry(dry))
}

func showDry(dry bool) string {
	if dry {
		return ", dry"
	}
	return ""
}

var (
	drawLease        = from([]time.Duration{lease, 3 * lease})
	drawSessionLease = from([]time.Duration{time.Hour, lease})
)

// drawCollect is a whole run of blob.Collect.
func drawCollect(d draws) op {
	lease, sessions, dry := drawLease(d), drawSessionLease(d), drawSeldom(d)
	return opf(func(r *run) {
		o := blob.CollectOptions{
			Needed: r.needed, Lease: lease, SessionLease: sessions, Confirm: true, Dry: dry, Now: func() time.Time { return r.now },
		}
		gone := map[string]bool{}
		o.Each = func(c blob.Collected) {
			switch {
			case !c.Removed:
				r.same(fmt.Sprint(c.Kind, " ", c.Reason), "all goes as planned")
			case c.Kind == blob.KindBlob:
				gone[c.Repo+" "+name(c.Digest)] = true
			case c.Kind == blob.KindSession && (r.ids[c.ID] == nil || r.ids[c.ID].updated.After(r.now.Add(-sessions))):
				r.same("a session goes", "one that is idle")
			}
		}
		_, err := blob.Collect(r.ctx, r.sys.blobs, o)
		r.same(r.answer(err), ok)
		r.collected(gone, r.now.Add(-lease), dry)
		if !dry {
			r.endIdle(r.now.Add(-sessions))
			r.settle(func(v *variable) bool { return !v.staged.After(r.now.Add(-sessions)) })
		}
	}, "collect(lease %v, of sessions %v%s)", lease, sessions, showDry(dry))
}

// needed is what a registry tells Collect.
func (r *run) needed(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
	return func(yield func(digest.Digest, error) bool) {
		for rec, err := range r.sys.manifests.Manifests(ctx, repo, "") {
			if err != nil {
				yield("", err)
				return
			}
			for _, d := range rec.Blobs {
				if !yield(d, nil) {
					return
				}
			}
		}
	}
}

// collected compares what went. What the store may have touched up to half a
// lease earlier than somebody was promised it, may go or stay, and is then
// deleted.
func (r *run) collected(gone map[string]bool, cutoff time.Time, dry bool) {
	for _, repo := range repoNames {
		links := r.model.repo(repo).blobs
		for _, d := range slices.Sorted(maps.Keys(links)) {
			what := repo + " " + name(d)
			text := func(gone bool) string {
				return fmt.Sprintf("%s was removed: %t", what, gone)
			}
			must, may := r.model.collectable(repo, d, cutoff)
			if must == may {
				r.same(text(gone[what]), text(must))
			}
			if may && !dry {
				if !gone[what] {
					r.same(r.answer(r.sys.blobs.Delete(r.ctx, repo, d, time.Time{})), ok)
				}
				delete(links, d)
			}
			delete(gone, what)
		}
	}
	for what := range gone {
		r.same(what+" was removed", "what was there")
	}
}

// endIdle makes an end of idle sessions in the model, and looks that they are
// gone. One that nobody has saved, and that the store need not list, may stay.
func (r *run) endIdle(cutoff time.Time) {
	for id, u := range r.ids {
		if u.ended || u.updated.After(cutoff) {
			continue
		}
		left, err := r.sys.blobs.Lookup(r.ctx, u.repo, id)
		want := []string{uploadNotFound}
		if !u.saved {
			want = append(want, ok)
		}
		r.same(r.answer(err), want...)
		if err == nil {
			r.same(r.answer(r.sys.blobs.Abort(r.ctx, left)), ok)
		}
		u.ended = true
	}
}

// drawReindex is for stores that derive facts again from their documents, and
// should find all as it is.
func drawReindex(d draws) op {
	repo := drawRepo(d)
	return opf(func(r *run) {
		if r.sys.reindex != nil {
			n, err := r.sys.reindex(r.ctx, repo)
			r.same(r.answer(err), ok)
			r.same(fmt.Sprint(n, " rows were wrong"), "0 rows were wrong")
		}
	}, "reindex(%s)", repo)
}

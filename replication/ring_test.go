package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// TestRing: three registries that replicate to each other come to hold the same, though one link is
// dead for 30 s; nothing is sent twice over one link; and then all is quiet.
func TestRing(t *testing.T) {
	names := []replication.Registry{{ID: "111122223333", Region: "eu-west-1"}, {ID: "111122223333", Region: "eu-west-2"}, {ID: "111122223333", Region: "eu-west-3"}}
	for _, c := range []struct {
		name  string
		relay bool
		to    func(i int) []replication.Registry
	}{
		{"a mesh with one hop", false, func(i int) []replication.Registry {
			return []replication.Registry{names[(i+1)%3], names[(i+2)%3]}
		}},
		{"a ring that relays", true, func(i int) []replication.Registry { return names[(i+1)%3 : (i+1)%3+1] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFederation(t)
				began := time.Now()
				f.link = func(from, to replication.Registry) error {
					if age := time.Since(began); from == names[0] && to == names[1] && age > 10*time.Second && age < 40*time.Second {
						return fmt.Errorf("%w: the link is cut", replication.ErrUnavailable)
					}
					return nil
				}
				var members []*member
				for i, name := range names {
					m := f.member(name)
					m.r.Relay = c.relay
					m.configuration.Rules = []replication.Rule{{Destinations: c.to(i), Deletes: replication.DeleteReplication{Enabled: !c.relay}}}
					members = append(members, m)
				}
				f.ring(members, 1000, !c.relay)
			})
		})
	}
}

// ring makes so many changes, one each 50 ms, while all replicate, and checks what has
// become of them.
func (f *federation) ring(members []*member, changes int, deletes bool) {
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			if err := m.r.Run(ctx); !errors.Is(err, context.Canceled) {
				f.Error(err)
			}
		})
		all.Go(func() {
			for ctx.Err() == nil {
				m.enqueue()
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(1, 2))
	pushed := map[*member][]digest.Digest{}
	made := map[string]int{} // how often a tag came to name an image
	push := func(m *member, repo, text string, subject digest.Digest, tags ...string) {
		d := m.push(repo, text, subject, tags...)
		pushed[m] = append(pushed[m], d)
		made[fmt.Sprintf("manifest %s@%s %q", repo, d, tags)]++
	}
	for n := range changes {
		m := members[random.IntN(len(members))]
		repo := fmt.Sprint("team/app", random.IntN(3))
		tag := fmt.Sprintf("%s-%d", m.Region, random.IntN(5)) // which nobody else moves
		switch random.IntN(6) {
		default:
			push(m, repo, fmt.Sprint(n), "", tag)
		case 0: // what somebody else may push too
			push(m, repo, fmt.Sprint("shared", random.IntN(50)), "", tag)
		case 1: // a referrer of anything
			var subject digest.Digest
			if len(pushed[m]) > 0 {
				subject = pushed[m][random.IntN(len(pushed[m]))]
			}
			push(m, repo, fmt.Sprint(n), subject)
		case 2:
			if deletes {
				d := manifest.Deleter{Store: m.manifests}
				if _, err := d.Delete(ctx, repo, manifest.ImageID{Tag: tag}); err != nil && !manifest.IsNotFound(err) {
					f.Error(err)
				}
			} else {
				push(m, repo, fmt.Sprint(n), "", tag, tag+"-too")
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(10 * time.Minute) // the last attempts of what the dead link has failed
	stop()
	all.Wait()
	open := func() (n int) {
		for _, m := range members {
			for e, err := range m.r.Queue.Entries(context.Background(), replication.EntryFilter{}, 0) {
				if err != nil || e.State != replication.StateDone {
					n++
					f.Errorf("%s: %+v, %v", m, e, err)
				}
			}
		}
		return n
	}
	sent := func() (n int) {
		for _, m := range members {
			for what, times := range m.came {
				_, manifest, _ := strings.Cut(what, " ")
				if n += times; times > max(1, made[manifest]) {
					f.Errorf("%s has got %s %d times", m, what, times)
				}
			}
		}
		return n
	}
	before := sent()
	if n := open(); n > 0 {
		f.Errorf("%d jobs are left", n)
	}
	for _, m := range members {
		m.enqueue()
	}
	if n := open(); n > 0 {
		f.Errorf("a round after the last change there are %d jobs", n)
	}
	jobs := 0
	for _, m := range members {
		for range m.r.Queue.Entries(context.Background(), replication.EntryFilter{}, 0) {
			jobs++
		}
	}
	if after := sent(); after != before || before == 0 {
		f.Errorf("%d things were sent, and then %d", before, after)
	}
	images := 0
	for i := range 3 {
		repo := fmt.Sprint("team/app", i)
		first := members[0].images(repo)
		images += len(first)
		for _, m := range members[1:] {
			if other := m.images(repo); !reflect.DeepEqual(first, other) {
				f.Errorf("%s differs: %s has %d images, %s has %d", repo, members[0], len(first), m, len(other))
				for d, tags := range first {
					if !reflect.DeepEqual(tags, other[d]) {
						f.Logf("%s: %q and %q", d, tags, other[d])
					}
				}
				for d, tags := range other {
					if _, ok := first[d]; !ok {
						f.Logf("%s: only at %s: %q", d, m, tags)
					}
				}
			}
		}
	}
	f.Logf("%d images, %d jobs, %d blobs and manifests sent", images, jobs, before)
}

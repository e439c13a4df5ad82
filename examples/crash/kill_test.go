//go:build linux

package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

var rounds = flag.Int("rounds", 12, "how often the registry is killed")

// TestKill: of what a registry acknowledged before it was killed nothing is
// lost, however often that happens; what it lists can be pulled; and one
// collection leaves no stray file.
func TestKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	l := newLedger()
	if err := l.kills(t, *rounds, "-data", data, "-collect-every", "20ms"); err != nil {
		t.Fatal(err)
	}
	t.Log(l)
	noStrayFiles(t, data)
}

// TestKillCollector: likewise when a lease is short and a collection is under way at each kill.
func TestKillCollector(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	l := newLedger()
	l.lease = 2 * time.Second
	if err := l.kills(t, *rounds, "-data", data, "-collect-every", "5ms", "-max-share", "1", "-lease", l.lease.String()); err != nil {
		t.Fatal(err)
	}
	t.Log(l)
	noStrayFiles(t, data)
}

// TestKillFindsMutants: a registry that keeps everything in memory is found to lose it.
func TestKillFindsMutants(t *testing.T) {
	if err := newLedger().kills(t, 3); !errors.Is(err, errLost) {
		t.Errorf("nothing was lost: %v", err)
	}
}

var errLost = errors.New("lost")

// kills runs a registry with args as often, kills it while images are pushed,
// and checks after each start what it still has. A machine so slow that an average round
// acknowledges fewer than nine pushes has more rounds.
func (l *ledger) kills(t *testing.T, rounds int, args ...string) error {
	const writers = 4
	ctx, chance := t.Context(), rand.New(rand.NewPCG(*firstSeed, 0))
	var pushers []*pusher
	for i := range writers {
		pushers = append(pushers, newPusher(l, fmt.Sprintf("w%d/app", i), *firstSeed))
	}
	for round := 0; round < rounds || l.done["push"] < 9*rounds; round++ {
		s := start(t, args...)
		if err := l.check(ctx, s, round%10 == 9); err != nil {
			return fmt.Errorf("seed %d, round %d: %w", *firstSeed, round, err)
		}
		var all sync.WaitGroup
		for _, p := range pushers {
			all.Go(func() {
				for err := error(nil); err == nil; {
					if err = p.push(ctx, s); err != nil && !isGone(err) {
						t.Errorf("round %d: %v", round, err)
					}
				}
			})
		}
		<-time.After(time.Duration(30+chance.IntN(270)) * time.Millisecond)
		s.kill()
		l.killed++
		all.Wait()
		if t.Failed() {
			t.Fatal(s.text())
		}
	}
	s := start(t, args...)
	err := l.check(ctx, s, true)
	return errors.Join(err, s.stop())
}

// isGone tells whether the server ended before it gave an answer.
func isGone(err error) bool {
	var request *url.Error
	var connection *net.OpError
	return errors.As(err, &request) || errors.As(err, &connection) || errors.Is(err, io.ErrUnexpectedEOF)
}

// noStrayFiles checks the folder of a registry that has ended: the registry
// itself finds nothing wrong, and one collection leaves no file that nothing refers to.
func noStrayFiles(t *testing.T, data string) {
	t.Helper()
	command(t, "check", "-data", data, "-bytes")
	sum := command(t, "collect", "-data", data)
	s, err := stores["boltstore"](data, 24*time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	left, err := s.files()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.sweep(t.Context(), time.Now().Add(time.Hour)); err != nil || n > 0 {
		t.Errorf("a sweep after the collection found %d strays: %v", n, err)
	}
	if err := s.noStrays(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	t.Logf("collected %s; %d files left, and each is needed", sum, len(left))
}

// ledger keeps what is promised of a registry.
type ledger struct {
	mu sync.Mutex
	*promises
	op      int
	lease   time.Duration   // if not 0, what no manifest needs may go after it
	changed map[string]bool // objects since the last check
	done    map[string]int  // acknowledgements by kind
	checked int
	killed  int
}

func newLedger() *ledger {
	return &ledger{promises: newPromises(), changed: map[string]bool{}, done: map[string]int{}}
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d kills: acknowledged %v, looked %d times at an object, found none lost", l.killed, l.done, l.checked)
}

// do is one operation. What fails in a way other than refused, a registry that is gone, may have happened or not.
func (l *ledger) do(kind string, after map[string][]string, do func() error) error {
	l.mu.Lock()
	l.op++
	op := l.op
	l.fold(said{Op: op, What: kind, After: after})
	for o := range after {
		l.changed[o] = true
	}
	l.mu.Unlock()
	err := do()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[kind]++
	l.fold(said{Op: op, Done: true})
	return nil
}

// check asks for what has changed since the last check, or for all, and then also pulls
// what is listed.
func (l *ledger) check(ctx context.Context, s *server, all bool) error {
	for o, values := range l.may {
		if !all && !l.changed[o] {
			continue
		}
		have, err := look(ctx, s, o)
		if err != nil {
			return err
		}
		if l.checked++; !slices.Contains(values, have) {
			return fmt.Errorf("%w: %s is %q, and may be %q", errLost, o, have, values)
		}
	}
	clear(l.changed)
	if !all {
		return nil
	}
	for _, repo := range l.repos() {
		tags, err := s.tags(ctx, repo)
		if err != nil {
			return err
		}
		for _, tag := range tags {
			if err := pull(ctx, s, repo, tag); err != nil {
				return fmt.Errorf("%s:%s is listed: %w", repo, tag, err)
			}
			if _, ok := l.may[object("tag", repo, tag)]; !ok {
				return fmt.Errorf("%s:%s is listed, and nobody made it", repo, tag)
			}
		}
	}
	return nil
}

// look returns the value of an object.
func look(ctx context.Context, s *server, o string) (string, error) {
	f := strings.Fields(o)
	what := f[0] + "s"
	if f[0] == "tag" {
		what = "manifests"
	}
	text, dgst, err := s.get(ctx, f[1], what, f[2])
	switch {
	case err != nil || dgst == "":
		return "", err
	case f[0] == "tag":
		return string(dgst), pull(ctx, s, f[1], f[2])
	}
	return strconv.Itoa(len(text)), nil
}

// pull gets an image in full.
func pull(ctx context.Context, s *server, repo, reference string) error {
	raw, dgst, err := s.get(ctx, repo, "manifests", reference)
	if err != nil {
		return err
	}
	if raw == nil {
		return errors.New("manifest not found")
	}
	m, err := manifest.Parse("", raw)
	if err != nil {
		return err
	}
	for _, b := range m.Record(dgst, raw).Blobs {
		content, _, err := s.get(ctx, repo, "blobs", string(b))
		if err == nil && content == nil {
			err = errLost
		}
		if err != nil {
			return fmt.Errorf("blob %s of %s:%s: %w", b, repo, reference, err)
		}
	}
	return nil
}

// pusher pushes images to a repository of its own, moves tags and deletes.
type pusher struct {
	*ledger
	repo   string
	rand   *rand.Rand
	n      int
	images []digest.Digest // tagged by their number
}

func newPusher(l *ledger, repo string, seed uint64) *pusher {
	return &pusher{ledger: l, repo: repo, rand: rand.New(rand.NewPCG(seed, uint64(repo[1])))}
}

// shared is in each image.
var shared = []byte(`{"architecture":"amd64","os":"linux"}`)

func (p *pusher) put(ctx context.Context, s *server, content []byte, chunk int) error {
	o := object("blob", p.repo, string(digest.FromBytes(content)))
	return p.do("blob", p.leased(map[string][]string{o: there(len(content))}), func() error { return s.putBlob(ctx, p.repo, content, chunk) })
}

// leased leaves out what is promised for the lease only.
func (p *pusher) leased(after map[string][]string) map[string][]string {
	if p.lease > 0 {
		return nil
	}
	return after
}

// push is one image, and sometimes something else. It ends at the first error.
func (p *pusher) push(ctx context.Context, s *server) error {
	p.n++
	began := time.Now()
	layer := []byte(fmt.Sprintf("%s %d ", p.repo, p.n))
	if p.rand.IntN(2) == 0 {
		layer = append(layer, make([]byte, p.rand.IntN(100_000))...)
	}
	if _, _, err := s.do(ctx, http.StatusOK, "HEAD", "/v2/"+p.repo+"/blobs/"+string(digest.FromBytes(shared)), "", nil); isGone(err) {
		return err
	} else if err != nil || p.rand.IntN(4) == 0 {
		if err := p.put(ctx, s, shared, 0); err != nil {
			return err
		}
	}
	if err := p.put(ctx, s, layer, p.rand.IntN(3)*10_000); err != nil {
		return err
	}
	raw, dgst, err := image([][]byte{shared, layer}, "")
	if err != nil {
		return err
	}
	tag := "latest"
	if p.rand.IntN(4) > 0 {
		tag = fmt.Sprintf("v%d", p.n)
	}
	after := map[string][]string{object("manifest", p.repo, string(dgst)): there(len(raw)), object("tag", p.repo, tag): {string(dgst)}}
	err = p.do("push", after, func() error { return s.putManifest(ctx, p.repo, tag, raw) })
	var e *statusError
	if p.lease > 0 && errors.As(err, &e) && e.status == http.StatusNotFound && time.Since(began) > p.lease/2 {
		return nil // too slow for the lease, on a busy machine
	}
	if err != nil {
		return err
	}
	if tag != "latest" {
		p.images = append(p.images, dgst)
	}
	if p.rand.IntN(8) == 0 {
		after := map[string][]string{object("blob", "mounted/"+p.repo, string(digest.FromBytes(layer))): there(len(layer))}
		if err := p.do("mount", p.leased(after), func() error { return s.mountBlob(ctx, p.repo, "mounted/"+p.repo, digest.FromBytes(layer)) }); err != nil {
			return err
		}
	}
	if p.rand.IntN(8) == 0 && len(p.images) > 5 {
		return p.deleteImage(ctx, s)
	}
	return nil
}

// deleteImage deletes an image with its tag. An answer that it is not there
// says so.
func (p *pusher) deleteImage(ctx context.Context, s *server) error {
	i := p.rand.IntN(len(p.images))
	dgst := p.images[i]
	p.images = slices.Delete(p.images, i, i+1)
	after := map[string][]string{object("manifest", p.repo, string(dgst)): {""}}
	p.mu.Lock()
	for o, values := range p.may {
		if strings.HasPrefix(o, "tag "+p.repo+" ") && slices.Contains(values, string(dgst)) {
			after[o] = []string{""}
		}
	}
	p.mu.Unlock()
	return p.do("delete", after, func() error {
		err := s.delete(ctx, p.repo, "manifests", string(dgst))
		var e *statusError
		if errors.As(err, &e) && e.status == http.StatusNotFound {
			return nil
		}
		return err
	})
}

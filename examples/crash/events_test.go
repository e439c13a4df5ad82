//go:build linux

package crash

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	cloud "github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/examples/store/boltstore"
)

var eventRounds = flag.Int("event-rounds", 4, "how often the registry is killed while it delivers events")

// receiver is a webhook. It keeps what it is told, once, by repository and in order.
type receiver struct {
	mu    sync.Mutex
	seen  map[string]bool
	told  map[string][]string // "push v1 sha256:…"
	again int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var e cloud.CloudEvent
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || len(r.seen)%50 == 49 && !r.seen["refused "+e.ID] { // slow, and broken at times
		r.seen["refused "+e.ID] = true
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.seen[e.ID] {
		r.again++
		return
	}
	r.seen[e.ID] = true
	r.note(e)
}

func (r *receiver) note(e cloud.CloudEvent) {
	var d struct {
		Repository string        `json:"repository-name"`
		Tag        string        `json:"image-tag"`
		Digest     digest.Digest `json:"image-digest"`
		Action     string        `json:"action-type"`
	}
	if json.Unmarshal(e.Data, &d) == nil {
		r.told[d.Repository] = append(r.told[d.Repository], strings.ToLower(d.Action)+" "+d.Tag+" "+string(d.Digest))
	}
}

// TestKillEvents: of what a registry acknowledged before it was killed each event is
// delivered, or in the outbox; none tells of what did not commit; and those of a
// repository come in the order of its commits.
func TestKillEvents(t *testing.T) {
	const writers = 3
	data := filepath.Join(t.TempDir(), "data")
	got := &receiver{seen: map[string]bool{}, told: map[string][]string{}}
	hook := httptest.NewServer(got)
	defer hook.Close()
	chance := rand.New(rand.NewPCG(*firstSeed, 1))
	type attempt struct {
		says  string // what its event says
		acked bool
	}
	var tried [writers][]attempt // in the order in which they were made, one at a time
	for round := range *eventRounds {
		s := start(t, "-data", data, "-webhook", hook.URL)
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				repo := fmt.Sprintf("w%d/app", w)
				for n := 0; ; n++ {
					layer := fmt.Appendf(nil, "%s %d %d", repo, round, n)
					raw, dgst, err := image([][]byte{layer}, "")
					if err == nil {
						err = s.putBlob(t.Context(), repo, layer, 0)
					}
					if err == nil {
						tag := fmt.Sprintf("r%d-%d", round, n)
						tried[w] = append(tried[w], attempt{says: "push " + tag + " " + string(dgst)})
						err = s.putManifest(t.Context(), repo, tag, raw)
						tried[w][len(tried[w])-1].acked = err == nil
						if err == nil && n%4 == 3 {
							tried[w] = append(tried[w], attempt{says: "delete " + tag + " " + string(dgst)})
							err = s.delete(t.Context(), repo, "manifests", string(dgst))
							tried[w][len(tried[w])-1].acked = err == nil
						}
					}
					if err != nil {
						if !isGone(err) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		<-time.After(time.Duration(100+chance.IntN(400)) * time.Millisecond)
		s.kill()
		all.Wait()
	}
	hook.Close()
	db, err := boltstore.Open(boltstore.Options{Dir: data, KeepEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	delivered, left := 0, 0
	for _, told := range got.told {
		delivered += len(told)
	}
	for c, err := range db.Manifests().Events(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range (cloud.Origin{}).Events(c) {
			if got.seen[e.ID] {
				continue
			}
			told, err := e.CloudEvent()
			if err != nil {
				t.Fatal(err)
			}
			left++
			got.note(told)
		}
	}
	acked, unsure := 0, 0
	for w, attempts := range tried {
		told := got.told[fmt.Sprintf("w%d/app", w)]
		for _, a := range attempts {
			switch {
			case len(told) > 0 && told[0] == a.says:
				told = told[1:]
				if a.acked {
					acked++
					continue
				}
				unsure++
				// It committed, or it would not be told: the registry has what it says.
				f := strings.Fields(a.says)
				_, err := db.Manifests().Get(t.Context(), fmt.Sprintf("w%d/app", w), digest.Digest(f[2]))
				if (err == nil) != (f[0] == "push") {
					t.Errorf("told, and not done: %s", a.says)
				}
			case a.acked:
				where := "nowhere"
				if slices.Contains(told, a.says) {
					where = "later"
				}
				t.Fatalf("w%d: %s was acknowledged, and is told %s", w, a.says, where)
			default: // it was not acknowledged, and is not told: it did not commit
				f := strings.Fields(a.says)
				_, err := db.Manifests().Get(t.Context(), fmt.Sprintf("w%d/app", w), digest.Digest(f[2]))
				if (err == nil) != (f[0] == "delete") {
					t.Errorf("done, and not told: %s", a.says)
				}
			}
		}
		if len(told) > 0 {
			t.Errorf("w%d: told, and never asked for, or in another order: %q", w, told[:min(3, len(told))])
		}
	}
	if delivered == 0 || acked == 0 {
		t.Errorf("%d delivered, %d acknowledged", delivered, acked)
	}
	t.Logf("%d kills: %d acknowledged, %d told without an answer; %d delivered (%d twice), %d in the outbox", *eventRounds, acked, unsure, delivered, got.again, left)
}

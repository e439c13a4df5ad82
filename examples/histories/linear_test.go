package histories

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

var (
	linearHistories = flag.Int("linear.histories", 0, "how many histories of concurrent clients a store gets in each way; 0 leaves it to the store")
	linearOps       = flag.Int("linear.ops", 25, "how many operations each of the 8 clients does in one")
)

const clients = 8

// tagCall is what a client asks of a tag.
type tagCall struct {
	tag    string
	change bool          // else it asks where the tag is
	to     digest.Digest // of a change; "" removes
	from   digest.Digest // as in manifest.TagMove
}

// tagAnswer is what it is told: "ok", a conflict, or that there is none.
type tagAnswer struct {
	class string
	at    digest.Digest // where the tag is, if that was told
}

func (c tagCall) describe(a tagAnswer) string {
	text := "resolve " + c.tag
	if c.change {
		text = c.tag + "→" + name(c.to)
		if c.from != "" {
			text += " from " + name(c.from)
		}
	}
	text += " = " + a.class
	if a.at != "" {
		text += ", at " + name(a.at)
	}
	return text
}

const conflict = "conflict"

// tagModel is a register for each tag, with compare-and-swap. Its state is a
// digest, or Absent.
var tagModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		for _, tag := range tagNames {
			parts = append(parts, slices.DeleteFunc(slices.Clone(history), func(o porcupine.Operation) bool {
				return o.Input.(tagCall).tag != tag
			}))
		}
		return parts
	},
	Init: func() any { return manifest.Absent },
	Step: func(state, input, output any) (bool, any) {
		at, call, answer := state.(digest.Digest), input.(tagCall), output.(tagAnswer)
		told := answer.at == "" || answer.at == at
		switch {
		case !call.change && at == manifest.Absent:
			return answer.class == manifestNotFound, at
		case !call.change:
			return answer.class == ok && told, at
		case call.from != "" && call.from != at:
			return answer.class == conflict && told, at
		case call.to == "" && call.from == "" && at == manifest.Absent:
			return answer.class == manifestNotFound, at
		case call.to == "":
			return answer.class == ok, manifest.Absent
		}
		return answer.class == ok, call.to
	},
	DescribeOperation: func(input, output any) string { return input.(tagCall).describe(output.(tagAnswer)) },
	DescribeState:     func(state any) string { return name(state.(digest.Digest)) },
}

// way is how clients call.
type way struct {
	name string
	call func(s *system, repo string, c tagCall) tagAnswer
}

// linearDocuments are what tags move between.
func linearDocuments() []*document { return documents[:4] }

// applied calls the store itself.
func applied(s *system, repo string, c tagCall) tagAnswer {
	ctx := context.Background()
	if !c.change {
		t, err := s.manifests.Resolve(ctx, repo, c.tag)
		return tagAnswer{class(err), t.Digest}
	}
	err := s.manifests.Apply(ctx, repo, manifest.Change{Tags: []manifest.TagMove{{Name: c.tag, To: c.to, From: c.from}}, At: time.Now()})
	if e, is := errors.AsType[*manifest.ConflictError](err); is {
		return tagAnswer{conflict, e.Have}
	}
	return tagAnswer{class: class(err)}
}

// served returns a way to call through HTTP. With asked, each move of a tag is
// put to a policy, which the Pusher does by compare-and-swap.
func served(asked bool) func(*system, string, tagCall) tagAnswer {
	return func(s *system, repo string, c tagCall) tagAnswer {
		h := &wharfage.Handler{Blobs: s.blobs, Manifests: s.manifests}
		if asked {
			h.Pusher.MoveTag = func(context.Context, string, string, digest.Digest, digest.Digest) error { return nil }
		}
		method, body := http.MethodHead, []byte(nil)
		switch {
		case c.change && c.to == "":
			method = http.MethodDelete
		case c.change:
			method, body = http.MethodPut, recordOf(c.to).Raw
		case asked:
			method = http.MethodGet
		}
		r := httptest.NewRequest(method, "/v2/"+repo+"/manifests/"+c.tag, bytes.NewReader(body))
		if body != nil {
			r.Header.Set("Content-Type", recordOf(c.to).Desc.MediaType)
		}
		switch c.from {
		case "":
		case manifest.Absent:
			r.Header.Set("If-None-Match", "*")
		default:
			r.Header.Set("If-Match", `"`+string(c.from)+`"`)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK:
			dgst := digest.Digest(w.Header().Get("Docker-Content-Digest"))
			if method == http.MethodGet && w.Body.String() != string(recordOf(dgst).Raw) {
				return tagAnswer{class: "a body that is not of the digest in the header"}
			}
			return tagAnswer{ok, dgst}
		case http.StatusCreated, http.StatusAccepted:
			return tagAnswer{class: ok}
		case http.StatusPreconditionFailed:
			return tagAnswer{class: conflict}
		case http.StatusNotFound:
			return tagAnswer{class: manifestNotFound}
		}
		return tagAnswer{class: fmt.Sprint(w.Code, " ", w.Body)}
	}
}

func recordOf(dgst digest.Digest) manifest.Record {
	for _, d := range documents {
		if d.record.Desc.Digest == dgst {
			return d.record
		}
	}
	return manifest.Record{}
}

var ways = []way{{"Apply", applied}, {"HTTP", served(false)}, {"HTTP with a policy", served(true)}}

// fill puts the documents into a repository.
func fill(s *system, repo string) error {
	ctx := context.Background()
	for _, c := range contents {
		if err := blob.Put(ctx, s.blobs, repo, blobDescriptor(c), strings.NewReader(c.text)); err != nil {
			return err
		}
	}
	c := manifest.Change{At: time.Now()}
	for _, d := range linearDocuments() {
		c.Put = append(c.Put, d.record)
	}
	return s.manifests.Apply(ctx, repo, c)
}

// record lets clients do what the seed says, all at once, and returns what
// happened.
func record(call func(tagCall) tagAnswer, seed uint64, ops int) []porcupine.Operation {
	var (
		histories [clients][]porcupine.Operation
		start     = make(chan struct{})
		began     = time.Now()
		all       sync.WaitGroup
	)
	for i := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			last := manifest.Absent // what the client believes: the best From to race with
			<-start
			for range ops {
				c := tagCall{tag: tagNames[rng.IntN(2)]}
				switch n := rng.IntN(10); {
				case n < 4:
				case n < 5:
					c.change = true // remove
				default:
					c.change, c.to = true, linearDocuments()[rng.IntN(len(linearDocuments()))].record.Desc.Digest
				}
				if c.change && rng.IntN(3) > 0 && (c.to != "" || last != manifest.Absent) {
					c.from = last
				}
				runtime.Gosched()
				o := porcupine.Operation{ClientId: i, Input: c, Call: int64(time.Since(began))}
				answer := call(c)
				o.Output, o.Return = answer, int64(time.Since(began))
				histories[i] = append(histories[i], o)
				switch {
				case answer.at != "":
					last = answer.at
				case answer.class == manifestNotFound || c.change && c.to == "":
					last = manifest.Absent
				case answer.class == ok:
					last = c.to
				}
			}
		})
	}
	close(start)
	all.Wait()
	return slices.Concat(histories[:]...)
}

// verdicts counts what came of histories.
type verdicts struct{ legal, illegal, unknown int }

// judge records histories until one is illegal, and returns that.
func judge(t *testing.T, s *system, w way, histories, ops int) (v verdicts, illegal []porcupine.Operation) {
	t.Helper()
	const patience = 5 * time.Second
	for i := range histories {
		repo := fmt.Sprintf("%s/%d", strings.ToLower(strings.ReplaceAll(w.name, " ", "-")), i)
		if err := fill(s, repo); err != nil {
			t.Fatal(err)
		}
		history := record(func(c tagCall) tagAnswer { return w.call(s, repo, c) }, uint64(i), ops)
		switch porcupine.CheckOperationsTimeout(tagModel, history, patience) {
		case porcupine.Ok:
			v.legal++
		case porcupine.Unknown:
			v.unknown++
		default:
			v.illegal++
			return v, history
		}
	}
	return v, nil
}

// TestTagsAreLinearizable: whatever clients do at once, there is an order in
// which it would have been right.
func TestTagsAreLinearizable(t *testing.T) {
	for _, st := range stores {
		if st.histories == 0 {
			continue // its manifests are another's
		}
		t.Run(st.name, func(t *testing.T) {
			open := st.prepare(t)
			n := cmp.Or(*linearHistories, st.histories)
			for _, w := range ways {
				t.Run(w.name, func(t *testing.T) {
					s, err := open(time.Now)
					if err != nil {
						t.Fatal(err)
					}
					defer s.end(t)
					v, illegal := judge(t, s, w, n, *linearOps)
					t.Logf("%d histories of %d operations: %+v", n, clients**linearOps, v)
					if illegal != nil {
						report(t, illegal)
					}
					if v.unknown > n/10 {
						t.Errorf("%d of %d histories took too long to judge", v.unknown, n)
					}
				})
			}
		})
	}
}

// report prints a history, and draws it.
func report(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	for _, part := range tagModel.Partition(history) {
		result, info := porcupine.CheckOperationsVerbose(tagModel, part, 0)
		if result != porcupine.Illegal {
			continue
		}
		path := filepath.Join(t.ArtifactDir(), "history.html")
		if err := porcupine.VisualizePath(tagModel, info, path); err != nil {
			t.Error(err)
		}
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		var b strings.Builder
		for _, o := range part {
			fmt.Fprintf(&b, "\n%10v to %10v  client %d: %s", time.Duration(o.Call), time.Duration(o.Return), o.ClientId,
				tagModel.DescribeOperation(o.Input, o.Output))
		}
		t.Errorf("there is no order in which this would be right; with -artifacts, it is drawn in %s:%s", path, &b)
		return
	}
}

// TestLinearizabilityRejectsBrokenStores: it finds what it is to find.
func TestLinearizabilityRejectsBrokenStores(t *testing.T) {
	for name, harm := range map[string]func(manifests) manifests{
		"Apply compares before it locks":      func(m manifests) manifests { return early{m} },
		"Resolve answers from a cache":        func(m manifests) manifests { return &cached{manifests: m, tags: map[string]manifest.Tag{}} },
		"Apply answers before it has applied": func(m manifests) manifests { return late{m} },
	} {
		for _, w := range ways {
			t.Run(name+"/"+w.name, func(t *testing.T) {
				s, err := openMemory(time.Now)
				if err != nil {
					t.Fatal(err)
				}
				s.manifests = harm(s.manifests)
				v, illegal := judge(t, s, w, 300, 25)
				t.Logf("%+v", v)
				if illegal == nil {
					t.Error("the fault was not found")
				}
			})
		}
	}
}

// early compares From outside of the step that moves the tag.
type early struct{ manifests }

func (s early) Apply(ctx context.Context, repo string, c manifest.Change) error {
	c.Tags = slices.Clone(c.Tags)
	for i, move := range c.Tags {
		t, err := s.Resolve(ctx, repo, move.Name)
		have := t.Digest
		if manifest.IsNotFound(err) {
			have = manifest.Absent
		} else if err != nil {
			return err
		}
		if move.From != "" && move.From != have {
			return &manifest.ConflictError{Tag: move.Name, Want: move.From, Have: have}
		}
		if have != manifest.Absent {
			c.Tags[i].From = ""
		}
	}
	runtime.Gosched()
	return s.manifests.Apply(ctx, repo, c)
}

// cached answers with a tag for some time after it has moved.
type cached struct {
	manifests
	mu   sync.Mutex
	tags map[string]manifest.Tag
	n    int
}

func (s *cached) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if t, found := s.tags[repo+":"+tag]; found && s.n%4 != 0 {
		return t, nil
	}
	t, err := s.manifests.Resolve(ctx, repo, tag)
	if err == nil {
		s.tags[repo+":"+tag] = t
	}
	return t, err
}

// late acknowledges what others see a little later.
type late struct{ manifests }

func (s late) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if len(c.Tags) == 0 {
		return s.manifests.Apply(ctx, repo, c)
	}
	go func() {
		runtime.Gosched()
		s.manifests.Apply(context.WithoutCancel(ctx), repo, c)
	}()
	return nil
}

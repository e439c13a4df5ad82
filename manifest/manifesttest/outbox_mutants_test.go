package manifesttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// logged keeps events in a list of its own, with a flaw.
type logged struct {
	*memmanifest.Store
	flaw string

	writing sync.Mutex
	mu      sync.Mutex
	last    int // the last position that was given
	events  []numbered
}

type numbered struct {
	n int
	manifest.Event
}

func newLogged(flaw string) *logged { return &logged{Store: new(memmanifest.Store), flaw: flaw} }

func (s *logged) Apply(ctx context.Context, repo string, c manifest.Change) error {
	e := manifest.Event{Repo: repo, Change: c}
	e.Change.Put = slices.Clone(c.Put)
	for i := range e.Change.Put {
		if s.flaw != "keeps Raw" {
			e.Change.Put[i].Raw = nil
		}
		if s.flaw == "takes Raw from its caller" {
			c.Put[i].Raw = nil
		}
	}
	switch s.flaw {
	case "writes the event before it commits":
		s.add(s.next(), e)
		return s.Store.Apply(ctx, repo, c)
	case "gives positions before it commits": // a sequence of a database
		n := s.next()
		if err := s.Store.Apply(ctx, repo, c); err != nil {
			return err
		}
		runtime.Gosched()
		s.add(n, e)
		return nil
	case "writes the event when it has committed":
		if err := s.Store.Apply(ctx, repo, c); err != nil {
			return err
		}
		runtime.Gosched()
		s.add(s.next(), e)
		return nil
	case "forgets At":
		e.Change.At = time.Time{}
	case "leaves requirements out":
		e.Change.RequireManifests = nil
	case "leaves out what changes nothing":
		if len(c.Put) == 1 && len(c.Tags) == 0 {
			if _, err := s.Get(ctx, repo, c.Put[0].Desc.Digest); err == nil {
				return s.Store.Apply(ctx, repo, c)
			}
		}
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.Store.Apply(ctx, repo, c); err != nil {
		return err
	}
	s.add(s.next(), e)
	return nil
}

func (s *logged) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last
}

func (s *logged) add(n int, e manifest.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.events, n, func(e numbered, n int) int { return e.n - n })
	s.events = slices.Insert(s.events, i, numbered{n, e})
	if s.flaw == "loses the events of empty repositories" {
		for range s.Manifests(context.Background(), e.Repo, "") {
			return
		}
		s.events = slices.DeleteFunc(s.events, func(have numbered) bool { return have.Repo == e.Repo })
	}
}

func (s *logged) Events(ctx context.Context, after string) iter.Seq2[manifest.Committed, error] {
	return func(yield func(manifest.Committed, error) bool) {
		if err := ctx.Err(); err != nil && s.flaw != "ends quietly when cancelled" {
			yield(manifest.Committed{}, err)
			return
		} else if err != nil {
			return
		}
		s.mu.Lock()
		events := slices.Clone(s.events)
		if s.flaw == "holds a lock in loops" {
			defer s.mu.Unlock()
		} else {
			s.mu.Unlock()
		}
		first, _ := strconv.Atoi(after)
		for i, e := range events {
			if e.n < first || e.n == first && s.flaw != "lists after inclusively" {
				continue
			}
			c := manifest.Committed{Position: strconv.Itoa(e.n), Event: e.Event}
			if s.flaw != "gives its own slices away" && s.flaw != "keeps Raw" {
				c.Change = clone(c.Change)
			}
			if !yield(c, nil) || s.flaw == "loses the second page" && i == 999 {
				return
			}
		}
	}
}

func (s *logged) Forget(ctx context.Context, through string) error {
	if err := ctx.Err(); err != nil && s.flaw != "forgets when cancelled" {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := strconv.Atoi(through)
	switch s.flaw {
	case "forgets up to, not including":
		n--
	case "forgets everything":
		n = s.last
	case "forgets one only":
		s.events = slices.DeleteFunc(s.events, func(e numbered) bool { return e.n == n })
		return nil
	}
	s.events = slices.DeleteFunc(s.events, func(e numbered) bool { return e.n <= n })
	if s.flaw == "counts from the start again" && len(s.events) == 0 {
		s.last = 0
	}
	return ctx.Err()
}

func clone(c manifest.Change) manifest.Change {
	s := &memmanifest.Store{KeepEvents: true, MissingBlobs: memmanifest.Unchecked}
	c.RequireManifests = slices.Clone(c.RequireManifests)
	if err := s.Apply(context.Background(), "r", manifest.Change{Put: c.Put}); err != nil {
		panic(err)
	}
	for e := range s.Events(context.Background(), "") {
		c.Put = e.Change.Put
	}
	c.Tags, c.Delete = slices.Clone(c.Tags), slices.Clone(c.Delete)
	return c
}

// outboxMutants break one promise each, and the clause is to notice.
var outboxMutants = map[string]string{
	"keeps Raw":                              "each committed change has one event, as it was applied, without Raw",
	"takes Raw from its caller":              "each committed change has one event, as it was applied, without Raw",
	"forgets At":                             "each committed change has one event, as it was applied, without Raw",
	"leaves requirements out":                "each committed change has one event, as it was applied, without Raw",
	"leaves out what changes nothing":        "each committed change has one event, as it was applied, without Raw",
	"loses the events of empty repositories": "each committed change has one event, as it was applied, without Raw",
	"writes the event before it commits":     "a refused change has no event",
	"writes the event when it has committed": "of two changes of one repository the one that committed later comes later",
	"gives positions before it commits":      "a reader that follows by position while others commit sees every event once",
	"gives its own slices away":              "results belong to the caller",
	"lists after inclusively":                "a listing starts after the given position",
	"loses the second page":                  "a long listing is whole",
	"forgets up to, not including":           "Forget drops up to and including a position, and nothing else",
	"forgets everything":                     "Forget drops up to and including a position, and nothing else",
	"forgets one only":                       "Forget drops up to and including a position, and nothing else",
	"counts from the start again":            "a position is not used again",
	"ends quietly when cancelled":            "a listing ends when the loop does, and at its first error",
	"forgets when cancelled":                 "Forget with a cancelled ctx drops nothing",
	"holds a lock in loops":                  "the loop body may apply changes, list and forget",
}

// TestOutboxMutant runs the kit on the mutant that the environment names.
func TestOutboxMutant(t *testing.T) {
	flaw := os.Getenv(mutantVar)
	if _, ok := outboxMutants[flaw]; !ok {
		t.Skip("run by TestOutboxKitRejects")
	}
	manifesttest.TestOutbox(t, outboxOptions(flaw))
}

func outboxOptions(flaw string) manifesttest.OutboxOptions {
	return manifesttest.OutboxOptions{
		New:    func(testing.TB) manifesttest.EventStore { return newLogged(flaw) },
		Reopen: func(_ testing.TB, s manifesttest.EventStore) manifesttest.EventStore { return s },
	}
}

func TestOutboxKitAccepts(t *testing.T) { manifesttest.TestOutbox(t, outboxOptions("")) }

func TestOutboxKitRejects(t *testing.T) {
	for flaw, clause := range outboxMutants {
		t.Run(flaw, func(t *testing.T) {
			name := strings.ReplaceAll(clause, " ", "_")
			timeout := "30s"
			if flaw == "holds a lock in loops" {
				timeout = "1s" // it hangs
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", fmt.Sprintf("^TestOutboxMutant$/^%s$", name), "-test.timeout", timeout)
			cmd.Env = append(os.Environ(), mutantVar+"="+flaw)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !bytes.Contains(out, []byte("TestOutboxMutant/"+name)) {
				t.Errorf("the clause %q passes a store that %s: %v\n%s", clause, flaw, err, out)
			}
		})
	}
}

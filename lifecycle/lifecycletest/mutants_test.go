package lifecycletest_test

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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/lifecycletest"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
)

// flawed is a store with a flaw.
type flawed struct {
	mempulls.Store
	flaw string

	mu    sync.Mutex
	made  time.Time
	pulls map[string]map[digest.Digest]time.Time
}

// mutants break one promise each, and the clause is to notice.
var mutants = map[string]string{
	"keeps the last to come":           "of several pulls of one digest the latest counts, whatever order they come in",
	"keeps the first of a call":        "of several pulls of one digest the latest counts, whatever order they come in",
	"keeps the first":                  "of several pulls of one digest the latest counts, whatever order they come in",
	"refuses a digest twice in a call": "the same pull again changes nothing",
	"keeps the last to come (back)":    "a last pull never goes back",
	"rounds up":                        "times are kept to the second, and never get later by it",
	"keeps days":                       "times are kept to the second, and never get later by it",
	"keeps the wall clock":             "a time is an instant, whatever its zone",
	"lists zero times":                 "a zero time is no pull",
	"sorts what it is given":           "pulls is not written to",
	"lists after inclusively":          "pulls are listed by digest in byte order, after the given one",
	"needs after to exist":             "pulls are listed by digest in byte order, after the given one",
	"lists in the order of time":       "pulls are listed by digest in byte order, after the given one",
	"loses the second page":            "a long listing is whole",
	"holds a lock in loops":            "the loop body may record and list",
	"shares pulls":                     "repositories do not share pulls",
	"moves Since":                      "Since is the time of the making, and stays the same",
	"knows no Since":                   "Since is the time of the making, and stays the same",
	"checks, lets go, writes":          "pulls that come at once all count",
	"ignores ctx":                      "an ended ctx is refused with its error",
	"ends quietly when cancelled":      "an ended ctx is refused with its error",
	"ends quietly under way":           "a listing that is cancelled under way is whole or ends in ctx's error",
}

func (s *flawed) Touch(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	if err := ctx.Err(); err != nil && s.flaw != "ignores ctx" {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == "shares pulls" {
		repo = ""
	}
	if s.pulls == nil {
		s.pulls = map[string]map[digest.Digest]time.Time{}
	}
	have := s.pulls[repo]
	if have == nil {
		have = map[digest.Digest]time.Time{}
		s.pulls[repo] = have
	}
	if s.flaw == "sorts what it is given" {
		slices.SortFunc(pulls, func(a, b lifecycle.Pull) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	}
	seen := map[digest.Digest]bool{}
	for _, p := range pulls {
		last, known := have[p.Digest]
		if s.flaw == "checks, lets go, writes" {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
		wins := p.At.After(last)
		twice := seen[p.Digest]
		seen[p.Digest] = true
		switch s.flaw {
		case "keeps the last to come", "keeps the last to come (back)":
			wins = true
		case "keeps the first":
			wins = !known
		case "keeps the first of a call":
			wins = wins && !twice
		case "refuses a digest twice in a call":
			if twice {
				return errors.New("cannot affect a row a second time")
			}
		case "rounds up":
			p.At = p.At.Add(time.Second - 1).Truncate(time.Second)
		case "keeps days":
			p.At = p.At.Truncate(24 * time.Hour)
		case "keeps the wall clock":
			y, m, d := p.At.Date()
			p.At = time.Date(y, m, d, p.At.Hour(), p.At.Minute(), p.At.Second(), 0, time.UTC)
		case "lists zero times":
			wins = wins || !known
		case "moves Since":
			s.made = p.At
		}
		if wins {
			have[p.Digest] = p.At
		}
	}
	return nil
}

func (s *flawed) Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	return func(yield func(lifecycle.Pull, error) bool) {
		if err := ctx.Err(); err != nil {
			if s.flaw != "ends quietly when cancelled" {
				yield(lifecycle.Pull{}, err)
			}
			return
		}
		s.mu.Lock()
		if s.flaw == "shares pulls" {
			repo = ""
		}
		var pulls []lifecycle.Pull
		_, exists := s.pulls[repo][after]
		for d, at := range s.pulls[repo] {
			if d > after || d == after && s.flaw == "lists after inclusively" || !exists && s.flaw == "needs after to exist" {
				pulls = append(pulls, lifecycle.Pull{Digest: d, At: at})
			}
		}
		if s.flaw == "holds a lock in loops" {
			defer s.mu.Unlock()
		} else {
			s.mu.Unlock()
		}
		slices.SortFunc(pulls, func(a, b lifecycle.Pull) int {
			if s.flaw == "lists in the order of time" {
				return a.At.Compare(b.At)
			}
			return strings.Compare(string(a.Digest), string(b.Digest))
		})
		for i, p := range pulls {
			if !yield(p, nil) || s.flaw == "loses the second page" && i == 999 || s.flaw == "ends quietly under way" && ctx.Err() != nil {
				return
			}
		}
	}
}

func (s *flawed) Since(ctx context.Context, repo string) (time.Time, error) {
	if s.flaw == "knows no Since" {
		return time.Time{}, ctx.Err()
	}
	if s.flaw == "moves Since" && !s.made.IsZero() {
		return s.made, ctx.Err()
	}
	return s.Store.Since(ctx, repo)
}

const mutantVar = "LIFECYCLETEST_MUTANT"

// TestMutant runs the kit on the mutant that the environment names.
func TestMutant(t *testing.T) {
	flaw := os.Getenv(mutantVar)
	if _, ok := mutants[flaw]; !ok {
		t.Skip("run by TestKitRejects")
	}
	lifecycletest.TestActivity(t, func(testing.TB) lifecycle.Activity { return &flawed{flaw: flaw} })
}

func TestKitAccepts(t *testing.T) {
	lifecycletest.TestActivity(t, func(testing.TB) lifecycle.Activity { return new(flawed) })
}

func TestKitRejects(t *testing.T) {
	for flaw, clause := range mutants {
		t.Run(flaw, func(t *testing.T) {
			name := strings.ReplaceAll(clause, " ", "_")
			timeout := "30s"
			if flaw == "holds a lock in loops" {
				timeout = "1s" // it hangs
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", fmt.Sprintf("^TestMutant$/^%s$", name), "-test.timeout", timeout)
			cmd.Env = append(os.Environ(), mutantVar+"="+flaw)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !bytes.Contains(out, []byte("TestMutant/"+name)) {
				t.Errorf("the clause %q passes a store that %s: %v\n%s", clause, flaw, err, out)
			}
		})
	}
}

package histories

import (
	"errors"
	"flag"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
)

// TestMain gives rapid's flags other defaults: histories are longer.
func TestMain(m *testing.M) {
	flag.Parse()
	setDefault("rapid.steps", "RAPID_STEPS", "100")
	setDefault("rapid.nofailfile", "RAPID_NOFAILFILE", "true") // -rapid.seed does the same
	os.Exit(pgtest.Main(m))
}

// setDefault sets a flag of rapid, unless the user did.
func setDefault(name, env, value string) {
	_, set := os.LookupEnv(env)
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name && !ours[name] })
	if !set {
		ours[name] = true
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

var ours = map[string]bool{} // flags that setDefault set, which Visit visits too

// TestHistories: every store answers as the model does.
func TestHistories(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			open := s.prepare(t)
			setDefault("rapid.checks", "RAPID_CHECKS", strconv.Itoa(s.checks))
			ran, operations := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				h := histories.Draw(t, "history")
				ran, operations = ran+1, operations+len(h)
				_, err := runHistory(h, open)
				fail(t, err)
			})
			t.Logf("%d histories, %d operations", ran, operations)
			// Rapid ends early, and content, when -timeout is near.
			if want := flag.Lookup("rapid.checks").Value.String(); !testing.Short() && strconv.Itoa(ran) != want {
				t.Errorf("there was time for %d histories of %s", ran, want)
			}
		})
	}
}

// fail ends a test with a message that is the same each time, so that rapid
// recognizes it. What changes is logged.
func fail(t *rapid.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if d, is := errors.AsType[*divergence](err); is && d.err != nil {
		t.Logf("the store's last error: %v", d.err)
	}
	t.Fatalf("%v", err)
}

// TestStoresAgree: after the same history all stores hold the same.
func TestStoresAgree(t *testing.T) {
	type opened struct {
		store
		open opener
	}
	var all []opened
	for _, s := range stores {
		all = append(all, opened{s, s.prepare(t)})
	}
	setDefault("rapid.checks", "RAPID_CHECKS", "10")
	rapid.Check(t, func(t *rapid.T) {
		h := histories.Draw(t, "history")
		var first string
		for i, s := range all {
			dump, err := runHistory(h, s.open)
			fail(t, err)
			if i == 0 {
				first = dump
			} else if dump != first {
				t.Fatalf("%s holds\n%s\n%s holds\n%s", all[0].name, first, s.name, dump)
			}
		}
	})
}

// TestHistoriesHaveAllOutcomes: what histories are to test happens in them.
func TestHistoriesHaveAllOutcomes(t *testing.T) {
	seen := map[string]int{}
	for seed := range 500 {
		if _, err := runSeen(histories.Example(seed), openMemory, seen); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]string{
		"abort":     {ok, blobConflict, uploadNotFound},
		"append":    {ok, blobConflict, blobOffset, readerFailed, uploadNotFound},
		"apply":     {ok, "conflict", manifestNotFound, "missing"},
		"commit":    {ok, blobConflict, uploadNotFound},
		"delete":    {ok, blobConflict, blobNotFound},
		"events":    {"value"},
		"finish":    {ok, blobConflict, blobDigest, uploadNotFound},
		"get":       {"value", manifestNotFound},
		"lookup":    {ok, uploadNotFound},
		"mount":     {ok, blobNotFound},
		"open":      {"value", blobNotFound, blobRange},
		"pulls":     {"value"},
		"push":      {ok, "conflict", manifestInvalid, "missing"},
		"put":       {ok, blobDigest, readerFailed},
		"referrers": {"value"},
		"reread":    {"value", uploadNotFound},
		"resolve":   {"value", manifestNotFound},
		"save":      {ok, blobConflict, uploadNotFound},
		"sessions":  {"value"},
		"stat":      {"value"},
		"sweep":     {"value"},
		"tag":       {ok, "conflict", manifestNotFound, "missing"},
	}
	for text, outcomes := range want {
		for _, o := range outcomes {
			n := seen[text+": "+o]
			t.Logf("%6d %s: %s", n, text, o)
			if n == 0 {
				t.Errorf("no %s with the outcome: %s", text, o)
			}
		}
	}
}

// outcome is the kind of an operation, and of its answer.
func outcome(text, got string) string {
	if _, after, found := strings.Cut(text, " = "); found {
		text = after
	}
	text, _, _ = strings.Cut(text, "(")
	for _, prefix := range []string{"missing", "conflict"} {
		if strings.HasPrefix(got, prefix) {
			return text + ": " + prefix
		}
	}
	if got == ok || slices.ContainsFunc(classes, func(c errorClass) bool { return c.answer == got }) {
		return text + ": " + got
	}
	if got == "" {
		return text + ": empty"
	}
	return text + ": value"
}

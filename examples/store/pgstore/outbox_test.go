package pgstore

import (
	"testing"

	"github.com/wharfage/wharfage/manifest"
)

func events(t testing.TB, db *DB, after string) (repos []string, last string) {
	t.Helper()
	last = after
	for e, err := range db.Manifests().Events(t.Context(), after) {
		if err != nil {
			t.Fatalf("Events: %v", err)
		}
		repos, last = append(repos, e.Repo), e.Position
	}
	return repos, last
}

// A transaction that has drawn its number first and commits last.
func TestAnEventOfASlowTransactionIsNotMissed(t *testing.T) {
	db := open(t, Options{KeepEvents: true})
	apply(t, db, "before", manifest.Change{})
	got, last := events(t, db, "")
	if len(got) != 1 {
		t.Fatalf("events of %q, want before", got)
	}
	slow, err := db.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(t.Context(), `insert into event (repo, change) values ('slow', '{}')`); err != nil {
		t.Fatal(err)
	}
	apply(t, db, "fast", manifest.Change{})
	if got, last = events(t, db, last); len(got) != 0 {
		t.Fatalf("events of %q are listed while one that comes before may still commit", got)
	}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, last = events(t, db, last); len(got) != 2 || got[0] != "slow" || got[1] != "fast" {
		t.Fatalf("events of %q, want slow and fast", got)
	}
	if err := db.Manifests().Forget(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if got, _ := events(t, db, ""); len(got) != 0 {
		t.Fatalf("events of %q, want none", got)
	}
}

func TestWhatIsNoPositionIsAnError(t *testing.T) {
	db := open(t, Options{KeepEvents: true})
	for _, position := range []string{"x", "1", "1-", "1-2-3", " 1-2", "1-2 ", "0x1-2"} {
		for range db.Manifests().Events(t.Context(), position) {
			break
		}
		if err := db.Manifests().Forget(t.Context(), position); err == nil {
			t.Errorf("Forget(%q) succeeds", position)
		}
	}
}

func TestEventsAreKeptIfSo(t *testing.T) {
	db := open(t, Options{})
	apply(t, db, "r", manifest.Change{})
	if got, _ := events(t, db, ""); len(got) != 0 {
		t.Fatalf("events of %q", got)
	}
}

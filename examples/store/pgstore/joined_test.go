package pgstore

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/manifest"
)

// TestInTx: what it writes is committed with the change, or not at all; its error undoes
// the change; and it cannot end the transaction.
func TestInTx(t *testing.T) {
	ctx := t.Context()
	refuse := errors.New("refused")
	var answer error
	var tried []error
	db, err := Open(ctx, Options{
		DSN: pgtest.Start(t), Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true},
		InTx: func(ctx context.Context, tx pgx.Tx, e manifest.Event) error {
			if len(e.Change.Put) != 1 || e.Change.Put[0].Raw != nil {
				t.Errorf("%+v", e)
			}
			tried = []error{tx.Commit(ctx), tx.Rollback(ctx)}
			if _, err := tx.Exec(ctx, `insert into note values ($1)`, e.Repo); err != nil {
				return err
			}
			for _, keep := range []bool{true, false} {
				within, err := tx.Begin(ctx)
				if err != nil {
					return err
				}
				if _, err := within.Exec(ctx, `insert into note values ($1)`, e.Repo+" "+map[bool]string{true: "kept", false: "undone"}[keep]); err != nil {
					return err
				}
				end := within.Rollback
				if keep {
					end = within.Commit
				}
				if err := end(ctx); err != nil {
					return err
				}
				if err := within.Rollback(ctx); !errors.Is(err, pgx.ErrTxClosed) {
					t.Error(err)
				}
			}
			return answer
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.pool.Exec(ctx, `create table note (text text primary key)`); err != nil {
		t.Fatal(err)
	}
	raw, _, err := manifest.IndexDraft{}.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		repo  string
		fails error
	}{{"good", nil}, {"bad", refuse}} {
		answer = c.fails
		_, err := (&manifest.Pusher{Store: db.Manifests()}).Push(ctx, c.repo, manifest.PushRequest{Raw: raw})
		if !errors.Is(err, c.fails) || (err == nil) != (c.fails == nil) {
			t.Errorf("%s: %v", c.repo, err)
		}
		for _, err := range tried {
			if !errors.Is(err, errJoined) {
				t.Errorf("%s: the end of the transaction: %v", c.repo, err)
			}
		}
		if n, _, err := manifest.Count(ctx, db.Manifests(), c.repo, ""); err != nil || (n == 1) != (c.fails == nil) {
			t.Errorf("%s: %d manifests, %v", c.repo, n, err)
		}
	}
	rows, err := db.pool.Query(ctx, `select text from note order by text`)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(notes) != 2 || notes[0] != "good" || notes[1] != "good kept" {
		t.Errorf("%q, %v", notes, err)
	}
}

// TestAFailureThatInTxKeepsToItselfIsTold: the server takes the commit of a transaction in which
// a statement has failed, and undoes it all the same.
func TestAFailureThatInTxKeepsToItselfIsTold(t *testing.T) {
	db := open(t, Options{InTx: func(ctx context.Context, tx pgx.Tx, _ manifest.Event) error {
		tx.Exec(ctx, `insert into nowhere values (1)`)
		return nil
	}})
	rec := document("1")
	err := db.Manifests().Apply(t.Context(), "r", manifest.Change{Put: []manifest.Record{rec}})
	if err == nil || mayHaveCommitted(err) {
		t.Errorf("Apply = %v, want that it was undone", err)
	}
	if _, err := db.Manifests().Get(t.Context(), "r", rec.Desc.Digest); !errors.Is(err, manifest.ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
}

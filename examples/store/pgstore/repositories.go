package pgstore

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/repository"
)

// Repositories implements [repository.Store].
type Repositories struct{ db *DB }

var _ repository.Store = (*Repositories)(nil)

func repositoryError(op, name string, err error) error {
	return &repository.Error{Op: op, Name: name, Err: err}
}

// readRepository reads a row. What it cannot read is never ErrNotFound.
func readRepository(name string, settings []byte) (repository.Repository, error) {
	r, err := parts.DecodeRepository(settings)
	if err == nil && r.Name != name {
		err = fmt.Errorf("they are those of %s", r.Name)
	}
	if err != nil {
		return repository.Repository{}, fmt.Errorf("settings in the database: %w", err)
	}
	return r, nil
}

// Get implements [repository.Store].
func (s *Repositories) Get(ctx context.Context, name string) (repository.Repository, error) {
	var settings []byte
	found, err := s.db.row(ctx, `select settings from repository where name = $1`, []any{name}, &settings)
	if err == nil && !found {
		err = repository.ErrNotFound
	}
	var r repository.Repository
	if err == nil {
		r, err = readRepository(name, settings)
	}
	if err != nil {
		return repository.Repository{}, repositoryError("get", name, err)
	}
	return r, nil
}

// List implements [repository.Store].
func (s *Repositories) List(ctx context.Context, after string) iter.Seq2[repository.Repository, error] {
	return list(ctx, s.db, bound(after), func(after string, limit int) (string, []any) {
		return `select name, settings from repository where name > $1 order by name limit $2`, []any{after, limit}
	}, func(rows pgx.Rows) (name string, r repository.Repository, err error) {
		var settings []byte
		if err = rows.Scan(&name, &settings); err == nil {
			if r, err = readRepository(name, settings); err != nil {
				err = fmt.Errorf("repository %s: %w", name, err)
			}
		}
		return name, r, err
	}, func(err error) error { return fmt.Errorf("list repositories: %w", err) })
}

// Create implements [repository.Store]. With a limit it counts the rows, and
// creations with one wait for each other.
func (s *Repositories) Create(ctx context.Context, r repository.Repository, most int) error {
	settings, err := parts.EncodeRepository(&r)
	if err == nil {
		err = s.db.write(ctx, func(t *tx) error {
			n, exists := 0, false
			if most > 0 {
				t.queue(`select pg_advisory_xact_lock($1)`, s.db.lock("repositories", ""))
				one(t.queue(`select count(*) from repository`), &n)
			}
			one(t.queue(`select true from repository where name = $1`, r.Name), &exists)
			if err := t.send(ctx); err != nil {
				return err
			}
			switch {
			case exists:
				return repository.ErrExists
			case most > 0 && n >= most:
				return &repository.QuotaError{Quota: repository.QuotaRepositories, Limit: most}
			}
			// Without a limit two may come here, and the second waits for the first.
			made := false
			one(t.queue(`insert into repository (name, settings) values ($1, $2) on conflict do nothing returning true`, r.Name, string(settings)), &made)
			if err := t.send(ctx); err != nil {
				return err
			}
			if !made {
				return repository.ErrExists
			}
			return nil
		})
	}
	if err != nil {
		return repositoryError("create", r.Name, err)
	}
	return nil
}

// Replace implements [repository.Store].
func (s *Repositories) Replace(ctx context.Context, old repository.Repository, new *repository.Repository) error {
	var settings []byte
	var err error
	if new != nil {
		settings, err = parts.EncodeRepository(new)
	}
	if err == nil {
		err = s.db.write(ctx, func(t *tx) error {
			var have []byte
			one(t.queue(`select settings from repository where name = $1 for update`, old.Name), &have)
			if err := t.send(ctx); err != nil {
				return err
			}
			if have == nil {
				return repository.ErrNotFound
			}
			r, err := readRepository(old.Name, have)
			switch {
			case err != nil:
				return err
			case !r.Equal(&old):
				return repository.ErrConflict
			case new == nil:
				t.queue(`delete from repository where name = $1`, old.Name)
			default:
				t.queue(`update repository set settings = $2 where name = $1`, old.Name, string(settings))
			}
			return nil
		})
	}
	if err != nil {
		return repositoryError("change", old.Name, err)
	}
	return nil
}

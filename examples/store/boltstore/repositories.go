package boltstore

import (
	"context"
	"fmt"
	"iter"

	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/repository"
)

// Repositories implements [repository.Store].
type Repositories struct{ db *DB }

var _ repository.Store = (*Repositories)(nil)

func repositoryError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &repository.Error{Op: op, Name: name, Err: err}
}

const repositoryForm = 1

func repositoryRow(r *repository.Repository) ([]byte, error) {
	b, err := parts.EncodeRepository(r)
	return append([]byte{repositoryForm}, b...), err
}

func readRepository(name string, b []byte) (repository.Repository, error) {
	r := row{s: string(b)}
	if r.version(repositoryForm); r.err != nil {
		return repository.Repository{}, r.err
	}
	out, err := parts.DecodeRepository([]byte(r.s))
	if err == nil && out.Name != name {
		err = fmt.Errorf("it is that of %s", out.Name)
	}
	if err != nil {
		return repository.Repository{}, fmt.Errorf("%w: %w", errRow, err)
	}
	return out, nil
}

func (t *tx) repository(name string) (repository.Repository, error) {
	v := t.get(repositoryRows, []byte(name))
	if v == nil {
		return repository.Repository{}, repository.ErrNotFound
	}
	return readRepository(name, v)
}

// Get implements [repository.Store].
func (s *Repositories) Get(ctx context.Context, name string) (r repository.Repository, err error) {
	err = s.db.view(ctx, func(t *tx) (err error) {
		r, err = t.repository(name)
		return err
	})
	return r, repositoryError("get", name, err)
}

// List implements [repository.Store].
func (s *Repositories) List(ctx context.Context, after string) iter.Seq2[repository.Repository, error] {
	return list(ctx, s.db, next([]byte(after)), func(t *tx, from []byte, n int) (page []repository.Repository, _ []byte, err error) {
		for k, v := range t.under(repositoryRows, nil, from) {
			if len(page) == n {
				return page, append([]byte(nil), k...), nil
			}
			r, err := readRepository(string(k), v)
			if err != nil {
				return nil, nil, fmt.Errorf("repository %s: %w", k, err)
			}
			page = append(page, r)
		}
		return page, nil, nil
	}, func(err error) error { return fmt.Errorf("list repositories: %w", err) })
}

// Create implements [repository.Store]. With a limit it passes over the names.
func (s *Repositories) Create(ctx context.Context, r repository.Repository, most int) error {
	row, err := repositoryRow(&r)
	if err == nil {
		err = s.db.update(ctx, func(t *tx) error {
			if t.has(repositoryRows, []byte(r.Name)) {
				return repository.ErrExists
			}
			n := 0
			if most > 0 {
				for range t.under(repositoryRows, nil, nil) {
					if n++; n == most {
						return &repository.QuotaError{Quota: repository.QuotaRepositories, Limit: most}
					}
				}
			}
			t.put(repositoryRows, []byte(r.Name), row)
			return nil
		})
	}
	return repositoryError("create", r.Name, err)
}

// Replace implements [repository.Store].
func (s *Repositories) Replace(ctx context.Context, old repository.Repository, new *repository.Repository) error {
	var row []byte
	var err error
	if new != nil {
		row, err = repositoryRow(new)
	}
	if err == nil {
		err = s.db.update(ctx, func(t *tx) error {
			have, err := t.repository(old.Name)
			switch {
			case err != nil:
				return err
			case !have.Equal(&old):
				return repository.ErrConflict
			case new == nil:
				t.delete(repositoryRows, []byte(old.Name))
			default:
				t.put(repositoryRows, []byte(old.Name), row)
			}
			return nil
		})
	}
	return repositoryError("change", old.Name, err)
}

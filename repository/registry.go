package repository

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/wharfage/wharfage/manifest"
)

// Registry makes, changes and removes repositories. Only Store is required. It
// is a [manifest.Catalog], which lists repositories without content too.
type Registry struct {
	Store Store

	// Templates are for repositories that come to be by themselves; see
	// [ForCreation]. nil means none, so that a push makes no repository.
	Templates func(ctx context.Context) ([]Template, error)

	Names           Names
	MaxRepositories int // 0: no limit; ECR has 100,000

	// Content is asked before a repository is deleted. nil lets go of those with
	// content too.
	Content manifest.Reader

	Now func() time.Time // nil means time.Now
}

// Static makes a Registry's Templates of a list, which stays the same and is to
// pass [CheckTemplates].
func Static(templates ...Template) func(context.Context) ([]Template, error) {
	return func(context.Context) ([]Template, error) { return templates, nil }
}

func fail(op, name string, err error) error {
	if _, told := errors.AsType[*Error](err); err == nil || told { // by a store
		return err
	}
	return &Error{op, name, err}
}

// Get returns a repository. Errors: *NameError, ErrNotFound.
func (r *Registry) Get(ctx context.Context, name string) (Repository, error) {
	if err := r.Names.Check(name); err != nil {
		return Repository{}, err
	}
	have, err := r.Store.Get(ctx, name)
	return have, fail("get", name, err)
}

// Create makes a repository. Errors: *NameError, *InvalidError, ErrExists,
// *QuotaError.
func (r *Registry) Create(ctx context.Context, name string, s Settings) (Repository, error) {
	made := Repository{Name: name, CreatedAt: r.now().UTC().Truncate(time.Microsecond), Settings: s}
	err := r.Names.Check(name)
	if err == nil {
		err = s.Check()
	}
	if err == nil {
		err = r.Store.Create(ctx, made, r.MaxRepositories)
	}
	if err != nil {
		return Repository{}, fail("create", name, err)
	}
	return made, nil
}

// Ensure returns a repository, which it makes, if it is not there, as the
// templates say. allow, if not nil, is asked first, with the settings, and its
// error is returned. made tells whether this call made it.
//
// Errors: *NameError, ErrNotFound if none is to be made for that cause,
// *QuotaError, *InvalidError for settings of a template.
func (r *Registry) Ensure(ctx context.Context, name string, c Cause, allow func(Settings) error) (have Repository, made bool, err error) {
	have, err = r.Get(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return have, false, err
	}
	var templates []Template
	if r.Templates != nil {
		if templates, err = r.Templates(ctx); err != nil {
			return Repository{}, false, fail("create", name, err)
		}
	}
	t, create := ForCreation(templates, name, c)
	if !create {
		return Repository{}, false, fail("create", name, fmt.Errorf("%w, and no template lets a push make it", ErrNotFound))
	}
	var s Settings
	if t != nil {
		s = t.Settings
	}
	if allow != nil {
		if err := allow(s); err != nil {
			return Repository{}, false, fail("create", name, err)
		}
	}
	have, err = r.Create(ctx, name, s)
	if errors.Is(err, ErrExists) { // somebody was faster, or slower to delete it
		have, err = r.Get(ctx, name)
		return have, false, err
	}
	return have, err == nil, err
}

// Update changes the settings of a repository in one step: change is called
// with those there are, again when somebody else has changed them meanwhile. An
// error of it ends the update.
//
// Errors: *NameError, ErrNotFound, *InvalidError, also for another encryption,
// which is fixed at creation.
func (r *Registry) Update(ctx context.Context, name string, change func(*Settings) error) (Repository, error) {
	for {
		old, err := r.Get(ctx, name)
		if err != nil {
			return Repository{}, err
		}
		next := old.Clone() // change may write to slices and maps
		if err = change(&next.Settings); err == nil {
			err = next.Check()
		}
		if err == nil && next.Encryption != old.Encryption {
			err = &InvalidError{Field: "encryptionConfiguration", Detail: "is fixed at creation"}
		}
		if err != nil { // also an ErrConflict of change
			return Repository{}, fail("update", name, err)
		}
		switch err = r.Store.Replace(ctx, old, &next); {
		case err == nil:
			return next, nil
		case !errors.Is(err, ErrConflict):
			return Repository{}, fail("update", name, err)
		}
	}
}

// Delete removes a repository from the list, and its settings. Errors:
// *NameError, ErrNotFound, ErrNotEmpty while Content has a manifest of it, and ErrConflict
// when its settings change meanwhile.
//
// Content and list are two stores: what a push that is under way brings after
// that look stays in Content, where nobody sees it until the repository is made
// again.
func (r *Registry) Delete(ctx context.Context, name string) error {
	old, err := r.Get(ctx, name)
	if err != nil {
		return err
	}
	if r.Content != nil {
		for _, err := range r.Content.Manifests(ctx, name, "") {
			if err == nil {
				err = ErrNotEmpty
			}
			return fail("delete", name, err)
		}
	}
	return fail("delete", name, r.Store.Replace(ctx, old, nil))
}

// Repos implements [manifest.Catalog]: it lists all repositories.
func (r *Registry) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for have, err := range r.Store.List(ctx, after) {
			if !yield(have.Name, err) || err != nil {
				return
			}
		}
	}
}

func (r *Registry) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

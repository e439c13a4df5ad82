package repository_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

const policy = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}`

func TestSettingsAreCheckedWhenTheyAreSet(t *testing.T) {
	long := strings.Repeat("é", repository.MaxRepositoryPolicy)
	for name, c := range map[string]struct {
		s     repository.Settings
		field string
	}{
		"zero":                    {},
		"all":                     {repository.Settings{TagMutability: "IMMUTABLE", LifecyclePolicy: policy, RepositoryPolicy: long, Encryption: repository.Encryption{Type: "KMS", KMSKey: "k"}}, ""},
		"mode":                    {repository.Settings{TagMutability: "immutable"}, "imageTagMutability"},
		"exceptions of nothing":   {repository.Settings{TagMutabilityNot: []repository.TagFilter{{}}}, "imageTagMutabilityExclusionFilters"},
		"exceptions left out":     {repository.Settings{TagMutability: "MUTABLE_WITH_EXCLUSION"}, "imageTagMutabilityExclusionFilters"},
		"lifecycle policy":        {repository.Settings{LifecyclePolicy: strings.Replace(policy, "14", "0", 1)}, "lifecyclePolicy"},
		"repository policy":       {repository.Settings{RepositoryPolicy: long + "e"}, "repositoryPolicy"},
		"key without encryption":  {repository.Settings{Encryption: repository.Encryption{KMSKey: "k"}}, "encryptionConfiguration"},
		"51 labels":               {repository.Settings{ResourceTags: slices.Repeat([]repository.ResourceTag{{Key: "k"}}, 51)}, "resourceTags"},
		"a label twice":           {repository.Settings{ResourceTags: slices.Repeat([]repository.ResourceTag{{Key: "k"}}, 2)}, "resourceTags[1].Key"},
		"a label without its key": {repository.Settings{ResourceTags: []repository.ResourceTag{{Value: "v"}}}, "resourceTags[0].Key"},

		// A store that keeps JSON would keep another text.
		"a policy not of UTF-8":    {repository.Settings{LifecyclePolicy: strings.Replace(policy, `"rulePriority"`, "\"description\":\"\xff\",\"rulePriority\"", 1)}, "lifecyclePolicy"},
		"an access policy neither": {repository.Settings{RepositoryPolicy: "\xff"}, "repositoryPolicy"},
		"an encryption neither":    {repository.Settings{Encryption: repository.Encryption{Type: "\xff"}}, "encryptionConfiguration"},
		"a key neither":            {repository.Settings{Encryption: repository.Encryption{Type: "KMS", KMSKey: "\xff"}}, "encryptionConfiguration"},
		"a label neither":          {repository.Settings{ResourceTags: []repository.ResourceTag{{Key: "\xff"}}}, "resourceTags[0].Key"},
		"its value neither":        {repository.Settings{ResourceTags: []repository.ResourceTag{{Key: "k", Value: "\xff"}}}, "resourceTags[0].Value"},
		"a custom name neither":    {repository.Settings{Custom: map[string]string{"\xff": ""}}, "custom"},
		"a custom value neither":   {repository.Settings{Custom: map[string]string{"k": "\xff"}}, "custom"},
	} {
		r := &repository.Registry{Store: new(memrepository.Store)}
		_, err := r.Create(t.Context(), "a", c.s)
		e, ok := errors.AsType[*repository.InvalidError](err)
		if ok != (c.field != "") || (err == nil) != (c.field == "") || ok && (e.Field != c.field || !errors.Is(err, repository.ErrInvalid)) {
			t.Errorf("%s: %v, want a fault of %q", name, err, c.field)
		}
	}
}

func TestTemplatesAreChecked(t *testing.T) {
	push := []repository.Cause{repository.CausePush}
	for name, c := range map[string]struct {
		templates []repository.Template
		field     string
	}{
		"good":                {[]repository.Template{{Prefix: "a/", AppliedFor: push}, {Prefix: "ROOT", AppliedFor: push}, {Prefix: "a/b", AppliedFor: push}}, ""},
		"no prefix":           {[]repository.Template{{AppliedFor: push}}, "prefix"},
		"a slash alone":       {[]repository.Template{{Prefix: "/", AppliedFor: push}}, "prefix"},
		"two slashes":         {[]repository.Template{{Prefix: "a//", AppliedFor: push}}, "prefix"},
		"applied for nothing": {[]repository.Template{{Prefix: "a"}}, "appliedFor"},
		"applied for what":    {[]repository.Template{{Prefix: "a", AppliedFor: []repository.Cause{"PUSH"}}}, "appliedFor"},
		"applied twice":       {[]repository.Template{{Prefix: "a", AppliedFor: slices.Repeat(push, 2)}}, "appliedFor"},
		"description":         {[]repository.Template{{Prefix: "a", AppliedFor: push, Description: strings.Repeat("x", 257)}}, "description"},
		"settings":            {[]repository.Template{{Prefix: "a", AppliedFor: push, Settings: repository.Settings{LifecyclePolicy: "{}"}}}, "lifecyclePolicy"},
		"one prefix twice":    {[]repository.Template{{Prefix: "a", AppliedFor: push}, {Prefix: "a/", AppliedFor: push}}, "prefix"},
	} {
		err := repository.CheckTemplates(c.templates)
		if e, ok := errors.AsType[*repository.InvalidError](err); ok != (c.field != "") || ok && e.Field != c.field {
			t.Errorf("%s: %v, want a fault of %q", name, err, c.field)
		}
	}
}

func TestEnsureMakesARepositoryOnce(t *testing.T) {
	r := &repository.Registry{Store: new(memrepository.Store), Templates: repository.Static(repository.Template{
		Prefix: "team", AppliedFor: []repository.Cause{repository.CausePush}, Settings: repository.Settings{TagMutability: "IMMUTABLE"},
	})}
	for round := range 50 {
		name := fmt.Sprint("team/", round)
		var wg sync.WaitGroup
		var makers atomic.Int32
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				have, made, err := r.Ensure(t.Context(), name, repository.CausePush, nil)
				if err != nil || have.Name != name || have.TagMutability != "IMMUTABLE" || have.CreatedAt.IsZero() {
					t.Errorf("Ensure = %+v, %v", have, err)
				}
				if made {
					makers.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()
		if makers.Load() != 1 {
			t.Fatalf("%d made it", makers.Load())
		}
	}
	denied := errors.New("denied")
	if _, _, err := r.Ensure(t.Context(), "team/x", repository.CausePush, func(s repository.Settings) error { return denied }); !errors.Is(err, denied) {
		t.Error(err)
	}
	for name, c := range map[string]repository.Cause{"team": repository.CausePush, "team/x": "", "other": repository.CausePush} {
		if have, made, err := r.Ensure(t.Context(), name, c, nil); c == repository.CausePush && (!errors.Is(err, repository.ErrNotFound) || made) {
			t.Errorf("%s: %+v, %v", name, have, err)
		}
	}
	if have, made, err := r.Ensure(t.Context(), "copy/x", repository.CauseReplication, nil); err != nil || !made || have.TagMutability != "" {
		t.Errorf("a replica without a template: %+v, %v", have, err)
	}
}

func TestUpdatesDoNotLoseEachOther(t *testing.T) {
	r := &repository.Registry{Store: new(memrepository.Store)}
	if _, err := r.Create(t.Context(), "a", repository.Settings{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := r.Update(t.Context(), "a", func(s *repository.Settings) error {
				if s.Custom == nil {
					s.Custom = map[string]string{}
				}
				s.Custom[fmt.Sprint(i)] = ""
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	have, err := r.Get(t.Context(), "a")
	if err != nil || len(have.Custom) != 16 {
		t.Errorf("%d of 16 updates are left, %v", len(have.Custom), err)
	}
	own := errors.New("own")
	for want, change := range map[error]func(*repository.Settings) error{
		own:                   func(*repository.Settings) error { return own },
		repository.ErrInvalid: func(s *repository.Settings) error { s.Encryption.Type = "KMS"; return nil },
	} {
		if _, err := r.Update(t.Context(), "a", change); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := r.Update(t.Context(), "b", nil); !errors.Is(err, repository.ErrNotFound) {
		t.Error(err)
	}
	calls := 0
	if _, err := r.Update(t.Context(), "a", func(*repository.Settings) error {
		if calls++; calls > 1 {
			return own
		}
		return repository.ErrConflict // who compares a version of its own says so
	}); calls != 1 || !errors.Is(err, repository.ErrConflict) {
		t.Errorf("a conflict that change has found: %v after %d calls", err, calls)
	}
}

func TestDeleteKeepsRepositoriesWithContent(t *testing.T) {
	content := new(memmanifest.Store)
	r := &repository.Registry{Store: new(memrepository.Store), Content: content}
	for _, name := range []string{"a", "b"} {
		if _, err := r.Create(t.Context(), name, repository.Settings{}); err != nil {
			t.Fatal(err)
		}
	}
	raw, desc, _ := manifest.IndexDraft{}.Build()
	if err := content.Apply(t.Context(), "a", manifest.Change{Put: []manifest.Record{{Desc: desc, Raw: raw}}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "a"); !errors.Is(err, repository.ErrNotEmpty) {
		t.Error(err)
	}
	if err := r.Delete(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if err := r.Delete(t.Context(), "b"); !errors.Is(err, repository.ErrNotFound) {
		t.Error(err)
	}
	if err := r.Delete(t.Context(), "B"); !errors.Is(err, manifest.ErrName) {
		t.Error(err)
	}
}

var errDisk = errors.New("disk")

// failing fails at every call.
type failing struct{}

func (failing) Get(context.Context, string) (repository.Repository, error) {
	return repository.Repository{}, errDisk
}
func (failing) List(context.Context, string) iter.Seq2[repository.Repository, error] {
	return func(yield func(repository.Repository, error) bool) { yield(repository.Repository{}, errDisk) }
}
func (failing) Create(context.Context, repository.Repository, int) error { return errDisk }
func (failing) Replace(context.Context, repository.Repository, *repository.Repository) error {
	return errDisk
}

func TestAFailingStoreIsNeverAnEmptyAnswer(t *testing.T) {
	r := &repository.Registry{Store: failing{}, Templates: repository.Static()}
	_, get := r.Get(t.Context(), "a")
	_, create := r.Create(t.Context(), "a", repository.Settings{})
	_, _, ensure := r.Ensure(t.Context(), "a", repository.CauseReplication, nil)
	_, update := r.Update(t.Context(), "a", nil)
	errs := []error{get, create, ensure, update, r.Delete(t.Context(), "a")}
	for _, err := range r.Repos(t.Context(), "") {
		errs = append(errs, err)
	}
	for i, err := range errs {
		if !errors.Is(err, errDisk) || errors.Is(err, repository.ErrNotFound) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if len(errs) != 6 {
		t.Error("the listing ended without an error")
	}
	r = &repository.Registry{Store: new(memrepository.Store), Templates: func(context.Context) ([]repository.Template, error) { return nil, errDisk }}
	if _, _, err := r.Ensure(t.Context(), "a", repository.CauseReplication, nil); !errors.Is(err, errDisk) {
		t.Errorf("a repository was made without the templates: %v", err)
	}
}

// wording fails in words of its own.
type wording struct {
	failing
	cause error
}

func (w wording) Get(context.Context, string) (repository.Repository, error) {
	return repository.Repository{}, w.cause
}

// TestAnErrorSaysOnceWhatFailed, also over a store that says it too.
func TestAnErrorSaysOnceWhatFailed(t *testing.T) {
	for _, cause := range []error{repository.ErrNotFound, &repository.Error{Op: "get", Name: "team/app", Err: repository.ErrNotFound}} {
		r := &repository.Registry{Store: wording{cause: cause}}
		_, err := r.Get(t.Context(), "team/app")
		if want := "get repository team/app: " + repository.ErrNotFound.Error(); err == nil || err.Error() != want || !errors.Is(err, repository.ErrNotFound) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

package repositorytest_test

import (
	"context"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
	"github.com/wharfage/wharfage/repository/repositorytest"
)

// mutants are stores that break one promise each, and the clause that is to
// find out.
var mutants = map[string]struct {
	open   func() repository.Store
	clause string
}{
	"forgets a field":         {func() repository.Store { return forgetful{new(memrepository.Store)} }, "every field is kept"},
	"creates over":            {func() repository.Store { return over{new(memrepository.Store)} }, "Create of what is there is ErrExists and changes nothing"},
	"ignores the limit":       {func() repository.Store { return limitless{new(memrepository.Store)} }, "Create keeps to most"},
	"replaces blindly":        {func() repository.Store { return blind{new(memrepository.Store)} }, "Replace needs the repository as it is"},
	"checks, and then writes": {func() repository.Store { return twoSteps{new(memrepository.Store)} }, "of racing changes one wins"},
	"lists from the name on":  {func() repository.Store { return inclusive{new(memrepository.Store)} }, "listings are in byte order and start after a name"},
	"shares its slices":       {func() repository.Store { return sharing{new(memrepository.Store), map[string]repository.Repository{}} }, "results and arguments are their owners'"},
	"ends without an error":   {func() repository.Store { return silent{new(memrepository.Store)} }, "an ended context is an error and never an empty answer"},
}

type forgetful struct{ *memrepository.Store }

func (s forgetful) Create(ctx context.Context, r repository.Repository, most int) error {
	r.RepositoryPolicy = ""
	return s.Store.Create(ctx, r, most)
}

type over struct{ *memrepository.Store }

func (s over) Create(ctx context.Context, r repository.Repository, most int) error {
	if have, err := s.Store.Get(ctx, r.Name); err == nil {
		return s.Store.Replace(ctx, have, &r)
	}
	return s.Store.Create(ctx, r, most)
}

type limitless struct{ *memrepository.Store }

func (s limitless) Create(ctx context.Context, r repository.Repository, _ int) error {
	return s.Store.Create(ctx, r, 0)
}

type blind struct{ *memrepository.Store }

func (s blind) Replace(ctx context.Context, old repository.Repository, new *repository.Repository) error {
	have, err := s.Store.Get(ctx, old.Name)
	if err != nil {
		return err
	}
	return s.Store.Replace(ctx, have, new)
}

type twoSteps struct{ *memrepository.Store }

func (s twoSteps) Create(ctx context.Context, r repository.Repository, most int) error {
	n := 0
	for have := range s.Store.List(ctx, "") {
		if n++; have.Name == r.Name {
			return repository.ErrExists
		}
	}
	if most > 0 && n >= most {
		return &repository.QuotaError{Quota: repository.QuotaRepositories, Limit: most}
	}
	runtime.Gosched() // so that others come in between, also on one processor
	return over(s).Create(ctx, r, 0)
}

type inclusive struct{ *memrepository.Store }

func (s inclusive) List(ctx context.Context, after string) iter.Seq2[repository.Repository, error] {
	if after != "" {
		after = after[:len(after)-1]
	}
	return s.Store.List(ctx, after)
}

type sharing struct {
	*memrepository.Store
	shared map[string]repository.Repository
}

func (s sharing) Create(ctx context.Context, r repository.Repository, most int) error {
	s.shared[r.Name] = r
	return s.Store.Create(ctx, r, most)
}

func (s sharing) Get(ctx context.Context, name string) (repository.Repository, error) {
	if r, ok := s.shared[name]; ok {
		return r, nil
	}
	return s.Store.Get(ctx, name)
}

type silent struct{ *memrepository.Store }

func (s silent) List(ctx context.Context, after string) iter.Seq2[repository.Repository, error] {
	return func(yield func(repository.Repository, error) bool) {
		for r, err := range s.Store.List(ctx, after) {
			if err != nil || !yield(r, nil) {
				return
			}
		}
	}
}

// TestMutants runs the kit on each mutant in a process of its own, since a kit
// that works fails its test.
func TestMutants(t *testing.T) {
	if name := os.Getenv("MUTANT"); name != "" {
		repositorytest.TestStore(t, func(testing.TB) repository.Store { return mutants[name].open() })
		return
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clause := strings.ReplaceAll(m.clause, " ", "_")
			cmd := exec.Command(os.Args[0], "-test.run=^TestMutants$/^"+clause+"$")
			cmd.Env = append(slices.Clone(os.Environ()), "MUTANT="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestMutants/"+clause) {
				t.Errorf("the kit lets it pass, or fails for another reason: %v\n%s", err, out)
			}
		})
	}
}

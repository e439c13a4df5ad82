package pgstore

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wharfage/wharfage/repository"
)

// A row that cannot be read is neither a repository that is not there nor one
// with other settings, and is not written over.
func TestADamagedRepositoryIsAnError(t *testing.T) {
	db := open(t, Options{})
	s := db.Repositories()
	made := repository.Repository{Name: "team/app", CreatedAt: time.Now()}
	if err := s.Create(t.Context(), made, 0); err != nil {
		t.Fatal(err)
	}
	for what, settings := range map[string]string{
		"another type":   `[]`,
		"a newer member": `{"repositoryName":"team/app","createdAt":"2026-01-01T00:00:00Z","newer":1}`,
		"another's":      `{"repositoryName":"other","createdAt":"2026-01-01T00:00:00Z"}`,
	} {
		if _, err := db.pool.Exec(t.Context(), `update repository set settings = $1`, settings); err != nil {
			t.Fatal(err)
		}
		var listed error
		for _, err := range s.List(t.Context(), "") {
			listed = err
		}
		_, got := s.Get(t.Context(), made.Name)
		for op, err := range map[string]error{"Get": got, "List": listed, "Replace": s.Replace(t.Context(), made, nil)} {
			if err == nil || errors.Is(err, repository.ErrNotFound) || errors.Is(err, repository.ErrConflict) {
				t.Errorf("%s: %s = %v", what, op, err)
			}
		}
		if err := s.Create(t.Context(), made, 0); !errors.Is(err, repository.ErrExists) {
			t.Errorf("%s: Create = %v, want ErrExists", what, err)
		}
	}
}

func TestOfTwoProcessesOneMakesARepository(t *testing.T) {
	dbs := two(t)
	for round := range 10 {
		errs := make([]error, 4)
		for _, most := range []int{0, 2*round + 2} {
			name := fmt.Sprint("r", round, "-", most > 0)
			together(len(errs), func(i int) {
				errs[i] = dbs[i%2].Repositories().Create(t.Context(), repository.Repository{Name: name}, most)
			})
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else if !errors.Is(err, repository.ErrExists) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if won != 1 {
				t.Fatalf("%s: %d have made it", name, won)
			}
		}
	}
}

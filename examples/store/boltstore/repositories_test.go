package boltstore

import (
	"errors"
	"testing"
	"time"

	"github.com/wharfage/wharfage/repository"
)

func TestRepositoriesOutliveTheProcess(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	made := repository.Repository{Name: "team/app", CreatedAt: time.Now(), Settings: repository.Settings{TagMutability: "IMMUTABLE"}}
	if err := db.Repositories().Create(t.Context(), made, 1); err != nil {
		t.Fatal(err)
	}
	got, err := reopen(t, db).Repositories().Get(t.Context(), made.Name)
	if err != nil || !got.Equal(&made) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A row that cannot be read is neither a repository that is not there nor one
// with other settings, and is not written over.
func TestADamagedRepositoryIsAnError(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	s := db.Repositories()
	made := repository.Repository{Name: "team/app", CreatedAt: time.Now()}
	if err := s.Create(t.Context(), made, 0); err != nil {
		t.Fatal(err)
	}
	good, err := repositoryRow(&made)
	if err != nil {
		t.Fatal(err)
	}
	for what, row := range map[string][]byte{
		"empty":          {},
		"another form":   append([]byte{repositoryForm + 1}, good[1:]...),
		"cut":            good[:len(good)-1],
		"too long":       append(good[:len(good):len(good)], "{}"...),
		"a newer member": append(append([]byte{}, good[:len(good)-1]...), `,"newer":1}`...),
		"another's":      append([]byte{repositoryForm}, `{"repositoryName":"other"}`...),
	} {
		if err := db.update(t.Context(), func(tx *tx) error { tx.put(repositoryRows, []byte(made.Name), row); return nil }); err != nil {
			t.Fatal(err)
		}
		var listed error
		for _, err := range s.List(t.Context(), "") {
			listed = err
		}
		_, got := s.Get(t.Context(), made.Name)
		for op, err := range map[string]error{"Get": got, "List": listed, "Replace": s.Replace(t.Context(), made, nil)} {
			if !errors.Is(err, errRow) || errors.Is(err, repository.ErrNotFound) || errors.Is(err, repository.ErrConflict) {
				t.Errorf("%s: %s = %v", what, op, err)
			}
		}
		if err := s.Create(t.Context(), made, 0); !errors.Is(err, repository.ErrExists) {
			t.Errorf("%s: Create = %v, want ErrExists", what, err)
		}
	}
}

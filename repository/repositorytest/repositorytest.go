// Package repositorytest checks that a [repository.Store] keeps its contract. A
// store's test is a few lines:
//
//	repositorytest.TestStore(t, func(t testing.TB) repository.Store { return open(t) })
package repositorytest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/repository"
)

// TestStore checks a Store. Each subtest is named by the sentence it checks, and
// has an empty Store of its own, which open returns.
func TestStore(t *testing.T, open func(t testing.TB) repository.Store) {
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			c.check(&kit{T: t, s: open(t)})
		})
	}
}

type kit struct {
	*testing.T
	s repository.Store
}

// full returns a repository with every field set, which shares nothing.
func full(name string) repository.Repository {
	return repository.Repository{
		Name:      name,
		CreatedAt: time.Date(2026, 1, 1, 12, 0, 0, 123456000, time.UTC),
		Settings: repository.Settings{
			TagMutability:    "IMMUTABLE_WITH_EXCLUSION",
			TagMutabilityNot: []repository.TagFilter{{Type: "WILDCARD", Filter: "latest"}, {Type: "WILDCARD", Filter: "dev-*"}},
			LifecyclePolicy:  "{\"rules\":[\n]}",
			RepositoryPolicy: `{"a":"é\u0000"}`,
			Encryption:       repository.Encryption{Type: "KMS", KMSKey: "key"},
			ResourceTags:     []repository.ResourceTag{{Key: "team", Value: ""}, {Key: "a", Value: "b"}},
			Custom:           map[string]string{"": "empty", "k": "v"},
		},
	}
}

func (k *kit) create(names ...string) {
	k.Helper()
	for _, name := range names {
		if err := k.s.Create(k.Context(), full(name), 0); err != nil {
			k.Fatalf("Create of %s: %v", name, err)
		}
	}
}

// is checks that a repository is there as it should be.
func (k *kit) is(want repository.Repository) {
	k.Helper()
	got, err := k.s.Get(k.Context(), want.Name)
	k.same("Get", got, want, err)
}

func (k *kit) same(op string, got, want repository.Repository, err error) {
	k.Helper()
	if err != nil || !got.CreatedAt.Equal(want.CreatedAt) || got.Name != want.Name || !reflect.DeepEqual(got.Settings, want.Settings) {
		k.Errorf("%s of %s = %+v, %v, want %+v", op, want.Name, got, err, want)
	}
}

func (k *kit) fails(what string, err, want error) {
	k.Helper()
	if !errors.Is(err, want) {
		k.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (k *kit) names(after string) (names []string) {
	k.Helper()
	for r, err := range k.s.List(k.Context(), after) {
		if err != nil {
			k.Fatalf("List after %q: %v", after, err)
		}
		names = append(names, r.Name)
	}
	return names
}

var clauses = []struct {
	name  string
	check func(*kit)
}{
	{"what is not there is ErrNotFound", func(k *kit) {
		k.create("team/app")
		for _, name := range []string{"team", "team/ap", "team/app2"} {
			_, err := k.s.Get(k.Context(), name)
			k.fails("Get of "+name, err, repository.ErrNotFound)
			k.fails("Replace of "+name, k.s.Replace(k.Context(), full(name), nil), repository.ErrNotFound)
		}
	}},
	{"every field is kept", func(k *kit) {
		k.create("team/app")
		k.is(full("team/app"))
		plain := repository.Repository{Name: "plain", CreatedAt: full("").CreatedAt}
		if err := k.s.Create(k.Context(), plain, 0); err != nil {
			k.Fatal(err)
		}
		k.is(plain)
		for r, err := range k.s.List(k.Context(), "plain") {
			k.same("List", r, full("team/app"), err)
		}
	}},
	{"Create of what is there is ErrExists and changes nothing", func(k *kit) {
		k.create("team/app")
		k.fails("Create", k.s.Create(k.Context(), repository.Repository{Name: "team/app"}, 1), repository.ErrExists)
		k.is(full("team/app"))
	}},
	{"Create keeps to most", func(k *kit) {
		k.create("a", "b")
		for most := 1; most <= 2; most++ {
			err := k.s.Create(k.Context(), full("c"), most)
			if e, ok := errors.AsType[*repository.QuotaError](err); !ok || e.Quota != repository.QuotaRepositories || e.Limit != most {
				k.Errorf("Create with two there and a limit of %d: %v, want a *QuotaError", most, err)
			}
		}
		if got := k.names(""); !slices.Equal(got, []string{"a", "b"}) {
			k.Errorf("after refusals: %q", got)
		}
		if err := k.s.Create(k.Context(), full("c"), 3); err != nil {
			k.Error(err)
		}
	}},
	{"Replace needs the repository as it is", func(k *kit) {
		k.create("team/app")
		for i, change := range []func(r *repository.Repository){
			func(r *repository.Repository) { r.TagMutability = "" },
			func(r *repository.Repository) { r.TagMutabilityNot[1].Filter = "x" },
			func(r *repository.Repository) { r.LifecyclePolicy += " " },
			func(r *repository.Repository) { r.RepositoryPolicy = "" },
			func(r *repository.Repository) { r.Encryption.KMSKey = "" },
			func(r *repository.Repository) { slices.Reverse(r.ResourceTags) },
			func(r *repository.Repository) { r.Custom["k"] = "w" },
			func(r *repository.Repository) { r.CreatedAt = r.CreatedAt.Add(time.Second) },
		} {
			old, next := full("team/app"), repository.Repository{Name: "team/app"}
			change(&old)
			k.fails(fmt.Sprint("Replace ", i), k.s.Replace(k.Context(), old, &next), repository.ErrConflict)
			k.fails(fmt.Sprint("removal ", i), k.s.Replace(k.Context(), old, nil), repository.ErrConflict)
		}
		k.is(full("team/app"))
	}},
	{"Replace changes and removes one repository", func(k *kit) {
		k.create("team/app", "team/app2")
		next := full("team/app")
		next.TagMutability, next.Custom = "", nil
		if err := k.s.Replace(k.Context(), full("team/app"), &next); err != nil {
			k.Fatal(err)
		}
		k.is(next)
		k.is(full("team/app2"))
		if err := k.s.Replace(k.Context(), next, nil); err != nil {
			k.Fatal(err)
		}
		_, err := k.s.Get(k.Context(), "team/app")
		k.fails("Get of what was removed", err, repository.ErrNotFound)
		k.is(full("team/app2"))
		k.create("team/app")
	}},
	{"listings are in byte order and start after a name", func(k *kit) {
		k.create("b", "a/b", "a-b", "a0", "a_b", "a", "a.b")
		want := []string{"a", "a-b", "a.b", "a/b", "a0", "a_b", "b"}
		for i, after := range append([]string{""}, want...) {
			if got := k.names(after); !slices.Equal(got, want[i:]) {
				k.Errorf("after %q: %q, want %q", after, got, want[i:])
			}
		}
		if got := k.names("a/"); !slices.Equal(got, want[3:]) {
			k.Errorf("after a/: %q", got)
		}
	}},
	{"the body of a listing may stop it and may write", func(k *kit) {
		var want []string
		for i := range 300 {
			want = append(want, fmt.Sprintf("r%03d", i))
		}
		k.create(want...)
		for range k.s.List(k.Context(), "") {
			break
		}
		var got []string
		for r, err := range k.s.List(k.Context(), "") {
			if err != nil {
				k.Fatal(err)
			}
			if err := k.s.Replace(k.Context(), full(r.Name), nil); err != nil {
				k.Fatal(err)
			}
			got = append(got, r.Name)
		}
		if !slices.Equal(got, want) || k.names("") != nil {
			k.Errorf("listed %d of 300 while removing them", len(got))
		}
	}},
	{"results and arguments are their owners'", func(k *kit) {
		in := full("team/app")
		if err := k.s.Create(k.Context(), in, 0); err != nil {
			k.Fatal(err)
		}
		spoil := func(r repository.Repository) {
			r.TagMutabilityNot[0].Filter, r.ResourceTags[0].Key, r.Custom["k"] = "x", "x", "x"
		}
		spoil(in)
		k.is(full("team/app"))
		got, _ := k.s.Get(k.Context(), "team/app")
		spoil(got)
		k.is(full("team/app"))
		for r := range k.s.List(k.Context(), "") {
			spoil(r)
		}
		k.is(full("team/app"))
		next := full("team/app")
		if err := k.s.Replace(k.Context(), full("team/app"), &next); err != nil {
			k.Fatal(err)
		}
		spoil(next)
		k.is(full("team/app"))
	}},
	{"an ended context is an error and never an empty answer", func(k *kit) {
		k.create("team/app")
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		_, err := k.s.Get(ctx, "team/app")
		k.fails("Get", err, context.Canceled)
		k.fails("Create", k.s.Create(ctx, full("b"), 0), context.Canceled)
		k.fails("Replace", k.s.Replace(ctx, full("team/app"), nil), context.Canceled)
		var last error
		for _, err := range k.s.List(ctx, "") {
			last = err
		}
		k.fails("List", last, context.Canceled)
		if got := k.names(""); !slices.Equal(got, []string{"team/app"}) {
			k.Errorf("afterwards: %q", got)
		}
	}},
	{"of racing changes one wins", func(k *kit) {
		for round := range 30 {
			base := fmt.Sprintf("r%02d/", round)
			wins := k.race(func(i int) error { return k.s.Create(k.Context(), full(base+"same"), 0) }, repository.ErrExists)
			if len(wins) != 1 {
				k.Fatalf("%d callers created one repository", len(wins))
			}
			wins = k.race(func(i int) error {
				next := full(base + "same")
				next.Custom["k"] = fmt.Sprint(i)
				return k.s.Replace(k.Context(), full(next.Name), &next)
			}, repository.ErrConflict)
			if len(wins) != 1 {
				k.Fatalf("%d callers replaced the same settings", len(wins))
			}
			want := full(base + "same")
			want.Custom["k"] = fmt.Sprint(wins[0])
			k.is(want)
			most := len(k.names("")) + 3
			if wins = k.race(func(i int) error { return k.s.Create(k.Context(), full(base+fmt.Sprint(i)), most) }, repository.ErrQuota); len(wins) != 3 {
				k.Fatalf("%d callers created the last three repositories", len(wins))
			}
		}
	}},
}

// race lets callers go at once, and returns those that succeed; the others are
// to fail with lost.
func (k *kit) race(f func(i int) error, lost error) (wins []int) {
	k.Helper()
	const callers = 8
	var errs [callers]error
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range errs {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	for i, err := range errs {
		if err == nil {
			wins = append(wins, i)
		} else {
			k.fails("a racing caller", err, lost)
		}
	}
	return wins
}

package lifecycletest

import (
	"context"
	_ "crypto/sha512" // for digest.SHA512
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

var clauses = []clause{
	{"of several pulls of one digest the latest counts, whatever order they come in", func(k *kit) {
		a, b := image("a"), image("b")
		orders := [][]int{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}, {3, 3, 1, 1}}
		for i, order := range orders {
			base := 100 * i // each is later than all before it
			for _, n := range order {
				k.touch(at(a, base+n), at(b, base+10-n))
			}
			k.are(repo, "", inOrder([]lifecycle.Pull{at(a, base+3), at(b, base+9)})...)
		}
		for i, order := range orders {
			base := 1000 + 100*i
			var call []lifecycle.Pull
			for _, n := range order {
				call = append(call, at(a, base+n), at(b, base+10-n))
			}
			k.touch(call...)
			k.are(repo, "", inOrder([]lifecycle.Pull{at(a, base+3), at(b, base+9)})...)
		}
	}},
	{"the same pull again changes nothing", func(k *kit) {
		want := k.some(5)
		for range 3 {
			k.touch(want...)
			k.touch(want[2], want[2])
			k.are(repo, "", want...)
		}
	}},
	{"a last pull never goes back", func(k *kit) {
		a := image("a")
		k.touch(at(a, 10))
		for _, s := range []int{9, 0, -86400, -10 * 365 * 86400} {
			k.touch(at(a, s))
			k.are(repo, "", at(a, 10))
		}
		k.touch(at(a, 11))
		k.are(repo, "", at(a, 11))
	}},
	{"times are kept to the second, and never get later by it", func(k *kit) {
		for i, fraction := range []time.Duration{0, 1, 499_999_999, 500_000_000, 999_999_999} {
			p := at(image("a"), i)
			p.At = p.At.Add(fraction)
			k.touch(p)
			got := k.pulls(repo, "")
			if len(got) != 1 || got[0].At.After(p.At) || p.At.Sub(got[0].At) >= time.Second {
				k.Fatalf("Pulls after a pull at %v lists %v", p.At, got)
			}
		}
	}},
	{"a time is an instant, whatever its zone", func(k *kit) {
		a := image("a")
		for i, zone := range []*time.Location{time.FixedZone("east", 9*3600), time.FixedZone("west", -8*3600), time.UTC} {
			p := at(a, i)
			k.touch(lifecycle.Pull{Digest: a, At: p.At.In(zone)})
			k.are(repo, "", p)
		}
	}},
	{"a zero time is no pull", func(k *kit) {
		a, b := image("a"), image("b")
		k.touch(at(a, 1))
		k.touch(lifecycle.Pull{Digest: a}, lifecycle.Pull{Digest: b})
		k.are(repo, "", at(a, 1))
	}},
	{"an empty call is a success", func(k *kit) {
		k.touch()
		k.are(repo, "")
	}},
	{"pulls is not written to", func(k *kit) {
		given := []lifecycle.Pull{at(image("2"), 2), at(image("1"), 1), at(image("2"), 3), at(image("0"), 0)}
		want := slices.Clone(given)
		k.touch(given...)
		if !slices.Equal(given, want) {
			k.Errorf("Touch made %v of %v", given, want)
		}
	}},
	{"pulls are listed by digest in byte order, after the given one", func(k *kit) {
		var want []lifecycle.Pull
		for i := range 40 {
			dgst := image(fmt.Sprint(i))
			if i%4 == 0 {
				dgst = digest.SHA512.FromString(fmt.Sprint(i))
			}
			want = append(want, at(dgst, i))
		}
		k.touch(want...)
		want = inOrder(want)
		k.are(repo, "", want...)
		for i, p := range want {
			k.are(repo, p.Digest, want[i+1:]...)
			k.are(repo, p.Digest[:len(p.Digest)-1], want[i:]...) // just before it, and nobody's
		}
		k.are(repo, "sha256:", want...)
		k.are(repo, "sha512:", want[30:]...)
		k.are(repo, "t")
	}},
	{"a long listing is whole", func(k *kit) {
		k.are(repo, "", k.some(2100)...)
	}},
	{"a listing ends when the loop does", func(k *kit) {
		want := k.some(10)
		n := 0
		for p, err := range k.s.Pulls(k.Context(), repo, want[1].Digest) {
			if err != nil {
				k.Fatal(err)
			}
			if p.Digest != want[2+n].Digest {
				k.Errorf("pull %d is of %s, want %s", n, p.Digest, want[2+n].Digest)
			}
			if n++; n == 3 {
				break
			}
		}
		k.are(repo, "", want...)
	}},
	{"the loop body may record and list", func(k *kit) {
		want := k.some(30)
		k.inTime(func(ctx context.Context) error {
			seen := 0
			for p, err := range k.s.Pulls(ctx, repo, "") {
				if err != nil {
					return err
				}
				if i := slices.IndexFunc(want, func(w lifecycle.Pull) bool { return w.Digest == p.Digest }); i >= 0 {
					seen++
				}
				p.At = p.At.Add(time.Hour)
				if err := k.s.Touch(ctx, repo, []lifecycle.Pull{p}); err != nil {
					return err
				}
				if err := k.s.Touch(ctx, otherRepo, []lifecycle.Pull{p}); err != nil {
					return err
				}
				for _, err := range k.s.Pulls(ctx, otherRepo, "") {
					if err != nil {
						return err
					}
				}
				if _, err := k.s.Since(ctx, repo); err != nil {
					return err
				}
			}
			if seen != len(want) {
				return fmt.Errorf("lists %d of %d", seen, len(want))
			}
			return nil
		})
		for i := range want {
			want[i].At = want[i].At.Add(time.Hour)
		}
		k.are(repo, "", want...)
		k.are(otherRepo, "", want...)
	}},
	{"repositories do not share pulls", func(k *kit) {
		want := k.some(5)
		for _, other := range []string{otherRepo, "team", "team/ap", "team/app/sub", "unknown"} {
			k.are(other, "")
		}
		theirs := at(want[0].Digest, 1000)
		if err := k.s.Touch(k.Context(), otherRepo, []lifecycle.Pull{theirs}); err != nil {
			k.Fatal(err)
		}
		k.are(repo, "", want...)
		k.are(otherRepo, "", theirs)
	}},
	{"Since is the time of the making, and stays the same", func(k *kit) {
		since := func(repo string) time.Time {
			k.Helper()
			got, err := k.s.Since(k.Context(), repo)
			if err != nil || got.IsZero() {
				k.Fatalf("Since = %v, %v, want a time", got, err)
			}
			return got
		}
		first := since(repo)
		if got := since("unknown"); !got.Equal(first) {
			k.Errorf("Since of a repository without pulls is %v, want %v", got, first)
		}
		k.touch(at(image("a"), -86400), lifecycle.Pull{Digest: image("b"), At: first.AddDate(1, 0, 0)})
		for _, repo := range []string{repo, otherRepo} {
			if got := since(repo); !got.Equal(first) {
				k.Errorf("Since is %v after pulls were recorded, was %v", got, first)
			}
		}
	}},
	{"pulls that come at once all count", func(k *kit) {
		const goroutines, images = 8, 12
		for round := range rounds {
			base := 1000 * round
			want := make([]lifecycle.Pull, images)
			for i := range want {
				want[i] = at(image(fmt.Sprint(i)), base+i+goroutines-1)
			}
			err := atOnce(goroutines, func(g int) error {
				var pulls []lifecycle.Pull
				for n := range images {
					i := n
					if g%2 == 1 {
						i = images - 1 - n // rows that are locked in this order, and in that
					}
					pulls = append(pulls, at(image(fmt.Sprint(i)), base+i+(g+i)%goroutines))
				}
				return k.s.Touch(k.Context(), repo, pulls)
			})
			if err != nil {
				k.Fatalf("round %d: %v", round, err)
			}
			k.are(repo, "", inOrder(want)...)
		}
	}},
	{"an ended ctx is refused with its error", func(k *kit) {
		want := k.some(3)
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		if err := k.s.Touch(ctx, repo, []lifecycle.Pull{at(want[0].Digest, 1000), at(image("new"), 1)}); !errors.Is(err, context.Canceled) {
			k.Errorf("Touch = %v, want context.Canceled", err)
		}
		if _, err := k.s.Since(ctx, repo); !errors.Is(err, context.Canceled) {
			k.Errorf("Since = %v, want context.Canceled", err)
		}
		cancelled(k, "Pulls", k.s.Pulls(ctx, repo, ""))
		cancelled(k, "Pulls of an unknown repository", k.s.Pulls(ctx, "unknown", ""))
		k.are(repo, "", want...)
	}},
	{"a listing that is cancelled under way is whole or ends in ctx's error", func(k *kit) {
		const n = 2100
		k.some(n)
		ctx, cancel := context.WithCancel(k.Context())
		defer cancel()
		got := 0
		for _, err := range k.s.Pulls(ctx, repo, "") {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					k.Errorf("Pulls ends with %v, want context.Canceled", err)
				}
				return
			}
			cancel()
			got++
		}
		if got != n {
			k.Errorf("Pulls ends after %d of %d without an error", got, n)
		}
	}},
}

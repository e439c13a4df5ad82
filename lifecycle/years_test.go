package lifecycle_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	. "github.com/wharfage/wharfage/lifecycle/lifecycletest"
)

// TestTenYears runs a busy repository for ten years with a pass a day, and checks
// after each what no pass may do.
func TestTenYears(t *testing.T) {
	const releases, candidates = 20, 30
	p := policy(t, fmt.Sprint("1 expire release-* count ", releases), "2 transition ^base- pulled 60", fmt.Sprint("3 expire rc-* count ", candidates), "4 expire ^pr- pushed 14",
		"5 expire untagged pushed 7", "6 expire any archived 120")
	r := &Repository{Policy: p}
	rnd := rand.New(rand.NewPCG(10, 20))
	var expired, moved, restored, most int
	serial := 0
	name := func(kind string) string { serial++; return fmt.Sprint(kind, serial) }
	for day := range 3650 {
		r.Now = DaysLater(day).Add(time.Duration(rnd.IntN(3600)) * time.Second)
		// A day's work: a multi-platform build with its signature, branches, a moved tag.
		a, b := Untagged(name("part"), Bytes(70)), Untagged(name("part"), Bytes(80))
		build := Image(name("pr-"), Lists(a, b), Tags("latest"), Bytes(1))
		switch {
		case day%10 == 0:
			build = Image(name("release-"), Lists(a, b), Bytes(1))
		case day%4 == 0:
			build = Image(name("rc-"), Lists(a, b), Bytes(1))
		}
		sbom := Untagged(name("sbom"), RefersTo(build), Bytes(9))
		r.Push(a, b, build, sbom, Untagged(name("signature"), RefersTo(sbom), Bytes(2)), Untagged(name("part-signature"), RefersTo(a)))
		if day%30 == 0 {
			r.Push(Image(name("base-"), Bytes(500)))
		}
		for i := range r.Images {
			switch im := &r.Images[i]; {
			case rnd.IntN(200) == 0 && im.StorageClass != lifecycle.Archive:
				im.PulledAt = r.Now
			case rnd.IntN(500) == 0 && im.StorageClass == lifecycle.Archive:
				im.StorageClass, im.RestoredAt = lifecycle.Standard, r.Now
				restored++
			}
		}
		before := r.Images
		plan := r.Pass()
		checkPass(t, plan, before, r.Images)
		if t.Failed() {
			t.Fatalf("day %d", day)
		}
		s := plan.Summary()
		expired, moved, most = expired+s.Expiring+s.Following, moved+s.Transitioning, max(most, len(r.Images))
		if n := withPrefix(r.Images, "release-"); n > releases || day > 300 && n != releases {
			t.Fatalf("day %d: %d releases are left", day, n)
		}
		if n := withPrefix(r.Images, "rc-"); n > candidates {
			t.Fatalf("day %d: %d candidates are left", day, n)
		}
		// Nothing happens twice: what is due is done, but for children and the chains
		// below them, which a pass leaves to the next.
		if day%50 == 0 {
			settled := &Repository{Policy: p, Images: slices.Clone(r.Images), Now: r.Now}
			for range 4 {
				settled.Pass()
			}
			if again := settled.Pass(); len(again.Order()) > 0 {
				t.Fatalf("day %d: passes at one instant do not end: %s", day, again.Summary())
			}
		}
	}
	if expired < 15_000 || moved < 100 || restored < 3 || most > 3000 {
		t.Errorf("%d expired, %d moved, %d restored, at most %d images: not the years that were meant", expired, moved, restored, most)
	}
}

func withPrefix(images []lifecycle.Image, prefix string) (n int) {
	for _, im := range images {
		if slices.ContainsFunc(im.Tags, func(tag string) bool { return len(tag) > len(prefix) && tag[:len(prefix)] == prefix }) {
			n++
		}
	}
	return n
}

// checkPass: no child goes before its index, no referrer while its subject stays,
// nothing young, nothing that no rule is about; and what is left is as it was.
func checkPass(t *testing.T, plan *lifecycle.Plan, before, after []lifecycle.Image) {
	t.Helper()
	had, has := byDigest(before), byDigest(after)
	if plan.Len() != len(before) {
		t.Errorf("%d verdicts for %d images", plan.Len(), len(before))
	}
	for v := range plan.Verdicts() {
		d := v.Image.Digest
		left, stays := has[d]
		if stays == (v.Action == lifecycle.Expire) {
			t.Errorf("%s is there: %v; %s", d, stays, v)
		}
		if v.Action == lifecycle.Keep && left.StorageClass != v.Image.StorageClass {
			t.Errorf("%s changed its class: %s", d, v)
		}
		if v.Action != lifecycle.Expire {
			for _, child := range v.Image.Manifests {
				if _, was := had[child]; was {
					if _, is := has[child]; !is {
						t.Errorf("%s went before %s, which lists it", child, d)
					}
				}
			}
			continue
		}
		if plan.Now().Sub(v.Image.PushedAt) < 24*time.Hour && v.Via == lifecycle.ViaSubject {
			t.Errorf("%s is young: %s", d, v)
		}
		if s := v.Image.Subject; s != "" {
			if _, is := has[s]; is && v.Subject == s {
				t.Errorf("%s went before its subject: %s", d, v)
			}
		} else if v.Rule == 0 || v.Rule != v.Owner {
			t.Errorf("%s goes by no rule: %s", d, v)
		}
	}
}

func byDigest(images []lifecycle.Image) map[digest.Digest]lifecycle.Image {
	out := make(map[digest.Digest]lifecycle.Image, len(images))
	for _, im := range images {
		out[im.Digest] = im
	}
	return out
}

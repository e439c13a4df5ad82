package lifecycletest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wharfage/wharfage/lifecycle"
)

// NeverExpires looks for a repository in which policy deletes an image that safe
// names. It tries many, always the same ones: made of images with the tags and the
// storage class of those in like, of all ages, with and without pulls, and up to a
// thousand of them, so that a rule which keeps more never acts. safe gets an image,
// and the repository that it is in. What is found is made as small as it gets, and
// fails the test with its plan.
func NeverExpires(t testing.TB, policy *lifecycle.Policy, safe func(im *lifecycle.Image, all []lifecycle.Image) bool, like ...lifecycle.Image) {
	t.Helper()
	if len(like) == 0 {
		t.Fatal("NeverExpires needs an image to make others like it")
	}
	const rounds, most = 2000, 200_000 // repositories, and images in all of them
	rnd := rand.New(rand.NewPCG(1, 1))
	saw := false
	wrong := func(images []lifecycle.Image) bool {
		plan := lifecycle.Evaluate(policy, images, noon)
		for i := range images {
			if safe(&images[i], images) {
				saw = true
				if plan.Action(i) == lifecycle.Expire {
					return true
				}
			}
		}
		return false
	}
	for n, tried := 0, 0; n < rounds && tried < most; n++ {
		images := repositoryLike(rnd, policy, like)
		tried += len(images)
		if !wrong(images) {
			continue
		}
		for i := 0; i < len(images); {
			if less := slices.Delete(slices.Clone(images), i, i+1); wrong(less) {
				images = less
			} else {
				i++
			}
		}
		t.Errorf("the policy expires what it must not:\n%s", lifecycle.Evaluate(policy, images, noon))
		return
	}
	if !saw {
		t.Error("no image was one that must stay: the test tests nothing")
	}
}

// repositoryLike makes a random repository, whose ages are around those that the
// rules of policy speak of, and whose size is below or above one of their numbers.
func repositoryLike(rnd *rand.Rand, policy *lifecycle.Policy, like []lifecycle.Image) []lifecycle.Image {
	ages := []int64{0, 1, 1000}
	sizes := []int{3}
	for _, r := range policy.Rules() {
		n := min(r.Selection.CountNumber, 100_000)
		if r.Selection.CountType == lifecycle.ImageCountMoreThan {
			sizes = append(sizes, int(min(n, 1000))+3)
		} else {
			ages = append(ages, n-1, n, n+1, 2*n)
		}
	}
	ago := func() time.Time {
		day := 24 * time.Hour
		return noon.Add(-time.Duration(ages[rnd.IntN(len(ages))])*day - time.Duration(rnd.Int64N(int64(day))))
	}
	images := make([]lifecycle.Image, 1+rnd.IntN(sizes[rnd.IntN(len(sizes))]))
	for i := range images {
		im := like[rnd.IntN(len(like))]
		im.Digest = Digest(string(rune('a' + i)))
		im.PushedAt, im.PulledAt, im.RestoredAt = ago(), time.Time{}, time.Time{}
		if rnd.IntN(2) == 0 {
			im.PulledAt = ago()
		}
		if im.StorageClass == lifecycle.Archive {
			im.ArchivedAt = ago()
		}
		im.Subject, im.Manifests = "", nil
		images[i] = im
	}
	return images
}

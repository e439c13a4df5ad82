// Package policytest shows how a service tests its lifecycle policy: policy.json
// is what it deploys, and this file what it promises.
package policytest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wharfage/wharfage/lifecycle"
	. "github.com/wharfage/wharfage/lifecycle/lifecycletest"
)

func TestPolicyIsWhatWeMean(t *testing.T) {
	for _, w := range PolicyFile(t, "policy.json").Warnings() {
		t.Error(w)
	}
}

func TestPullRequestsLiveTwoWeeks(t *testing.T) {
	policy := PolicyFile(t, "policy.json")
	images := []lifecycle.Image{
		Image("pr-1", PushedDaysAgo(15)),
		Image("pr-2", PushedDaysAgo(14)),              // not more than two weeks
		Image("pr-3", PushedDaysAgo(15), Tags("fix")), // all tags of an image go with it
		Image("main", PushedDaysAgo(400)),             // no rule is about it
	}
	Expect(t, policy, images, Now(), Expires(20, "pr-1", "pr-3"))
	Expect(t, policy, images, DaysLater(1), Expires(20, "pr-1", "pr-2", "pr-3"))
}

func TestAReleaseGoesWithItsSignature(t *testing.T) {
	var images []lifecycle.Image
	for n := range 21 {
		images = append(images, Image(fmt.Sprint("v1.", n), PushedDaysAgo(30-n)))
	}
	oldest := images[0]
	images = append(images,
		Untagged("signature", PushedDaysAgo(30), RefersTo(oldest)),
		Untagged("platform", PushedDaysAgo(30)),
	)
	images[20].Manifests = append(images[20].Manifests, Digest("platform")) // of the newest release
	Expect(t, PolicyFile(t, "policy.json"), images, Now(),
		Expires(10, "v1.0"),
		Follows("signature"),
		Keeps(lifecycle.ReasonListed, "platform"))
}

func TestWhatRunsInProductionStays(t *testing.T) {
	policy := PolicyFile(t, "policy.json")
	inProduction := func(im *lifecycle.Image, _ []lifecycle.Image) bool { return slices.Contains(im.Tags, "production") }
	NeverExpires(t, policy, inProduction, Image("main", Tags("production")), Image("main"), Image("v1"))
}

func TestTheNewestReleaseStays(t *testing.T) {
	newest := func(im *lifecycle.Image, all []lifecycle.Image) bool {
		isRelease := func(im *lifecycle.Image) bool { return len(im.Tags) > 0 && strings.HasPrefix(im.Tags[0], "v") }
		return isRelease(im) && !slices.ContainsFunc(all, func(o lifecycle.Image) bool { return isRelease(&o) && o.PushedAt.After(im.PushedAt) })
	}
	NeverExpires(t, PolicyFile(t, "policy.json"), newest, Image("v1"), Image("main"), Untagged("x"))
}

// A year in which a release is pushed each week, and a build each day.
func TestTheRepositoryStaysSmall(t *testing.T) {
	r := &Repository{Policy: PolicyFile(t, "policy.json")}
	for day := range 365 {
		if day%7 == 0 {
			r.Push(Image(fmt.Sprint("v", day)))
		}
		r.Push(Image(fmt.Sprint("pr-", day)))
		r.Wait(1)
	}
	if n := len(r.Images); n > 20+15 {
		t.Errorf("%d images are left: %v", n, r.Names())
	}
}

// What does not fit in a line is a file.
func TestScenarios(t *testing.T) { Scenarios(t, "testdata/*.txtar") }

// A change of the policy is reviewed by what it does.
func TestFewerReleasesWouldDeleteTwo(t *testing.T) {
	policy := PolicyFile(t, "policy.json")
	rules := policy.Rules()
	rules[0].Selection.CountNumber = 1
	stricter, err := lifecycle.New(rules...)
	if err != nil {
		t.Fatal(err)
	}
	images := []lifecycle.Image{Image("v1", PushedDaysAgo(3)), Image("v2", PushedDaysAgo(2)), Image("v3")}
	diff := lifecycle.Diff(lifecycle.Evaluate(policy, images, Now()), lifecycle.Evaluate(stricter, images, Now()))
	if len(diff.Deleted) != 2 || len(diff.Spared) != 0 {
		t.Errorf("it changes more than was meant:\n%s", diff)
	}
}

package lifecycletest_test

import (
	"fmt"
	"testing"

	"github.com/wharfage/wharfage/lifecycle"
	. "github.com/wharfage/wharfage/lifecycle/lifecycletest"
)

// t stands for the *testing.T of a test, and prints how it fails.
var t testing.TB = printer{}

type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatalf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatal(args ...any)                 { fmt.Println(args...) }

const keepTwo = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}]}`

// In a test that fails, the difference names the rules.
func ExampleExpect() {
	policy := Policy(t, keepTwo)
	images := []lifecycle.Image{
		Image("v1", PushedDaysAgo(40)),
		Image("v2", PushedDaysAgo(3)),
		Image("v3"),
		Image("main", PushedDaysAgo(90)),
	}
	Expect(t, policy, images, Now(), Expires(1, "v1")) // as it is: no word
	Expect(t, policy, images, Now(), Expires(1, "v1", "main"))
	// Output:
	// at 2026-01-01T12:00:00Z the plan is not as expected:
	//   main
	//     want expire by rule 1
	//     got  main sha256:0d6e4079e367: keep: no rule is about it
	//          rule 1 does not see it: no tag matches "v*"
}

// A faulty policy ends the test.
func ExamplePolicy() {
	Policy(t, `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":0},"action":{"type":"expire"}}]}`)
	// Output:
	// the policy is not valid:
	//   /rules/0/selection/countNumber: count_number: is 0, allowed is: an integer of 1 or more, without fraction and exponent
}

func ExampleImage() {
	part := Untagged("amd64", PushedDaysAgo(3))
	index := Image("v1", Tags("stable"), PushedDaysAgo(3), PulledDaysAgo(1), Lists(part))
	signature := Untagged("signature", RefersTo(index))
	fmt.Println(index.Tags, index.PushedAt.Format("2 Jan 2006"), len(index.Manifests), signature.Subject == index.Digest)
	// Output: [v1 stable] 29 Dec 2025 1 true
}

// Days go by, with a pass at the end of each.
func ExampleRepository() {
	r := &Repository{Policy: Policy(t, keepTwo)}
	for _, tag := range []string{"v1", "v2", "v3", "v4"} {
		r.Push(Image(tag))
		r.Wait(7)
	}
	fmt.Println(r.Names(), r.Now.Format("2 Jan 2006"))
	// Output: [v3 v4] 29 Jan 2026
}

// A search for a repository in which the policy deletes what it must not.
func ExampleNeverExpires() {
	inProduction := func(im *lifecycle.Image, _ []lifecycle.Image) bool { return len(im.Tags) > 1 }
	NeverExpires(t, Policy(t, keepTwo), inProduction, Image("main", Tags("prod"))) // never: no word
	NeverExpires(t, Policy(t, keepTwo), inProduction, Image("v1", Tags("prod")), Image("v1"))
	// Output:
	// the policy expires what it must not:
	// At 2026-01-01T12:00:00Z: 3 images, 1 to expire
	// v1,prod sha256:18ac3e7343f0  expire: rule 1 keeps the 2 newest of images tagged v*, and this is number 3 of 3
	// v1,prod sha256:2e7d2c03a950  keep: rule 1 keeps the 2 newest of images tagged v*, and this is number 1 of 3
	// v1 sha256:3f79bb7b435b       keep: rule 1 keeps the 2 newest of images tagged v*, and this is number 2 of 3
}

// Scenarios reads such texts from files.
func ExampleScenario() {
	Scenario(t, `Two releases are kept.
-- policy --
{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}]}
-- images --
v1    pushed=40d
v2    pushed=3d
v3    pushed=1d
sbom  tags= pushed=40d subject=v1
-- want --
expire 1 v1
keep any sbom
`)
	// Output:
	// Two releases are kept.
	// want: the plan is not as expected:
	//   sbom
	//     want keep
	//     got  sha256:98f3ae1ef671: expire: it follows its subject sha256:3bfc269594ef, which expires
	//          rule 1 does not see it: a referrer follows its subject
}

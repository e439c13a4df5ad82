package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

const keepTwo = `{"rules":[
	{"rulePriority":1,"description":"two releases","selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}},
	{"rulePriority":2,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}`

// repository is what the examples look at, at noon of the first day of 2026.
func repository() (images []lifecycle.Image, now time.Time) {
	now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for i, tag := range []string{"v1", "v2", "v3", "main", ""} {
		im := lifecycle.Image{Digest: digest.FromString(fmt.Sprint(i)), PushedAt: now.AddDate(0, 0, 5*i-30), Size: 100}
		if tag != "" {
			im.Tags = []string{tag}
		}
		images = append(images, im)
	}
	images[4].Subject = images[0].Digest // a signature of v1
	return images, now
}

// The shortest complete use.
func Example() {
	policy, err := lifecycle.Parse(keepTwo)
	if err != nil {
		fmt.Println(err)
		return
	}
	images, now := repository()
	fmt.Print(lifecycle.Evaluate(policy, images, now))
	// Output:
	// At 2026-01-01T12:00:00Z: 5 images, 2 to expire, 1 to follow
	// v1 sha256:5feceb66ffc8    expire: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 3 of 3; rule 2 would see it too, but only the first may act
	// main sha256:4e07408562be  expire: rule 2 is for any image pushed more than 14 days ago, and this one was pushed 15 days ago
	// sha256:4b227777d4dd       expire: it follows its subject sha256:5feceb66ffc8, which expires
	// v2 sha256:6b86b273ff34    keep: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 2 of 3; rule 2 would see it too, but only the first may act
	// v3 sha256:d4735e3a265e    keep: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 1 of 3; rule 2 would see it too, but only the first may act
}

// All faults of a policy are reported.
func ExampleParse() {
	_, err := lifecycle.Parse(`{"rules":[{"rulePriority":0,"selection":{"tagStatus":"tagged","countType":"imageCountMoreThan","countNumber":3},"action":{"type":"delete"}}]}`)
	var invalid *lifecycle.InvalidError
	if errors.As(err, &invalid) {
		for _, f := range invalid.Fields {
			fmt.Println(f.Category, "at", f.Pointer)
		}
		fmt.Println(invalid.Fields[0])
	}
	// Output:
	// rule_priority at /rules/0/rulePriority
	// tag_list_required at /rules/0/selection
	// action_type at /rules/0/action/type
	// /rules/0/rulePriority: rule_priority: is 0, allowed is: an integer of 1 or more, without fraction and exponent
}

// Policies can be made of Go values, by the same checks.
func ExampleNew() {
	policy, err := lifecycle.New(lifecycle.Rule{
		Priority: 1,
		Selection: lifecycle.Selection{
			TagStatus: lifecycle.Untagged, CountType: lifecycle.SinceImagePushed, CountUnit: "days", CountNumber: 7,
		},
		Action: lifecycle.Action{Type: lifecycle.Expire},
	})
	fmt.Println(policy, err)
	// Output:
	// {"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":7},"action":{"type":"expire"}}]} <nil>
}

func ExampleEvaluate() {
	policy, _ := lifecycle.Parse(keepTwo)
	images, now := repository()
	plan := lifecycle.Evaluate(policy, images, now)
	for v := range plan.Verdicts() {
		fmt.Println(v.Action, v.Rule, v.Reason)
	}
	// Output:
	// expire 1 due
	// keep 0 within-count
	// keep 0 within-count
	// expire 2 due
	// expire 0 subject-goes
}

// Terraform takes these for the same policy.
func ExamplePolicy_Equal() {
	a, _ := lifecycle.Parse(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPrefixList":["a","b"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)
	b, _ := lifecycle.Parse(`{"rules":[{"action":{"type":"expire"},"rulePriority":1,"selection":{"countNumber":1,"countType":"imageCountMoreThan","tagPatternList":[],"tagPrefixList":["b","a"],"tagStatus":"tagged"}}]}`)
	fmt.Println(a.Equal(b))
	// Output: true
}

func ExamplePolicy_Warnings() {
	policy, _ := lifecycle.Parse(`{"rules":[
		{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}},
		{"rulePriority":2,"selection":{"tagStatus":"tagged","tagPrefixList":["v1."],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}},
		{"rulePriority":3,"selection":{"tagStatus":"tagged","tagPatternList":["dev-*","test-*"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)
	for _, w := range policy.Warnings() {
		fmt.Println(w)
	}
	// Output:
	// rule 2: it never acts: rule 1 owns all images that it is about
	// rule 3: an image needs a tag for "dev-*" and another for "test-*"; for images with either, make two rules
}

// A registry that has counted pulls since yesterday cannot know that an image
// was not pulled for a month.
func ExamplePolicy_With() {
	policy, _ := lifecycle.Parse(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":20},
		"action":{"type":"transition","targetStorageClass":"archive"}}]}`)
	images, now := repository()
	policy, err := policy.With(lifecycle.Options{PullsSince: now.AddDate(0, 0, -1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lifecycle.Evaluate(policy, images, now).Verdict(0))
	// Output:
	// keep: rule 1 is for any image last pulled more than 20 days ago, but pulls are only known since 2025-12-31T12:00:00Z
}

// What runs in production stays, and so do the two newest builds, however old.
func ExamplePolicy_Extend() {
	policy, _ := lifecycle.Parse(keepTwo)
	policy, err := policy.Extend(lifecycle.Extensions{
		Keep: []lifecycle.KeepRule{{Name: "newest builds", Newest: 2, TagPatterns: []string{"main*"}}},
		InUse: func(im *lifecycle.Image) string {
			if im.Digest == digest.FromString("0") {
				return "service web"
			}
			return ""
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	images, now := repository()
	plan := lifecycle.Evaluate(policy, images, now)
	fmt.Println(plan.Verdict(0).Reason, "by", plan.Verdict(0).By)
	fmt.Println(plan.Verdict(3))
	// Output:
	// in-use by service web
	// keep: rule 2 would expire it, but the keep rule "newest builds" names it
}

// What tools of ECR expect.
func ExamplePlan_Preview() {
	policy, _ := lifecycle.Parse(keepTwo)
	images, now := repository()
	preview := lifecycle.Evaluate(policy, images, now).Preview()
	text, _ := json.MarshalIndent(preview.Results[0], "", "  ")
	fmt.Println(string(text))
	text, _ = json.Marshal(preview.Summary)
	fmt.Println(string(text))
	// Output:
	// {
	//   "imageTags": [
	//     "v1"
	//   ],
	//   "imageDigest": "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
	//   "imagePushedAt": 1764676800,
	//   "storageClass": "STANDARD",
	//   "action": {
	//     "type": "EXPIRE"
	//   },
	//   "appliedRulePriority": 1
	// }
	// {"expiringImageTotalCount":2}
}

func ExampleVerdict_MarshalJSON() {
	policy, _ := lifecycle.Parse(keepTwo)
	images, now := repository()
	text, _ := json.MarshalIndent(lifecycle.Evaluate(policy, images, now).Verdict(0), "", "  ")
	fmt.Println(string(text))
	// Output:
	// {
	//   "digest": "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
	//   "tags": [
	//     "v1"
	//   ],
	//   "action": "expire",
	//   "via": "rule",
	//   "rule": 1,
	//   "reason": "due",
	//   "why": "expire: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 3 of 3; rule 2 would see it too, but only the first may act",
	//   "owner": 1,
	//   "also": [
	//     2
	//   ],
	//   "rank": 3,
	//   "count": 3
	// }
}

// What the repository looks like when the plan was carried out.
func ExamplePlan_Outcome() {
	policy, _ := lifecycle.Parse(keepTwo)
	images, now := repository()
	for _, im := range lifecycle.Evaluate(policy, images, now).Outcome() {
		fmt.Println(im.Tags)
	}
	// Output:
	// [v2]
	// [v3]
}

// Why one image is treated as it is, with the view of each rule.
func ExampleExplain() {
	policy, _ := lifecycle.Parse(keepTwo)
	images, now := repository()
	plan := lifecycle.Evaluate(policy, images, now)
	for _, ref := range []string{"v2", "main", "latest"} {
		explanation, err := lifecycle.Explain(plan, ref)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Print(explanation)
	}
	// Output:
	// v2 sha256:6b86b273ff34: keep: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 2 of 3; rule 2 would see it too, but only the first may act
	//   rule 1 sees it, not as due: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 2 of 3
	//   rule 2 sees it as due: rule 2 is for any image pushed more than 14 days ago, and this one was pushed 25 days ago
	// main sha256:4e07408562be: expire: rule 2 is for any image pushed more than 14 days ago, and this one was pushed 15 days ago
	//   rule 1 does not see it: no tag matches "v*"
	//   rule 2 sees it as due: rule 2 is for any image pushed more than 14 days ago, and this one was pushed 15 days ago
	// explain latest: no such image in the plan
}

// What a change of policy would newly delete or newly spare.
func ExampleDiff() {
	images, now := repository()
	before, _ := lifecycle.Parse(keepTwo)
	rules := before.Rules()
	rules[0].Selection.CountNumber = 1
	rules[1].Selection.CountNumber = 20
	after, err := lifecycle.New(rules...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(lifecycle.Diff(lifecycle.Evaluate(before, images, now), lifecycle.Evaluate(after, images, now)))
	// Output:
	// 1 newly deleted, 1 newly spared, 0 other, 3 as before
	// - v2 sha256:6b86b273ff34
	//   before: keep: rule 1 (two releases) keeps the 2 newest of images tagged v*, and this is number 2 of 3; rule 2 would see it too, but only the first may act
	//   after:  expire: rule 1 (two releases) keeps the newest of images tagged v*, and this is number 2 of 3; rule 2 would see it too, but only the first may act
	// + main sha256:4e07408562be
	//   before: expire: rule 2 is for any image pushed more than 14 days ago, and this one was pushed 15 days ago
	//   after:  keep: rule 2 is for any image pushed more than 20 days ago, and this one was pushed 15 days ago
}

// When each image goes, if nobody pushes, and what that leaves.
func ExampleForecast() {
	policy, _ := lifecycle.Parse(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":20},"action":{"type":"expire"}}]}`)
	images, now := repository()
	timeline := lifecycle.Forecast(policy, images, now, now.AddDate(0, 0, 10))
	for _, d := range timeline.Departures {
		fmt.Println(d.At.Format(time.DateOnly), d.Tags, d.Action, d.Rule, d.Via)
	}
	fmt.Print(timeline)
	// Output:
	// 2026-01-01 [v1] expire 1 rule
	// 2026-01-01 [v2] expire 1 rule
	// 2026-01-01 [] expire 0 subject
	// 2026-01-02 [v3] expire 1 rule
	// 2026-01-07 [main] expire 1 rule
	//          day  expired  archived  untagged  freed bytes  images left  bytes left
	//   2026-01-01        3         0         0          300            2         200
	//   2026-01-02        1         0         0          100            1         100
	//   2026-01-07        1         0         0          100            0           0
	//   2026-01-11        0         0         0            0            0           0
}

// A series to plot.
func ExampleTimeline_WriteCSV() {
	policy, _ := lifecycle.Parse(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":20},
		"action":{"type":"transition","targetStorageClass":"archive"}}]}`)
	images, now := repository()
	if err := lifecycle.Forecast(policy, images, now, now.AddDate(0, 0, 1)).WriteCSV(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// time,images,bytes,archived_images,archived_bytes,expired,moved,untagged,freed_bytes
	// 2026-01-01T12:00:00Z,5,500,3,300,0,3,0,0
	// 2026-01-02T12:00:00Z,5,500,4,400,0,1,0,0
}

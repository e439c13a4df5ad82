// Package lifecycle says which images of a repository are to be deleted or
// archived, by policies in the language of Amazon ECR, and why.
//
//	policy, err := lifecycle.Parse(text)
//	plan := lifecycle.Evaluate(policy, images, time.Now())
//	fmt.Print(plan)
//
// [Parse] refuses what ECR refuses, and reports all faults by JSON pointer and
// category; [Policy.Warnings] has what is valid but probably not meant.
// [Evaluate] is a pure function to a [Plan], which has one [Verdict] for each
// image, with the rule that owns it and a sentence. Only a [Runner] deletes.
//
// [Explain] tells about one image, [Diff] what a change of policy would delete or
// spare, [Forecast] when images will go, and [Plan.Preview] what ECR would show.
// What ECR's documentation leaves open is decided by [Options]; what its language
// cannot say is in [Extensions], off unless asked for. Both are part of a
// [Policy].
//
// # In doubt an image stays
//
// A time that is not known never makes an image old, and gives it no place in a
// count. A time in the future is newest. What an index lists stays until the index
// is gone, and what refers to an image as its subject goes with it, never by a
// rule. An image that two rules are about is only the first one's.
//
// # From a store, and back
//
//	runner := lifecycle.Runner{Manifests: store, Activity: pulls}
//	report, err := runner.Run(ctx, "team/app", policy)
//
// [Images] reads what a policy needs to know of a repository. A [Runner] does that,
// makes a plan and carries it out, beside whoever pushes: each image goes in one
// step that the store refuses if the image is not as the plan saw it. It refuses
// runs that would remove too much, and odd clocks. [Runner.Reap] removes
// referrers whose subject is gone, where no policy is.
//
// # Pulls
//
// [Activity] is what a registry writes down of pulls, and [Buffer] is what it
// puts in front of that, so that not each pull is a write. Package mempulls keeps
// pulls in memory.
//
// # Testing
//
// Package lifecycletest tests policies as one tests code, and checks
// implementations of Activity.
package lifecycle

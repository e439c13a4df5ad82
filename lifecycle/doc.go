// Package lifecycle says which images of a repository are to be deleted or
// archived, by policies in the language of Amazon ECR, and why.
//
//	policy, err := lifecycle.Parse(text)
//	plan := lifecycle.Evaluate(policy, images, time.Now())
//	fmt.Print(plan)
//
// [Parse] refuses what ECR refuses, with all faults by JSON pointer and
// category. [Evaluate] is a pure function to a [Plan], which has one [Verdict]
// for each image. What ECR's documentation leaves open is decided by [Options];
// what its language cannot say is in [Extensions], off unless asked for.
//
// [Activity] is what a registry writes down of pulls, and [Buffer] is what it
// puts in front of that, so that not each pull is a write. Package mempulls keeps
// pulls in memory; package lifecycletest checks an implementation.
package lifecycle

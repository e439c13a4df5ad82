// Package lifecycletest tests lifecycle policies, and stores of last pulls.
//
// A service tests its policies as it tests its code: [Image] makes images by tag
// and age, [Expect] says what a policy must do to them, and everything else must
// stay:
//
//	policy := lifecycletest.Policy(t, text)
//	lifecycletest.Expect(t, policy, []lifecycle.Image{
//		lifecycletest.Image("v1", lifecycletest.PushedDaysAgo(40)),
//		lifecycletest.Image("v2", lifecycletest.PushedDaysAgo(3)),
//	}, lifecycletest.Now(),
//		lifecycletest.Expires(1, "v1"))
//
// [Scenarios] reads such cases from files, a [Repository] lives through days, and
// [NeverExpires] looks for repositories in which a policy deletes what it must
// not. All ages are counted from [Now], which is always the same instant.
//
// [TestActivity] checks that a [lifecycle.Activity] keeps its promises.
package lifecycletest

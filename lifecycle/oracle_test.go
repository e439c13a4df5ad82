package lifecycle

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// oracle is a second evaluator, written from the model of the vectors and the
// comments of Options and Extensions, apart from the first and in the most direct
// way. It can be told to be wrong in one of the ways of wrongs, to see that tests
// notice.
type oracle struct {
	rules  []Rule
	opts   Options
	ext    Extensions
	images []Image
	now    time.Time
	wrong  string
	exprs  map[string]*regexp.Regexp
}

// outcome is what the oracle says of an image.
type outcome struct {
	action  ActionType
	rule    int64
	via     Via
	blocked []digest.Digest // sorted
	wanted  ActionType      // with blocked
	by      int64           // with blocked
	untag   []string
	owner   int64
	also    []int64
	rank    int
	at      time.Time // for the order
}

// wrongs are the wrong evaluators of the fact sheet, section 7.
var wrongs = []string{
	"age not strict",
	"several prefixes OR-ed",
	"several patterns OR-ed",
	"only claimed images leave later rules",
	"images of higher rules not counted",
	"claimed images not counted",
	"list order instead of priority",
	"the oldest kept",
	"storage class ignored",
	"restore time ignored for the push order",
	"never pulled is never due",
	"a stale pull beats a restore",
	"restore ignored for the pull time",
	"no protection by manifest lists",
	"archiving blocked by an archived parent",
	"children not counted",
	"referrers treated as ordinary images",
	"no 24 h gate",
	"gate strict",
	"gate from the push only",
	"no cascade",
	"orphans kept",
	"no cascade to the archive",
	"pattern not anchored at its end",
	"ties by descending digest",
	"* selects untagged images",
	"untagged selects all",
}

func newOracle(p *Policy, images []Image, now time.Time) *oracle {
	return &oracle{rules: p.Rules(), opts: p.Options(), ext: p.Extensions(), images: images, now: now, exprs: map[string]*regexp.Regexp{}}
}

func (o *oracle) is(wrong string) bool { return o.wrong == wrong }

// evaluate returns an outcome for each image.
func (o *oracle) evaluate() []outcome {
	out := make([]outcome, len(o.images))
	for i := range o.images {
		out[i] = o.settle(i)
		owner, also := o.owners(i)
		if owner >= 0 {
			out[i].owner = o.rules[owner].Priority
			if r := &o.rules[owner]; r.Selection.CountType == ImageCountMoreThan || o.extension(r).KeepNewest > 0 {
				out[i].rank = o.rankOf(owner, i)
			}
		}
		for _, r := range also {
			out[i].also = append(out[i].also, o.rules[r].Priority)
		}
		out[i].at = o.pushed(&o.images[i])
		if o.images[i].StorageClass == Archive {
			out[i].at = o.images[i].ArchivedAt
		}
	}
	return out
}

func (o *oracle) class(im *Image) StorageClass {
	if im.StorageClass == "" {
		return Standard
	}
	return im.StorageClass
}

func (o *oracle) referrer(im *Image) bool {
	return im.Subject != "" && !o.opts.CountReferrers && !o.is("referrers treated as ordinary images")
}

func (o *oracle) lists(i int) (out []int) {
	for l := range o.images {
		if slices.Contains(o.images[l].Manifests, o.images[i].Digest) {
			out = append(out, l)
		}
	}
	return out
}

func (o *oracle) unit(i int) bool {
	return o.ext.Units && !o.referrer(&o.images[i]) && len(o.images[i].Tags) == 0 && len(o.lists(i)) > 0
}

func (o *oracle) matches(entry, tag string, prefix bool) bool {
	key := fmt.Sprint(prefix, entry)
	if o.exprs[key] == nil {
		var expr string
		for _, c := range entry {
			if c == '*' && !prefix {
				expr += "(?s:.*)"
			} else {
				expr += regexp.QuoteMeta(string(c))
			}
		}
		if o.opts.IgnoreCase {
			expr = "(?i)" + expr
		}
		expr = "^(?:" + expr + ")"
		if !prefix && !o.is("pattern not anchored at its end") {
			expr += "$"
		}
		o.exprs[key] = regexp.MustCompile(expr)
	}
	return o.exprs[key].MatchString(tag)
}

func (o *oracle) hasTag(im *Image, entry string, prefix bool) bool {
	for _, tag := range im.Tags {
		if o.matches(entry, tag, prefix) {
			return true
		}
	}
	return len(im.Tags) == 0 && entry == "*" && o.is("* selects untagged images")
}

func (o *oracle) extension(r *Rule) RuleExtension {
	for _, x := range o.ext.Rules {
		if x.Priority == r.Priority {
			return x
		}
	}
	return RuleExtension{}
}

// sees: the rule identifies the image.
func (o *oracle) sees(r *Rule, i int) bool {
	im := &o.images[i]
	s := &r.Selection
	ruleClass := Standard
	if s.StorageClass != "" {
		ruleClass = s.StorageClass
	}
	if o.referrer(im) || o.unit(i) || o.class(im) != ruleClass && !o.is("storage class ignored") {
		return false
	}
	if o.is("children not counted") && len(o.lists(i)) > 0 {
		return false
	}
	for _, entry := range o.extension(r).Exclude {
		if o.hasTag(im, entry, false) {
			return false
		}
	}
	switch s.TagStatus {
	case Any:
		return len(im.Tags) > 0 || !o.extension(r).TagsOnly
	case Untagged:
		return len(im.Tags) == 0 || o.is("untagged selects all")
	}
	hits := 0
	for _, entry := range s.TagPatterns {
		if o.hasTag(im, entry, false) {
			hits++
		}
	}
	for _, entry := range s.TagPrefixes {
		if o.hasTag(im, entry, true) {
			hits++
		}
	}
	if hits > 0 && (len(s.TagPrefixes) > 0 && o.is("several prefixes OR-ed") || len(s.TagPatterns) > 0 && o.is("several patterns OR-ed")) {
		return true
	}
	return hits == len(s.TagPatterns)+len(s.TagPrefixes)
}

// owners returns the rule that alone may act, -1 if none, and the others.
func (o *oracle) owners(i int) (owner int, also []int) {
	owner = -1
	for r := range o.rules {
		if !o.sees(&o.rules[r], i) || o.is("only claimed images leave later rules") && !o.candidate(r, i) {
			continue
		}
		if owner < 0 {
			owner = r
		} else {
			also = append(also, r)
		}
	}
	return owner, also
}

func (o *oracle) pushed(im *Image) time.Time {
	if !im.RestoredAt.IsZero() && !o.is("restore time ignored for the push order") {
		return im.RestoredAt
	}
	return im.PushedAt
}

func (o *oracle) pulled(im *Image) time.Time {
	t := im.PulledAt
	if t.IsZero() && im.RestoredAt.IsZero() && o.is("never pulled is never due") {
		return o.now
	}
	if o.is("restore ignored for the pull time") {
		if t.IsZero() {
			t = im.PushedAt
		}
		return t
	}
	if !im.RestoredAt.IsZero() {
		if t.IsZero() || t.Before(im.RestoredAt) && !o.is("a stale pull beats a restore") {
			t = im.RestoredAt
		}
		return t
	}
	if t.IsZero() {
		t = im.PushedAt
	}
	return t
}

func (o *oracle) days(n int64) (time.Duration, bool) {
	day := o.opts.Day
	if day == 0 {
		day = 24 * time.Hour
	}
	d := time.Duration(0)
	for range min(n, 200_000) { // no multiplication, no overflow
		if d += day; d < 0 {
			return 0, false
		}
	}
	return d, n < 200_000
}

// before: a is newer than b.
func (o *oracle) before(a, b *Image) bool {
	x, y := o.pushed(a), o.pushed(b)
	if !x.Equal(y) {
		return x.After(y) != o.is("the oldest kept")
	}
	return (a.Digest < b.Digest) != (o.opts.DescendingTies || o.is("ties by descending digest"))
}

// rankOf is the place of image i in what rule r counts, 0 if its time is unknown.
func (o *oracle) rankOf(r, i int) int {
	if o.pushed(&o.images[i]).IsZero() {
		return 0
	}
	rank := 1
	for j := range o.images {
		if j == i || !o.sees(&o.rules[r], j) || o.pushed(&o.images[j]).IsZero() || !o.before(&o.images[j], &o.images[i]) {
			continue
		}
		if higher := o.higher(r, j); higher >= 0 {
			if o.is("images of higher rules not counted") || o.is("claimed images not counted") && o.candidate(higher, j) {
				continue
			}
		}
		rank++
	}
	return rank
}

// higher returns the first rule before r that sees image j, or -1.
func (o *oracle) higher(r, j int) int {
	for h := range o.rules[:r] {
		if o.sees(&o.rules[h], j) {
			return h
		}
	}
	return -1
}

// candidate: rule r by itself would act on image i, which it sees.
func (o *oracle) candidate(r, i int) bool {
	rule, im := &o.rules[r], &o.images[i]
	s := &rule.Selection
	spare := o.extension(rule).KeepNewest
	if s.CountType == ImageCountMoreThan {
		rank := o.rankOf(r, i)
		return rank > 0 && int64(rank) > s.CountNumber && rank > spare
	}
	var since time.Time
	switch s.CountType {
	case SinceImagePushed:
		since = o.pushed(im)
	case SinceImagePulled:
		since = o.pulled(im)
		if !since.IsZero() && since.Before(o.opts.PullsSince) {
			since = o.opts.PullsSince
		}
	case SinceImageTransitioned:
		since = im.ArchivedAt
	}
	limit, ok := o.days(s.CountNumber)
	if since.IsZero() || !ok {
		return false
	}
	border := since.Add(limit)
	if !o.now.After(border) && !(o.is("age not strict") && o.now.Equal(border)) {
		return false
	}
	if spare > 0 {
		rank := o.rankOf(r, i)
		return rank > spare
	}
	return true
}

// wants is what rules, or indexes of its unit, would do with image i.
func (o *oracle) wants(i int) (ActionType, int64) {
	owner, _ := o.owners(i)
	if owner < 0 || !o.candidate(owner, i) {
		return Keep, 0
	}
	r := &o.rules[owner]
	if o.extension(r).TagsOnly {
		return Untag, r.Priority
	}
	return r.Action.Type, r.Priority
}

func (o *oracle) spared(i int) bool {
	im := &o.images[i]
	for k := range o.ext.Keep {
		names := func(im *Image) bool {
			for _, entry := range o.ext.Keep[k].TagPatterns {
				if o.hasTag(im, entry, false) {
					return true
				}
			}
			return slices.Contains(o.ext.Keep[k].Digests, im.Digest) || len(o.ext.Keep[k].TagPatterns)+len(o.ext.Keep[k].Digests) == 0
		}
		if !names(im) {
			continue
		}
		if o.ext.Keep[k].Newest == 0 {
			return true
		}
		if o.referrer(im) || o.unit(i) || o.pushed(im).IsZero() {
			continue
		}
		newer := 0
		for j := range o.images {
			other := &o.images[j]
			if j != i && names(other) && !o.referrer(other) && !o.unit(j) && !o.pushed(other).IsZero() && o.before(other, im) {
				newer++
			}
		}
		if newer < o.ext.Keep[k].Newest {
			return true
		}
	}
	return o.ext.InUse != nil && o.ext.InUse(im) != ""
}

// looped: going up from image i by way of lists, one comes to a list twice.
func (o *oracle) looped(i int, path []int) bool {
	if slices.Contains(path, i) {
		return true
	}
	for _, l := range o.lists(i) {
		if o.looped(l, append(path, i)) {
			return true
		}
	}
	return false
}

// own is what becomes of image i but for its subject.
func (o *oracle) own(i int) outcome {
	im := &o.images[i]
	together := o.opts.SamePassChildren || o.ext.Units
	// The least that happens to all its lists.
	all := Expire
	for _, l := range o.lists(i) {
		f := Keep
		if together && !o.looped(i, nil) {
			f = o.fate(l, o.own)
		}
		if f == Keep || f == Transition && all == Expire {
			all = f
		}
	}
	if o.unit(i) {
		if o.looped(i, nil) || all == Keep || all == Transition && o.class(im) != Standard || o.spared(i) {
			return outcome{action: Keep}
		}
		return outcome{action: all, via: ViaIndex}
	}
	action, rule := o.wants(i)
	if action == Keep || o.spared(i) {
		return outcome{action: Keep}
	}
	blocked := false
	if action != Untag && len(o.lists(i)) > 0 {
		if o.opts.SamePassChildren {
			blocked = o.looped(i, nil) || action == Expire && all != Expire || all == Keep
		} else {
			blocked = len(o.blockers(i, action)) > 0 || together && o.looped(i, nil)
		}
	}
	if blocked && !o.is("no protection by manifest lists") {
		return outcome{action: Keep, blocked: o.blockers(i, action), wanted: action, by: rule}
	}
	return outcome{action: action, rule: rule, via: ViaRule}
}

// blockers are the lists that keep image i from an action when the pass begins.
func (o *oracle) blockers(i int, action ActionType) []digest.Digest {
	out := []digest.Digest{}
	for _, l := range o.lists(i) {
		if action == Expire || action == Transition && (o.images[l].StorageClass != Archive || o.is("archiving blocked by an archived parent")) {
			out = append(out, o.images[l].Digest)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// fate is what an image comes to: expire, transition (or archived already), keep.
func (o *oracle) fate(i int, decide func(int) outcome) ActionType {
	if o.referrer(&o.images[i]) {
		decide = func(int) outcome { return outcome{action: Keep} } // as a list it stays, until it is gone
	}
	switch a := decide(i).action; {
	case a == Expire:
		return Expire
	case a == Transition || o.images[i].StorageClass == Archive:
		return Transition
	}
	return Keep
}

// settle is what becomes of image i.
func (o *oracle) settle(i int) outcome {
	im := &o.images[i]
	if im.Subject == "" || o.is("referrers treated as ordinary images") {
		return o.withTags(i, o.own(i))
	}
	if !o.referrer(im) {
		if own := o.own(i); own.action != Keep || own.blocked != nil {
			return o.withTags(i, own)
		}
		if w, _ := o.wants(i); w != Keep {
			return outcome{action: Keep}
		}
		if o.unit(i) && !o.looped(i, nil) && o.unitWanted(i) {
			return outcome{action: Keep}
		}
	}
	root, circle := o.root(i)
	action := Keep
	switch {
	case circle:
	case root < 0:
		if !o.is("orphans kept") {
			action = Expire
		}
	case o.opts.NextPassReferrers:
		if o.images[root].StorageClass == Archive {
			action = Transition
		}
	default:
		action = o.fate(root, o.own)
		if o.is("no cascade") || action == Transition && o.is("no cascade to the archive") {
			action = Keep
		}
	}
	if action == Transition && o.class(im) != Standard {
		action = Keep
	}
	if action == Keep {
		return outcome{action: Keep}
	}
	since := o.pushed(im)
	if im.StorageClass == Archive {
		since = im.ArchivedAt
	}
	if o.is("gate from the push only") {
		since = im.PushedAt
	}
	grace := o.opts.ReferrerGrace
	if grace == 0 {
		grace = 24 * time.Hour
	}
	stayed := o.now.Sub(since)
	long := stayed >= max(grace, 0)
	if o.is("gate strict") {
		long = stayed > max(grace, 0)
	}
	if o.class(im) != Standard && o.class(im) != Archive || since.IsZero() || !long && !o.is("no 24 h gate") || o.spared(i) {
		return outcome{action: Keep}
	}
	if b := o.blockers(i, action); len(b) > 0 {
		return outcome{action: Keep, blocked: b, wanted: action}
	}
	// What it refers to goes too, if that is a referrer.
	if s := slices.IndexFunc(o.images, func(s Image) bool { return s.Digest == im.Subject }); s >= 0 && o.images[s].Subject != "" {
		out := o.settle(s).action
		if action == Expire && out != Expire || out != Transition && out != Expire && o.images[s].StorageClass != Archive {
			return outcome{action: Keep}
		}
	}
	return outcome{action: action, via: ViaSubject}
}

// unitWanted: the indexes of image i would take it along, had it not been spared.
func (o *oracle) unitWanted(i int) bool {
	ext := o.ext
	o.ext.Keep, o.ext.InUse = nil, nil
	defer func() { o.ext = ext }()
	all := Expire
	for _, l := range o.lists(i) {
		o.ext = ext
		f := o.fate(l, o.own)
		if f == Keep || f == Transition && all == Expire {
			all = f
		}
	}
	return all == Expire || all == Transition && o.class(&o.images[i]) == Standard
}

// root is what image i follows in the end, -1 if that is not there.
func (o *oracle) root(i int) (root int, circle bool) {
	seen := map[int]bool{}
	for o.images[i].Subject != "" {
		if seen[i] {
			return 0, true
		}
		seen[i] = true
		next := slices.IndexFunc(o.images, func(im Image) bool { return im.Digest == o.images[i].Subject })
		if next < 0 {
			return -1, false
		}
		i = next
	}
	return i, false
}

func (o *oracle) withTags(i int, out outcome) outcome {
	if out.action != Untag {
		return out
	}
	for _, r := range o.rules {
		if r.Priority != out.rule {
			continue
		}
		for _, tag := range o.images[i].Tags {
			entry := func(prefix bool) func(string) bool {
				return func(e string) bool { return o.matches(e, tag, prefix) }
			}
			if r.Selection.TagStatus == Any || slices.ContainsFunc(r.Selection.TagPatterns, entry(false)) || slices.ContainsFunc(r.Selection.TagPrefixes, entry(true)) {
				out.untag = append(out.untag, tag)
			}
		}
	}
	return out
}

// order is the digests that rules act on, oldest first.
func (o *oracle) order(outs []outcome) (digests []digest.Digest) {
	var acting []int
	for i := range outs {
		if outs[i].via == ViaRule {
			acting = append(acting, i)
		}
	}
	slices.SortFunc(acting, func(a, b int) int {
		if c := outs[a].at.Compare(outs[b].at); c != 0 {
			return c
		}
		c := -strings.Compare(string(o.images[a].Digest), string(o.images[b].Digest))
		if o.opts.DescendingTies {
			c = -c
		}
		return c
	})
	for _, i := range acting {
		digests = append(digests, o.images[i].Digest)
	}
	return digests
}

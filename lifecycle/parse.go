package lifecycle

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wharfage/wharfage/internal/strictjson"
)

// The limits of a policy (Amazon ECR user guide, service quotas and lifecycle
// policy parameters). ECR's lower limit of 100 characters says nothing: the
// shortest valid policy has 138.
const (
	MaxLength      = 30720 // characters of the text
	MaxRules       = 50
	MaxWildcards   = 4 // in one pattern
	MinArchiveDays = 90
	MaxTagLength   = 128 // of a tag (distribution-spec); an entry that is longer matches none
)

// Parse reads a policy as strictly as ECR does: names in their exact case, none
// unknown, none twice, no null, only plain integers. The error is an
// [*InvalidError] with all faults in the order of the text, those between rules
// at its end. After a fault of the JSON itself, or of the length, no more are
// looked for.
func Parse(text string) (*Policy, error) {
	if n := utf8.RuneCountInString(text); n > MaxLength {
		return nil, &InvalidError{[]FieldError{{"", CategoryLength, strconv.Itoa(n) + " characters", "at most " + strconv.Itoa(MaxLength)}}}
	}
	var p parser
	p.Reset(text)
	p.document()
	p.End()
	if err := p.Err(); err != nil {
		return nil, &InvalidError{[]FieldError{{"", CategoryParse, "", "one JSON object (" + err.Error() + ")"}}}
	}
	p.checkTogether()
	if len(p.faults) > 0 {
		return nil, &InvalidError{p.faults}
	}
	policy := &Policy{}
	for _, d := range p.rules {
		policy.rules = append(policy.rules, d.Rule)
	}
	slices.SortFunc(policy.rules, func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	policy.compile()
	return policy, nil
}

// parser reads a policy and gathers what is wrong with it.
type parser struct {
	strictjson.Reader
	faults []FieldError
	rules  []draft
}

// draft is a rule and where it was read.
type draft struct {
	Rule
	at  string
	has map[string]state // by member, also of selection and action
}

// state is what was found of a member. The zero state is that it is not there.
type state uint8

const (
	bad  state = iota + 1 // it is there, and of no use: that was reported
	good                  // it is there
)

func (p *parser) fault(pointer string, c Category, value, allowed string) {
	const most = 80
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	p.faults = append(p.faults, FieldError{pointer, c, value, allowed})
}

// is tells whether a value of the kind that begins with c follows. If not, it
// reads the value and reports it.
func (p *parser) is(c byte, at, kind string) bool {
	next := p.Peek()
	if next == c || c == '0' && (next == '-' || '0' <= next && next <= '9') {
		return true
	}
	start := p.Pos()
	p.Skip()
	p.fault(at, CategoryType, p.Since(start), kind)
	return false
}

func (p *parser) document() {
	if !p.is('{', "", "an object with rules") {
		return
	}
	found := false
	for o := p.Object(); o.Next(); {
		if p.Name != "rules" {
			p.unknown("", "rules")
			continue
		}
		found = true
		if !p.is('[', "/rules", "a list of rules") {
			continue
		}
		n := 0
		for a := p.Array(); a.Next(); n++ {
			p.rule("/rules/" + strconv.Itoa(n))
		}
		if n < 1 || n > MaxRules {
			p.fault("/rules", CategoryRulesCount, strconv.Itoa(n)+" rules", "1 to "+strconv.Itoa(MaxRules)+" rules")
		}
	}
	if !found {
		p.fault("", CategoryMissingProperty, "", "rules is required")
	}
}

// unknown reads and reports a member that is none of those known there.
func (p *parser) unknown(at string, known ...string) {
	at += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p.Name)
	start := p.Pos()
	p.Skip()
	p.fault(at, CategoryUnknownProperty, strings.TrimSpace(p.Since(start)), strings.Join(known, ", "))
}

func (p *parser) rule(at string) {
	if !p.is('{', at, "a rule: an object") {
		return
	}
	d := draft{at: at, has: map[string]state{}}
	for o := p.Object(); o.Next(); {
		switch name := p.Name; name {
		case "rulePriority":
			p.integer(&d, at, name, &d.Priority, CategoryRulePriority)
		case "description":
			p.text(&d, at, name, &d.Description)
		case "selection":
			d.has[name] = bad
			if p.is('{', at+"/selection", "an object") {
				d.has[name] = good
				p.selection(&d)
			}
		case "action":
			d.has[name] = bad
			if p.is('{', at+"/action", "an object") {
				d.has[name] = good
				p.action(&d)
			}
		default:
			p.unknown(at, "rulePriority", "description", "selection", "action")
		}
	}
	p.require(&d, at, "rulePriority", "selection", "action")
	if d.has["selection"] == good && d.has["action"] == good {
		p.checkAction(&d)
	}
	p.rules = append(p.rules, d)
}

func (p *parser) require(d *draft, at string, names ...string) {
	for _, name := range names {
		if d.has[name] == 0 {
			p.fault(at, CategoryMissingProperty, "", name+" is required")
		}
	}
}

// integer reads a number of at least 1.
func (p *parser) integer(d *draft, at, name string, to *int64, c Category) {
	at += "/" + name
	d.has[name] = bad
	const allowed = "an integer of 1 or more, without fraction and exponent"
	if !p.is('0', at, allowed) {
		return
	}
	start := p.Pos()
	n, ok := p.Int64()
	switch text := p.Since(start); {
	case !ok && strings.ContainsAny(text, ".eE"):
		p.fault(at, CategoryType, text, allowed)
	case !ok || n < 1:
		p.fault(at, c, text, allowed)
	default:
		d.has[name], *to = good, n
	}
}

func (p *parser) text(d *draft, at, name string, to *string) {
	d.has[name] = bad
	if p.is('"', at+"/"+name, "a string") {
		d.has[name], *to = good, p.String()
	}
}

// word reads one of some words.
func word[T ~string](p *parser, d *draft, at, name string, to *T, c Category, allowed ...T) {
	d.has[name] = bad
	at += "/" + name
	if !p.is('"', at, "a string") {
		return
	}
	if *to = T(p.String()); slices.Contains(allowed, *to) {
		d.has[name] = good
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	p.fault(at, c, strconv.Quote(string(*to)), strings.Join(names, ", "))
}

func (p *parser) selection(d *draft) {
	at, s := d.at+"/selection", &d.Selection
	unit := ""
	for o := p.Object(); o.Next(); {
		switch name := p.Name; name {
		case "tagStatus":
			word(p, d, at, name, &s.TagStatus, CategoryTagStatus, Tagged, Untagged, Any)
		case "tagPatternList":
			s.TagPatterns = p.entries(d, at, name, true)
		case "tagPrefixList":
			s.TagPrefixes = p.entries(d, at, name, false)
		case "storageClass":
			word(p, d, at, name, &s.StorageClass, CategoryStorageClass, Standard, Archive)
		case "countType":
			word(p, d, at, name, &s.CountType, CategoryCountType, ImageCountMoreThan, SinceImagePushed, SinceImagePulled, SinceImageTransitioned)
		case "countUnit":
			p.text(d, at, name, &unit)
		case "countNumber":
			p.integer(d, at, name, &s.CountNumber, CategoryCountNumber)
		default:
			p.unknown(at, "tagStatus", "tagPatternList", "tagPrefixList", "storageClass", "countType", "countUnit", "countNumber")
		}
	}
	s.CountUnit = unit
	p.require(d, at, "tagStatus", "countType", "countNumber")
	p.checkTags(d, at)
	p.checkCount(d, at)
}

// entries reads one of the two lists of tags. An empty one is none.
func (p *parser) entries(d *draft, at, name string, pattern bool) (out []string) {
	at += "/" + name
	d.has[name] = bad
	if !p.is('[', at, "a list of strings") {
		return nil
	}
	n := 0
	for a := p.Array(); a.Next(); n++ {
		here := at + "/" + strconv.Itoa(n)
		if !p.is('"', here, "a string") {
			continue
		}
		entry := p.String()
		stars := 0
		if pattern {
			stars = strings.Count(entry, "*")
		}
		switch {
		case entry == "":
			p.fault(here, CategoryTagEntry, `""`, "a text: an empty one would select every tag")
		case stars > MaxWildcards:
			p.fault(here, CategoryWildcards, strconv.Quote(entry), "at most "+strconv.Itoa(MaxWildcards)+" wildcards (*)")
		case len(entry)-stars > MaxTagLength:
			p.fault(here, CategoryTagEntry, strconv.Quote(entry), "at most "+strconv.Itoa(MaxTagLength)+" characters, as no tag has more")
		}
		out = append(out, entry)
	}
	if n > 0 && len(out) == n {
		d.has[name] = good
	} else if n == 0 {
		delete(d.has, name)
	}
	return out
}

func (p *parser) checkTags(d *draft, at string) {
	if d.has["tagStatus"] != good {
		return
	}
	patterns, prefixes := d.has["tagPatternList"], d.has["tagPrefixList"]
	switch {
	case d.Selection.TagStatus != Tagged:
		for _, name := range []string{"tagPatternList", "tagPrefixList"} {
			if d.has[name] == good {
				p.fault(at+"/"+name, CategoryTagListNotAllowed, "", "no list with tagStatus "+string(d.Selection.TagStatus))
			}
		}
	case patterns != 0 && prefixes != 0:
		p.fault(at, CategoryTagListConflict, "tagPatternList and tagPrefixList", "one of them")
	case patterns == 0 && prefixes == 0:
		p.fault(at, CategoryTagListRequired, "", "tagPatternList or tagPrefixList with an entry is required with tagStatus tagged")
	}
}

func (p *parser) checkCount(d *draft, at string) {
	s := &d.Selection
	unit := at + "/countUnit"
	const days = "days"
	switch known := d.has["countType"] == good; {
	case known && s.CountType == ImageCountMoreThan && d.has["countUnit"] == good:
		p.fault(unit, CategoryCountUnitNotAllowed, strconv.Quote(s.CountUnit), "no unit with imageCountMoreThan")
	case d.has["countUnit"] == good && s.CountUnit != days:
		p.fault(unit, CategoryCountUnit, strconv.Quote(s.CountUnit), days)
	case known && s.CountType != ImageCountMoreThan && d.has["countUnit"] == 0:
		p.fault(at, CategoryCountUnitRequired, "", "countUnit days is required with "+string(s.CountType))
	}
	if d.has["countType"] != good {
		return
	}
	archive := s.CountType == SinceImageTransitioned
	class := d.has["storageClass"]
	switch {
	case archive && class == 0:
		p.fault(at, CategoryStorageClassRequired, "", "storageClass archive is required with sinceImageTransitioned")
	case archive && class == good && s.StorageClass != Archive:
		p.fault(at+"/storageClass", CategoryStorageClass, strconv.Quote(string(s.StorageClass)), "archive with sinceImageTransitioned")
	case !archive && class == good && s.StorageClass != Standard:
		p.fault(at+"/storageClass", CategoryStorageClass, strconv.Quote(string(s.StorageClass)), "standard with "+string(s.CountType))
	}
	if archive && d.has["countNumber"] == good && s.CountNumber < MinArchiveDays {
		p.fault(at+"/countNumber", CategoryArchiveMinimum, strconv.FormatInt(s.CountNumber, 10), strconv.Itoa(MinArchiveDays)+" days or more in the archive")
	}
}

func (p *parser) action(d *draft) {
	at, a := d.at+"/action", &d.Action
	target := ""
	for o := p.Object(); o.Next(); {
		switch name := p.Name; name {
		case "type":
			word(p, d, at, name, &a.Type, CategoryActionType, Expire, Transition)
		case "targetStorageClass":
			p.text(d, at, name, &target)
		default:
			p.unknown(at, "type", "targetStorageClass")
		}
	}
	a.TargetStorageClass = StorageClass(target)
	p.require(d, at, "type")
	if d.has["type"] != good {
		return
	}
	switch has := d.has["targetStorageClass"]; {
	case a.Type == Expire && has == good:
		p.fault(at+"/targetStorageClass", CategoryTargetStorageClass, strconv.Quote(target), "no target with expire")
	case a.Type == Transition && has == 0:
		p.fault(at, CategoryTargetStorageClass, "", "targetStorageClass archive is required with transition")
	case a.Type == Transition && has == good && a.TargetStorageClass != Archive:
		p.fault(at+"/targetStorageClass", CategoryTargetStorageClass, strconv.Quote(target), "archive")
	}
}

// checkAction compares the action with the count type.
func (p *parser) checkAction(d *draft) {
	if d.has["countType"] != good || d.has["type"] != good {
		return
	}
	only := map[CountType]ActionType{SinceImagePulled: Transition, SinceImageTransitioned: Expire}[d.Selection.CountType]
	if only != "" && d.Action.Type != only {
		p.fault(d.at+"/action/type", CategoryActionCountType, strconv.Quote(string(d.Action.Type)), string(only)+" with "+string(d.Selection.CountType))
	}
}

// checkTogether compares rules with one another.
func (p *parser) checkTogether() {
	type key struct {
		class StorageClass
		what  string
	}
	priorities := map[int64]string{}
	seen := map[key]string{}
	once := func(k key, at string, c Category, allowed string) {
		if first, twice := seen[k]; twice {
			p.fault(at, c, "", allowed+"; "+first+" is one")
		} else {
			seen[k] = at
		}
	}
	for i := range p.rules {
		d := &p.rules[i]
		if d.has["rulePriority"] == good {
			at := d.at + "/rulePriority"
			if first, twice := priorities[d.Priority]; twice {
				p.fault(at, CategoryDuplicatePriority, strconv.FormatInt(d.Priority, 10), "another number than "+first)
			} else {
				priorities[d.Priority] = at
			}
		}
		if d.has["tagStatus"] != good || d.has["storageClass"] == bad {
			continue
		}
		s := &d.Selection
		class := s.class()
		at := d.at + "/selection/tagStatus"
		switch {
		case s.TagStatus == Untagged:
			once(key{class, "untagged"}, at, CategoryMultipleUntagged, "one rule for untagged images in a storage class")
		case s.TagStatus == Any:
			once(key{class, "any"}, at, CategoryMultipleAny, "one rule for any image in a storage class")
			p.checkAnyLast(d, class)
		case d.has["tagPrefixList"] == good:
			set := slices.Clone(s.TagPrefixes)
			slices.Sort(set)
			once(key{class, "prefixes " + strings.Join(slices.Compact(set), "\x00")}, d.at+"/selection/tagPrefixList",
				CategoryDuplicatePrefixes, "a set of prefixes that no other rule of the storage class has")
		}
	}
}

func (p *parser) checkAnyLast(d *draft, class StorageClass) {
	if d.has["rulePriority"] != good {
		return
	}
	for i := range p.rules {
		o := &p.rules[i]
		if o.has["rulePriority"] == good && o.has["tagStatus"] == good && o.has["storageClass"] != bad &&
			o.Selection.TagStatus != Any && o.Selection.class() == class && o.Priority > d.Priority {
			p.fault(d.at+"/rulePriority", CategoryAnyNotLast, strconv.FormatInt(d.Priority, 10),
				"a higher number than all rules of the storage class have; "+o.at+" has "+strconv.FormatInt(o.Priority, 10))
			return
		}
	}
}

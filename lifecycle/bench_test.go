package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var benchNow = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// tenRules is a policy as people write them: releases counted, branches aged,
// the rest cleaned.
const tenRules = `{"rules":[
{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPrefixList":["release-"],"countType":"imageCountMoreThan","countNumber":500},"action":{"type":"expire"}},
{"rulePriority":2,"selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":300},"action":{"type":"expire"}},
{"rulePriority":3,"selection":{"tagStatus":"tagged","tagPrefixList":["prod-"],"countType":"sinceImagePushed","countUnit":"days","countNumber":365},"action":{"type":"expire"}},
{"rulePriority":4,"selection":{"tagStatus":"tagged","tagPatternList":["*-rc*"],"countType":"sinceImagePushed","countUnit":"days","countNumber":30},"action":{"type":"expire"}},
{"rulePriority":5,"selection":{"tagStatus":"tagged","tagPrefixList":["staging-"],"countType":"imageCountMoreThan","countNumber":200},"action":{"type":"expire"}},
{"rulePriority":6,"selection":{"tagStatus":"tagged","tagPrefixList":["pr-"],"countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}},
{"rulePriority":7,"selection":{"tagStatus":"tagged","tagPatternList":["*-snapshot"],"countType":"imageCountMoreThan","countNumber":50},"action":{"type":"expire"}},
{"rulePriority":8,"selection":{"tagStatus":"tagged","tagPrefixList":["dev-"],"countType":"sinceImagePushed","countUnit":"days","countNumber":60},"action":{"type":"expire"}},
{"rulePriority":9,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":7},"action":{"type":"expire"}},
{"rulePriority":10,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":5000},"action":{"type":"expire"}}]}`

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// benchImages are n images of two years, in no order, most with one tag. With
// graph, a tenth are indexes of two others, and a tenth signatures.
func benchImages(n int, graph bool) []Image {
	rnd := rand.New(rand.NewPCG(1, 2))
	prefixes := []string{"release-", "v", "prod-", "staging-", "pr-", "dev-", "build-", "nightly-", "feature-x-", "main-"}
	images := make([]Image, n)
	for i := range images {
		im := &images[i]
		im.Digest = digest.Digest(fmt.Sprintf("sha256:%016x%048x", rnd.Uint64(), i))
		im.PushedAt = benchNow.Add(-time.Duration(rnd.Int64N(int64(730 * 24 * time.Hour))))
		for range []int{0, 1, 1, 1, 1, 1, 1, 1, 2, 3}[rnd.IntN(10)] {
			tag := fmt.Sprint(prefixes[rnd.IntN(len(prefixes))], rnd.IntN(100000))
			switch rnd.IntN(20) {
			case 0:
				tag += "-rc1"
			case 1:
				tag += "-snapshot"
			}
			im.Tags = append(im.Tags, tag)
		}
		if graph && i > 2 {
			switch rnd.IntN(10) {
			case 0:
				im.Manifests = []digest.Digest{images[rnd.IntN(i)].Digest, images[rnd.IntN(i)].Digest}
			case 1:
				im.Subject, im.Tags = images[rnd.IntN(i)].Digest, nil
			}
		}
	}
	return images
}

// naive is what one writes first, and what emulators of ECR have: for each rule,
// filter the images and sort them. It knows no archive, indexes and referrers.
// It returns the rules that act, by digest.
func naive(p *Policy, images []Image, now time.Time) map[digest.Digest]int64 {
	acts, owned := map[digest.Digest]int64{}, map[digest.Digest]bool{}
	for _, rule := range p.rules {
		var seen []Image
		for _, im := range images {
			if naiveSees(&rule.Selection, im.Tags) {
				seen = append(seen, im)
			}
		}
		sort.Slice(seen, func(a, b int) bool {
			if !seen[a].PushedAt.Equal(seen[b].PushedAt) {
				return seen[a].PushedAt.After(seen[b].PushedAt)
			}
			return seen[a].Digest < seen[b].Digest
		})
		for rank, im := range seen {
			due := rank >= int(rule.Selection.CountNumber)
			if rule.Selection.CountType != ImageCountMoreThan {
				due = now.Sub(im.PushedAt) > time.Duration(rule.Selection.CountNumber)*24*time.Hour
			}
			if due && !owned[im.Digest] {
				acts[im.Digest] = rule.Priority
			}
		}
		for _, im := range seen {
			owned[im.Digest] = true
		}
	}
	return acts
}

func naiveSees(s *Selection, tags []string) bool {
	switch {
	case s.TagStatus == Any:
		return true
	case s.TagStatus == Untagged || len(tags) == 0:
		return s.TagStatus == Untagged && len(tags) == 0
	}
	for _, prefix := range s.TagPrefixes {
		if !slices.ContainsFunc(tags, func(t string) bool { return strings.HasPrefix(t, prefix) }) {
			return false
		}
	}
	for _, pattern := range s.TagPatterns {
		if !slices.ContainsFunc(tags, func(t string) bool { ok, _ := path.Match(pattern, t); return ok }) {
			return false
		}
	}
	return true
}

// floor is the least work that gives naive's answer for this policy: one pass
// over the tags, with the ten selections written out, one sort of the times and
// one walk. It knows nothing else.
func floor(p *Policy, images []Image, now time.Time) []uint8 {
	const counted = 1<<0 | 1<<1 | 1<<4 | 1<<6 | 1<<9
	var first [256]uint16
	for c := range first {
		first[c] = 1<<3 | 1<<6
	}
	first['r'] |= 1 << 0
	first['v'] |= 1 << 1
	first['p'] |= 1<<2 | 1<<5
	first['s'] |= 1 << 4
	first['d'] |= 1 << 7
	masks := make([]uint16, len(images))
	pairs := make([]floorPair, len(images))
	for i := range images {
		im := &images[i]
		mask := uint16(1 << 9)
		if len(im.Tags) == 0 {
			mask |= 1 << 8
		}
		for _, tag := range im.Tags {
			may := first[tag[0]]
			if may&(1<<0) != 0 && strings.HasPrefix(tag, "release-") {
				mask |= 1 << 0
			}
			if may&(1<<1) != 0 {
				mask |= 1 << 1
			}
			if may&(1<<2) != 0 && strings.HasPrefix(tag, "prod-") {
				mask |= 1 << 2
			}
			if strings.Contains(tag, "-rc") {
				mask |= 1 << 3
			}
			if may&(1<<4) != 0 && strings.HasPrefix(tag, "staging-") {
				mask |= 1 << 4
			}
			if may&(1<<5) != 0 && strings.HasPrefix(tag, "pr-") {
				mask |= 1 << 5
			}
			if strings.HasSuffix(tag, "-snapshot") {
				mask |= 1 << 6
			}
			if may&(1<<7) != 0 && strings.HasPrefix(tag, "dev-") {
				mask |= 1 << 7
			}
		}
		masks[i] = mask
		pairs[i] = floorPair{uint64(im.PushedAt.UnixNano()), uint32(i)}
	}
	pairs = floorSort(pairs)
	var limits [10]uint64
	for r, rule := range p.rules {
		limits[r] = uint64(now.UnixNano() - rule.Selection.CountNumber*int64(24*time.Hour))
	}
	var counts [10]uint32
	out := make([]uint8, len(images))
	for j := len(pairs) - 1; j >= 0; j-- {
		mask := masks[pairs[j].i]
		for m := mask & counted; m != 0; m &= m - 1 {
			counts[bitsOf[m&-m]]++
		}
		owner := bitsOf[mask&-mask]
		due := pairs[j].at < limits[owner]
		if counted>>owner&1 == 1 {
			due = counts[owner] > uint32(p.rules[owner].Selection.CountNumber)
		}
		if due {
			out[pairs[j].i] = owner + 1
		}
	}
	return out
}

var bitsOf = func() (out [1<<9 + 1]uint8) {
	for b := range 10 {
		out[1<<b] = uint8(b)
	}
	return out
}()

type floorPair struct {
	at uint64
	i  uint32
}

// floorSort sorts by LSD radix, bytes that are the same everywhere left out.
func floorSort(a []floorPair) []floorPair {
	b := make([]floorPair, len(a))
	var counts [8][256]uint32
	for i := range a {
		for d := range 8 {
			counts[d][a[i].at>>(8*d)&255]++
		}
	}
	for d := range 8 {
		c := &counts[d]
		if c[a[0].at>>(8*d)&255] == uint32(len(a)) {
			continue
		}
		sum := uint32(0)
		for k, n := range c {
			c[k] = sum
			sum += n
		}
		for i := range a {
			slot := &c[a[i].at>>(8*d)&255]
			b[*slot] = a[i]
			*slot++
		}
		a, b = b, a
	}
	return a
}

// TestFloorAndNaiveGiveTheSameAnswer keeps the benchmark fair.
func TestFloorAndNaiveGiveTheSameAnswer(t *testing.T) {
	p := mustParse(t, tenRules)
	images := benchImages(20_000, false)
	want := naive(p, images, benchNow)
	least := floor(p, images, benchNow)
	plan := Evaluate(p, images, benchNow)
	acts := 0
	for i := range images {
		v := plan.Verdict(i)
		if rule := want[images[i].Digest]; v.Rule != rule || int64(least[i]) != rule {
			t.Fatalf("naive says rule %d, the floor %d, of %s: %s", rule, least[i], images[i].name(), v)
		}
		if v.Rule != 0 {
			acts++
		}
	}
	if acts < 1000 || acts > 19_000 {
		t.Errorf("rules act on %d images: no good policy for a benchmark", acts)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	p := mustParse(b, tenRules)
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		run := func(name string, images func() []Image, evaluate func([]Image)) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				images := images()
				b.ReportAllocs()
				for b.Loop() {
					evaluate(images)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/image")
			})
		}
		plain := sync.OnceValue(func() []Image { return benchImages(n, false) })
		graph := func() []Image { return benchImages(n, true) }
		inOrder := func() []Image {
			images := benchImages(n, false)
			slices.SortFunc(images, func(a, b Image) int { return a.PushedAt.Compare(b.PushedAt) })
			for i := range images {
				images[i].Tags = slices.Clone(images[i].Tags) // in order in memory, too
				for j := range images[i].Tags {
					images[i].Tags[j] = strings.Clone(images[i].Tags[j])
				}
			}
			return images
		}
		wharfage := func(images []Image) { Evaluate(p, images, benchNow) }
		run("floor", plain, func(images []Image) { floor(p, images, benchNow) })
		run("wharfage", plain, wharfage)
		if n <= 100_000 {
			run("naive", plain, func(images []Image) { naive(p, images, benchNow) })
		}
		run("inOrder", inOrder, wharfage)
		run("graph", graph, wharfage)
	}
}

// BenchmarkRatio takes turns, so that all meet the same machine, and compares the
// best turns, which other work disturbed least: how many times the floor's time an
// evaluation takes, and the naive way how many times that.
func BenchmarkRatio(b *testing.B) {
	p := mustParse(b, tenRules)
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			images := benchImages(n, false)
			best := func(have time.Duration, f func()) time.Duration {
				start := time.Now()
				f()
				return min(have, time.Since(start))
			}
			const never = time.Duration(1<<63 - 1)
			least, ours, others := never, never, never
			for turn := 0; b.Loop(); turn++ {
				least = best(least, func() { floor(p, images, benchNow) })
				ours = best(ours, func() { Evaluate(p, images, benchNow) })
				if n <= 100_000 && turn < 5 {
					others = best(others, func() { naive(p, images, benchNow) })
				}
			}
			b.ReportMetric(float64(ours)/float64(least), "x-floor")
			b.ReportMetric(float64(ours)/float64(n), "ns/image")
			if others < never {
				b.ReportMetric(float64(others)/float64(ours), "naive-x")
			}
		})
	}
}

// BenchmarkPatterns matches a million tags with a hundred patterns, of the kinds
// that other matchers are slow on.
func BenchmarkPatterns(b *testing.B) {
	const tags = 1_000_000
	for name, kind := range map[string]struct {
		pattern func(i int) string
		tag     func(i int) string
	}{
		"plain":     {func(i int) string { return fmt.Sprintf("team%d-*", i) }, func(i int) string { return fmt.Sprintf("team%d-build-%d", i%200, i) }},
		"contains":  {func(i int) string { return fmt.Sprintf("*-x%d-*", i) }, func(i int) string { return fmt.Sprintf("release-x%d-%d", i%200, i) }},
		"fourStars": {func(i int) string { return fmt.Sprintf("*a*%d*b*", i) }, func(i int) string { return fmt.Sprintf("abababab%dbaba", i) }},
		"backtrack": {func(i int) string { return fmt.Sprintf("*a*a*a%d*", i) }, func(i int) string { return strings.Repeat("a", 100) + fmt.Sprint(i) }},
		"needles":   {func(i int) string { return "*" + strings.Repeat("a", 20+i%40) + fmt.Sprint("b", i, "*") }, func(i int) string { return strings.Repeat("a", 119) + fmt.Sprint("-", i) }},
	} {
		b.Run(name, func(b *testing.B) {
			var rules []Rule
			for i := range MaxRules {
				rules = append(rules, Rule{
					Priority: int64(i + 1), Action: Action{Type: Expire},
					Selection: Selection{TagStatus: Tagged, TagPatterns: []string{kind.pattern(2 * i), kind.pattern(2*i + 1)}, CountType: ImageCountMoreThan, CountNumber: 5},
				})
			}
			p, err := New(rules...)
			if err != nil {
				b.Fatal(err)
			}
			images := make([]Image, tags)
			for i := range images {
				images[i] = Image{Digest: digest.Digest(fmt.Sprint("sha256:", i)), Tags: []string{kind.tag(i)}, PushedAt: benchNow.Add(-time.Duration(i) * time.Second)}
			}
			for b.Loop() {
				Evaluate(p, images, benchNow)
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/10⁶tags")
		})
	}
}

// TestAllocationsDoNotGrow: a plan takes a few allocations, whatever the number
// of images and of references between them.
func TestAllocationsDoNotGrow(t *testing.T) {
	const most = 60
	p := mustParse(t, tenRules)
	for _, n := range []int{10, 1_000, 30_000} {
		for _, graph := range []bool{false, true} {
			images := benchImages(n, graph)
			if got := testing.AllocsPerRun(3, func() { Evaluate(p, images, benchNow) }); got > most {
				t.Errorf("%d images, with references %v: %v allocations, at most %d", n, graph, got, most)
			}
		}
	}
}

package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
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

// naive is what one writes first: for each rule, filter and sort. It knows no
// archive, indexes and referrers.
func naive(p *Policy, images []Image, now time.Time) []uint8 {
	out := make([]uint8, len(images))
	owned := make([]bool, len(images))
	for r, rule := range p.rules {
		var seen []int
		for i, im := range images {
			if naiveSees(&rule.Selection, im.Tags) {
				seen = append(seen, i)
			}
		}
		sort.Slice(seen, func(a, b int) bool {
			x, y := &images[seen[a]], &images[seen[b]]
			if !x.PushedAt.Equal(y.PushedAt) {
				return x.PushedAt.After(y.PushedAt)
			}
			return x.Digest < y.Digest
		})
		for rank, i := range seen {
			due := rank >= int(rule.Selection.CountNumber)
			if rule.Selection.CountType != ImageCountMoreThan {
				due = now.Sub(images[i].PushedAt) > time.Duration(rule.Selection.CountNumber)*24*time.Hour
			}
			if due && !owned[i] {
				out[i] = uint8(r + 1)
			}
			owned[i] = true
		}
	}
	return out
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
		if !slices.ContainsFunc(tags, func(t string) bool { return naiveGlob(pattern, t) }) {
			return false
		}
	}
	return true
}

func naiveGlob(pattern, tag string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == tag
	}
	if !strings.HasPrefix(tag, parts[0]) {
		return false
	}
	tag = tag[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(tag, part)
		if i < 0 {
			return false
		}
		tag = tag[i+len(part):]
	}
	return strings.HasSuffix(tag, parts[len(parts)-1])
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
	if got := floor(p, images, benchNow); !slices.Equal(got, want) {
		t.Error("floor and naive differ")
	}
	plan := Evaluate(p, images, benchNow)
	acts := 0
	for i := range images {
		v := plan.Verdict(i)
		if v.Rule != int64(want[i]) {
			t.Fatalf("naive says rule %d of %s: %s", want[i], images[i].name(), v)
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
		images := benchImages(n, false)
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/image")
			})
		}
		run("floor", func() { floor(p, images, benchNow) })
		run("wharfage", func() { Evaluate(p, images, benchNow) })
		if n <= 100_000 {
			run("naive", func() { naive(p, images, benchNow) })
		}
		graph := benchImages(n, true)
		run("graph", func() { Evaluate(p, graph, benchNow) })
		slices.SortFunc(images, func(a, b Image) int { return a.PushedAt.Compare(b.PushedAt) })
		run("inOrder", func() { Evaluate(p, images, benchNow) })
	}
}

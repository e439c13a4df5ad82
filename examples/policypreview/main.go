// Command policypreview says what a lifecycle policy would do to a repository of
// any registry, and why, without changing anything.
//
//	policypreview policy.json registry.example/team/app
//
// It reads tags, manifests, what indexes list and what refers to them, with the
// credentials of docker login. When an image was pushed is taken from the
// registry where it says so (Last-Modified of a manifest; the listing of Google's
// registries), else from what the image says of its creation; the table tells
// which. Manifests without a tag that nothing leads to are only seen where the
// registry lists them. Last pulls and storage classes cannot be seen: rules
// about them keep.
//
// Exit status: 0, and 1 for a failure (a policy with faults, a registry that
// does not answer), 2 for wrong arguments, 3 if more would go than -max, -max-share and
// -keep allow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/wharfage/wharfage/lifecycle"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitLimit  = 3
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("policypreview", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: policypreview [flags] POLICY-FILE REGISTRY/REPOSITORY")
		f.PrintDefaults()
	}
	asJSON := f.Bool("json", false, "print JSON")
	all := f.Bool("all", false, "show what stays too")
	plain := f.Bool("plain-http", false, "speak HTTP to hosts other than localhost too")
	at := f.String("at", "", "preview for this `time`, as in 2026-12-31 or 2026-12-31T23:59:59Z (default: now)")
	var l limits
	f.IntVar(&l.max, "max", -1, "exit with 3 if more than this many `images` would go (-1: any number)")
	f.Float64Var(&l.share, "max-share", 1, "exit with 3 if more than this share of the tagged images would go")
	f.Func("keep", "exit with 3 if an image with a tag that matches `pattern` would go, where * is any text; may be repeated", func(s string) error {
		if s == "" {
			return errors.New("the pattern is empty")
		}
		l.keep = append(l.keep, s)
		return nil
	})
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitUsage
	}
	if f.NArg() != 2 {
		fmt.Fprintf(stderr, "policypreview: want a policy file and a repository, have %d arguments\n", f.NArg())
		f.Usage()
		return exitUsage
	}
	now, err := parseTime(*at)
	if err != nil {
		fmt.Fprintln(stderr, "policypreview:", err)
		return exitUsage
	}
	p, err := preview(ctx, f.Arg(0), f.Arg(1), *plain, now)
	if err != nil {
		fmt.Fprintln(stderr, "policypreview:", err)
		return exitFailed
	}
	p.exceeded = l.exceeded(p.plan)
	write := p.writeText
	if *asJSON {
		write = p.writeJSON
	}
	if err := write(stdout, *all); err != nil {
		fmt.Fprintln(stderr, "policypreview:", err)
		return exitFailed
	}
	if len(p.exceeded) > 0 {
		for _, e := range p.exceeded {
			fmt.Fprintln(stderr, "policypreview:", e)
		}
		return exitLimit
	}
	return exitOK
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("-at %q: want a day, as in 2026-12-31, or a time, as in 2026-12-31T23:59:59Z", s)
}

func preview(ctx context.Context, file, reference string, plain bool, now time.Time) (*result, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	policy, err := lifecycle.Parse(string(text))
	if err != nil {
		if invalid, ok := errors.AsType[*lifecycle.InvalidError](err); ok {
			var b strings.Builder
			fmt.Fprintf(&b, "%s is no lifecycle policy:", file)
			for _, fault := range invalid.Fields {
				fmt.Fprintf(&b, "\n  %v", fault)
			}
			return nil, errors.New(b.String())
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	r, err := open(reference, plain)
	if err != nil {
		return nil, err
	}
	found, err := r.images(ctx)
	if err != nil {
		return nil, err
	}
	// No pulls are known.
	if policy, err = policy.With(lifecycle.Options{PullsSince: now}); err != nil {
		return nil, err
	}
	res := &result{repository: reference, notes: r.notes}
	images := make([]lifecycle.Image, len(found))
	for i := range found {
		images[i] = found[i].Image
		res.sources = append(res.sources, found[i].source)
	}
	res.plan = lifecycle.Evaluate(policy, images, now)
	for _, w := range policy.Warnings() {
		res.notes = append(res.notes, "the policy: "+w.String())
	}
	return res, nil
}

// limits are what must not happen.
type limits struct {
	max   int
	share float64
	keep  []string
}

// exceeded says which limits a plan exceeds.
func (l limits) exceeded(p *lifecycle.Plan) (out []string) {
	going, tagged, taggedGoing := 0, 0, 0
	for v := range p.Verdicts() {
		gone := v.Action == lifecycle.Expire || v.Action == lifecycle.Transition
		if gone {
			going++
		}
		if len(v.Image.Tags) == 0 {
			continue
		}
		tagged++
		if !gone {
			continue
		}
		taggedGoing++
		for _, pattern := range l.keep {
			for _, tag := range v.Image.Tags {
				if matches(pattern, tag) {
					out = append(out, fmt.Sprintf("-keep %s: the image with the tag %s would go: %v", pattern, tag, v))
				}
			}
		}
	}
	if l.max >= 0 && going > l.max {
		out = append(out, fmt.Sprintf("-max %d: %d images would go", l.max, going))
	}
	if float64(taggedGoing) > l.share*float64(tagged) {
		out = append(out, fmt.Sprintf("-max-share %v: %d of %d tagged images would go", l.share, taggedGoing, tagged))
	}
	return out
}

// matches takes * for any text.
func matches(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	for i := 0; ok && i <= len(name); i++ {
		if matches(rest, name[i:]) {
			return true
		}
	}
	return false
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

// result is a preview.
type result struct {
	repository string
	plan       *lifecycle.Plan
	sources    []source // by image
	notes      []string
	exceeded   []string // limits
}

// order lists what is to be done, in order, and what stays if all is.
func (r *result) order(all bool) []int {
	out := r.plan.Order()
	for i := range r.plan.Len() {
		if all && r.plan.Action(i) == lifecycle.Keep {
			out = append(out, i)
		}
	}
	return out
}

// counts says where times are from.
func (r *result) counts() string {
	count := map[source]int{}
	for _, s := range r.sources {
		count[s]++
	}
	var parts []string
	for _, s := range []struct {
		source
		text string
	}{{fromRegistry, "of the push, as the registry says"}, {fromConfig, "of the creation, as the image says"}, {fromChild, "of the newest image that the index lists"}, {fromNowhere, "unknown"}} {
		if n := count[s.source]; n > 0 {
			parts = append(parts, fmt.Sprint(n, " ", s.text))
		}
	}
	return strings.Join(parts, ", ")
}

func (r *result) writeText(w io.Writer, all bool) error {
	fmt.Fprintf(w, "%s at %s: %v\n", r.repository, r.plan.Now().UTC().Format(time.RFC3339), r.plan.Summary())
	if r.plan.Len() > 0 {
		fmt.Fprintf(w, "times: %s\n", r.counts())
	}
	for _, note := range r.notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	order := r.order(all)
	if len(order) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ACTION\tRULE\tTAGS\tDIGEST\tTIME\tTIME IS\tWHY")
	for _, i := range order {
		v := r.plan.Verdict(i)
		rule, tags, at := "-", "-", "-"
		if v.Rule != 0 {
			rule = strconv.FormatInt(v.Rule, 10)
		}
		const most = 3
		if n := len(v.Image.Tags); n > 0 {
			tags = strings.Join(v.Image.Tags[:min(n, most)], ",")
			if n > most {
				tags += fmt.Sprintf(",… (%d)", n)
			}
		}
		if !v.Image.PushedAt.IsZero() {
			at = v.Image.PushedAt.UTC().Format(time.RFC3339)
		}
		_, why, _ := strings.Cut(v.String(), ": ")
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Action, rule, tags, v.Image.Digest[:min(len(v.Image.Digest), 19)], at, r.sources[i], why)
	}
	return t.Flush()
}

func (r *result) writeJSON(w io.Writer, all bool) error {
	type line struct {
		Verdict lifecycle.Verdict `json:"verdict"`
		Digest  digest.Digest     `json:"digest"`
		Time    *time.Time        `json:"time,omitempty"`
		Source  source            `json:"timeIs"`
	}
	images := []line{}
	for _, i := range r.order(all) {
		im := line{Verdict: r.plan.Verdict(i), Digest: r.plan.Image(i).Digest, Source: r.sources[i]}
		if t := r.plan.Image(i).PushedAt.UTC(); !t.IsZero() {
			im.Time = &t
		}
		images = append(images, im)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Repository string             `json:"repository"`
		At         time.Time          `json:"at"`
		Summary    lifecycle.Summary  `json:"summary"`
		Notes      []string           `json:"notes,omitempty"`
		Exceeded   []string           `json:"exceeded,omitempty"`
		Images     []line             `json:"images"`
		Preview    *lifecycle.Preview `json:"preview"` // as ECR would show it
	}{r.repository, r.plan.Now().UTC(), r.plan.Summary(), r.notes, r.exceeded, images, r.plan.Preview()})
}

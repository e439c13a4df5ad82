package main

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/referrers"
)

// What a page draws at most of a graph. The graph as text has all of it.
const (
	mostSteps = 250
	mostDeep  = 30
)

// graphView is a graph of referrers as a picture and as a table.
type graphView struct {
	SVG  template.HTML
	Rows []graphRow
	Cut  bool
}

type graphRow struct {
	Name     string
	Kind     referrers.Kind
	URL      string // "" if it is not there
	Digest   digest.Digest
	Relation string
	Indent   int
	Tags     []string
	State    referrers.State
}

func (p *page) graphOf(repo string) *referrers.Graph {
	return &referrers.Graph{Repo: repo, Manifests: p.handler.Manifests, Index: p.handler.Referrers, Tags: true}
}

// drawGraph walks once, and draws what it saw.
func (p *page) drawGraph(ctx context.Context, repo, name string, dgst digest.Digest) (*graphView, error) {
	g := p.graphOf(repo)
	g.MaxSteps, g.MaxDepth = mostSteps, mostDeep
	var out graphView
	var steps []referrers.Step
	for s, err := range g.Walk(ctx, dgst) {
		if limit := (*referrers.LimitError)(nil); errors.As(err, &limit) {
			out.Cut = true
			break
		}
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
		out.Rows = append(out.Rows, newGraphRow(repo, s))
	}
	var b strings.Builder
	link := func(d digest.Digest) string { return imageURL(repo, d) }
	export := referrers.Export{Name: name, Link: link, MaxDrawn: mostSteps}
	err := export.SVG(&b, func(yield func(referrers.Step, error) bool) {
		for _, s := range steps {
			if !yield(s, nil) {
				return
			}
		}
	})
	out.SVG = template.HTML(b.String()) // in which Export has escaped what manifests say
	return &out, err
}

func newGraphRow(repo string, s referrers.Step) graphRow {
	row := graphRow{URL: imageURL(repo, s.Digest), Digest: s.Digest, Indent: min(s.Depth, 8), Tags: s.Tags, State: s.State}
	if s.State == referrers.StateNew {
		row.Name, row.Kind = referrers.Recognize(s.Descriptor)
	}
	switch s.Edge {
	case referrers.EdgeChild:
		row.Relation = "listed by "
		if pl := s.Platform; pl != nil && pl.OS == "unknown" {
			row.Name, row.Kind = "BuildKit attestation", referrers.KindAttestation
		} else if pl != nil {
			row.Relation = strings.Trim(pl.OS+"/"+pl.Architecture+"/"+pl.Variant, "/") + ", listed by "
		}
	case referrers.EdgeReferrer:
		row.Relation = "refers to "
	}
	if row.Relation != "" {
		row.Relation += short(s.From)
	}
	switch s.State {
	case referrers.StateMissing:
		row.Name, row.URL = "Not in the repository", ""
	case referrers.StateAgain:
		row.Name = "Shown above"
	case referrers.StateCycle:
		row.Name = "Back again: a cycle"
	}
	return row
}

// graph writes the whole of it, for programs and documents.
func (p *page) graph(w http.ResponseWriter, r *http.Request, ref string) error {
	repo, dgst, err := p.find(r, ref)
	if err != nil {
		return err
	}
	export := referrers.Export{Name: repo, Annotations: true}
	write, contentType := export.Tree, "text/plain; charset=utf-8"
	switch r.URL.Query().Get("as") {
	case "", "tree":
	case "dot":
		write = export.DOT
	case "mermaid":
		write = export.Mermaid
	case "json":
		write, contentType = export.JSON, "application/json"
	case "svg":
		write, contentType = export.SVG, "image/svg+xml"
	default:
		return &pageError{http.StatusBadRequest, "A graph can be had as tree, dot, mermaid, json or svg."}
	}
	ctx := r.Context()
	if _, err := p.handler.Manifests.Get(ctx, repo, dgst); err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	if err := write(w, p.graphOf(repo).Walk(ctx, dgst)); err != nil && ctx.Err() == nil {
		p.tell(r, err) // what was written says so
	}
	return nil
}

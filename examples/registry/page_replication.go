package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// status tells how far an image has been copied. It is nil where nothing is.
// Destinations are asked where no job tells; those that are slow are left out.
func (p *page) status(ctx context.Context, repo string, dgst digest.Digest) (*replication.ImageStatus, error) {
	if p.copies == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := p.copies.Status(ctx, repo, manifest.ImageID{Digest: dgst})
	return &s, err
}

// replication answers with the status of an image, as JSON.
func (p *page) replication(w http.ResponseWriter, r *http.Request, ref string) error {
	repo, dgst, err := p.find(r, ref)
	if err != nil {
		return err
	}
	s, err := p.status(r.Context(), repo, dgst)
	if err != nil {
		return err
	}
	if s == nil {
		return notFound("This registry copies nothing elsewhere.")
	}
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(body, '\n'))
	return nil
}

// routesView is what a repository is a cache of, and where it is copied.
type routesView struct {
	CacheOf string   // "" if it is none
	Copies  []string // whereto
}

func (p *page) routes(ctx context.Context, repo string) (out routesView, err error) {
	if r, upstream, ok := p.cached.Upstream(repo); ok {
		out.CacheOf = r.UpstreamURL + "/" + upstream
	}
	if p.copies == nil {
		return out, nil
	}
	c, err := p.copies.Configuration(ctx)
	for _, route := range c.Match(repo) {
		to := route.To.String()
		if route.Deletes {
			to += ", deletions too"
		}
		out.Copies = append(out.Copies, to)
	}
	return out, err
}

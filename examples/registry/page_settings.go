package main

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/scan"
)

// settingsView is what is set for a repository, as a page says it.
type settingsView struct {
	Mutability string   // which tags may move
	Except     []string // tags for which it is the other way round
	Policy     string   // whose lifecycle policy is in force
	PolicyURL  string   // "" if there is none
	Scans      string   // when images are scanned
	Filters    []string // that say so
	Encryption repository.Encryption
	Labels     []repository.ResourceTag
	CreatedAt  time.Time // zero if nobody has made it
	routesView
}

// Summary is the settings in a line.
func (s *settingsView) Summary() string {
	except := ""
	if len(s.Except) > 0 {
		except = ", with exceptions"
	}
	summary := s.Mutability + except + " · " + s.Policy + " · " + s.Scans
	if s.CacheOf != "" {
		summary += " · a cache"
	}
	switch n := len(s.Copies); {
	case n == 1:
		summary += " · copied to another registry"
	case n > 1:
		summary += " · copied to " + number(n) + " registries"
	}
	return summary
}

// templateView is a template, as the page says it.
type templateView struct{ Prefix, For, Mutability, Policy, Description string }

func (p *page) templateViews() (out []templateView) {
	for _, t := range p.templates {
		v := templateView{t.Prefix, "", mutability(&t.Settings), "none", t.Description}
		for i, c := range t.AppliedFor {
			if i > 0 {
				v.For += ", "
			}
			v.For += map[repository.Cause]string{repository.CausePush: "pushes", repository.CauseReplication: "copies", repository.CauseCache: "the cache"}[c]
		}
		if t.Prefix == repository.Root {
			v.Prefix = "any other"
		}
		if t.LifecyclePolicy != "" {
			v.Policy = "its own"
		}
		out = append(out, v)
	}
	return out
}

func mutability(s *repository.Settings) string {
	if strings.HasPrefix(s.TagMutability, "IMMUTABLE") {
		return "tags do not move"
	}
	return "tags may move"
}

// made returns a repository, the zero one where any name is a repository.
func (p *page) made(r *http.Request, repo string) (repository.Repository, error) {
	if p.handler.Repositories == nil {
		return repository.Repository{}, nil
	}
	have, err := p.handler.Repositories.Get(r.Context(), repo)
	if errors.Is(err, repository.ErrNotFound) {
		err = notFound("There is no repository %s.", repo)
	}
	return have, err
}

func (p *page) settings(r *http.Request, repo string) (*settingsView, error) {
	have, err := p.made(r, repo)
	if err != nil {
		return nil, err
	}
	out := &settingsView{
		Mutability: mutability(&have.Settings), Policy: "no lifecycle policy", Scans: "no scans",
		Encryption: have.Encryption, Labels: have.ResourceTags, CreatedAt: have.CreatedAt,
	}
	if out.routesView, err = p.routes(r.Context(), repo); err != nil {
		return nil, err
	}
	for _, f := range have.TagMutabilityNot {
		out.Except = append(out.Except, f.Filter)
	}
	if p.policy != nil {
		switch policy, err := p.policy(r.Context(), repo); {
		case err != nil:
			p.tell(r, err)
			out.Policy = "a lifecycle policy that cannot be read"
		case policy != nil:
			out.Policy, out.PolicyURL = "the server's lifecycle policy", "/ui/lifecycle/"+repo+"?policy="+inForce
			if have.LifecyclePolicy != "" {
				out.Policy = "a lifecycle policy of its own"
			}
		}
	}
	if p.scanning != nil {
		f, filters := p.scanning.Frequency(repo)
		out.Scans = map[scan.Frequency]string{
			scan.Off: "no scans", scan.Manual: "scans by hand", scan.OnPush: "scans on push", scan.Continuous: "scans on push, and each day",
		}[f]
		for _, filter := range filters {
			out.Filters = append(out.Filters, filter.Filter)
		}
	}
	return out, nil
}

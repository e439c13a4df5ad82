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
}

// Summary is the settings in a line.
func (s *settingsView) Summary() string {
	except := ""
	if len(s.Except) > 0 {
		except = ", with exceptions"
	}
	return s.Mutability + except + " · " + s.Policy + " · " + s.Scans
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
		Mutability: "tags may move", Policy: "no lifecycle policy", Scans: "no scans",
		Encryption: have.Encryption, Labels: have.ResourceTags, CreatedAt: have.CreatedAt,
	}
	if strings.HasPrefix(have.TagMutability, "IMMUTABLE") {
		out.Mutability = "tags do not move"
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

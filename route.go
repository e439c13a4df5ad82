package wharfage

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/wharfage/wharfage/manifest"
)

type routeKind uint8

const (
	routePing routeKind = iota
	routeCatalog
	routeTags
	routeReferrers
	routeManifest
	routeBlob
	routeUploads // where uploads begin
	routeUpload  // one upload
)

type route struct {
	kind routeKind
	repo string
	ref  string // tag, digest or upload ID

	query url.Values

	mutability manifest.TagMutability // of tags in repo, if the Handler has Repositories
}

var errNoRoute = &statusError{http.StatusNotFound, codeNameUnknown, "no such path in the distribution API"}

// parseQuery refuses what two readers could take for different queries.
func parseQuery(s string) (url.Values, error) {
	if s == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(s)
	if err != nil {
		return nil, badRequest(codeUnsupported, "query %s: %v", quote(s), err)
	}
	for _, name := range []string{"digest", "digest-algorithm", "mount", "from", "n", "last"} {
		if len(q[name]) > 1 {
			return nil, badRequest(codeUnsupported, "the parameter %s is there %d times", name, len(q[name]))
		}
	}
	return q, nil
}

// parseRoute reads a path from the right, since a repository name may itself
// have components such as "blobs" or "manifests".
func parseRoute(u *url.URL) (route, error) {
	path := u.Path
	if strings.Contains(u.RawPath, "%2") && strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		// An escaped slash would make another name for the same repository.
		return route{}, &statusError{http.StatusBadRequest, codeNameInvalid, "a path has no escaped slash"}
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || ok && rest == "":
		return route{kind: routePing}, nil
	case !ok:
		return route{}, errNoRoute
	case rest == "_catalog":
		return route{kind: routeCatalog}, nil
	}
	var rt route
	if rt.repo, ok = strings.CutSuffix(rest, "/tags/list"); ok {
		rt.kind = routeTags
	} else if rt.repo, ok = strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		rt.kind = routeUploads
	} else {
		slash := strings.LastIndexByte(rest, '/')
		if slash < 0 {
			return route{}, errNoRoute
		}
		rest, rt.ref = rest[:slash], rest[slash+1:]
		if rt.repo, ok = strings.CutSuffix(rest, "/manifests"); ok {
			rt.kind = routeManifest
		} else if rt.repo, ok = strings.CutSuffix(rest, "/blobs/uploads"); ok {
			rt.kind = routeUpload
		} else if rt.repo, ok = strings.CutSuffix(rest, "/blobs"); ok {
			rt.kind = routeBlob
		} else if rt.repo, ok = strings.CutSuffix(rest, "/referrers"); ok {
			rt.kind = routeReferrers
		} else {
			return route{}, errNoRoute
		}
	}
	if err := manifest.CheckRepository(rt.repo); err != nil {
		return route{}, err
	}
	return rt, nil
}

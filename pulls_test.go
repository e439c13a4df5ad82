package wharfage

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func TestOnPullTellsWhatWasGot(t *testing.T) {
	h := NewMemory()
	var pulls []string
	h.OnPull = func(r *http.Request, repo string, dgst digest.Digest) {
		pulls = append(pulls, fmt.Sprint(r.Method, " ", repo, " ", dgst))
	}
	server := httptest.NewServer(h)
	defer server.Close()
	raw, desc, err := manifest.IndexDraft{}.Build()
	if err != nil {
		t.Fatal(err)
	}
	url := server.URL + "/v2/team/app/manifests/"
	got := "GET team/app " + string(desc.Digest)
	for _, c := range []struct {
		method, url string
		header      []string
		status      int
		told        []string
	}{
		{"PUT", url + "v1", []string{"Content-Type", manifest.MediaTypeIndex}, 201, nil},
		{"HEAD", url + "v1", nil, 200, nil},
		{"GET", url + "v2", nil, 404, nil},
		{"GET", server.URL + "/v2/team/app/tags/list", nil, 200, nil},
		{"GET", url + "v1", nil, 200, []string{got}},
		{"GET", url + string(desc.Digest), nil, 200, []string{got}},
		{"GET", url + "v1", []string{"If-None-Match", `"` + string(desc.Digest) + `"`}, 304, []string{got}},
	} {
		pulls = nil
		resp, answer := send(t, c.method, c.url, raw, c.header...)
		if resp.StatusCode != c.status || !slices.Equal(pulls, c.told) {
			t.Errorf("%s %s: %d %s, told of %q, want %d, %q", c.method, c.url, resp.StatusCode, answer, pulls, c.status, c.told)
		}
	}
}

// replacedOnce moves a tag and removes what it named, once it has told where the
// tag is.
type replacedOnce struct {
	*memmanifest.Store
	replace manifest.Change
	once    sync.Once
}

func (s *replacedOnce) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t, err := s.Store.Resolve(ctx, repo, tag)
	s.once.Do(func() {
		if err := s.Store.Apply(ctx, repo, s.replace); err != nil {
			panic(err)
		}
	})
	return t, err
}

func TestATagThatIsReplacedIsThereAllTheTime(t *testing.T) {
	for _, method := range []string{"GET", "HEAD"} {
		for _, hide := range []bool{false, true} {
			h := NewMemory()
			h.HideArchived = hide
			s := serve(t, h)
			one, d1 := index(t, "1")
			two, d2 := index(t, "2")
			s.put("app/manifests/v1", one, 201, "")
			s.put("app/manifests/"+string(d2), two, 201, "")
			h.Manifests = &replacedOnce{Store: h.Manifests.(*memmanifest.Store), replace: manifest.Change{
				Tags: []manifest.TagMove{{Name: "v1", To: d2}}, Delete: []manifest.Removal{{Digest: d1}},
			}}
			resp, answer := send(t, method, s.url+"app/manifests/v1", nil)
			if got := resp.Header.Get("Docker-Content-Digest"); resp.StatusCode != 200 || got != string(d2) {
				t.Errorf("%s, archive hidden %v: %s %s %s", method, hide, resp.Status, got, answer)
			}
		}
	}
}

package wharfage

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
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

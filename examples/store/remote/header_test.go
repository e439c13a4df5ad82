package remote

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What the operator adds to requests goes to the registry, and not where it redirects to.
func TestAHeaderStaysAtTheOrigin(t *testing.T) {
	const content = "layer"
	seen := map[string]string{}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen["elsewhere"] = r.Header.Get("X-Via")
		w.Write([]byte(content))
	}))
	defer elsewhere.Close()
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen["home"] = r.Header.Get("X-Via")
		http.Redirect(w, r, elsewhere.URL+"/blob", http.StatusTemporaryRedirect)
	}))
	defer home.Close()
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	r := &Registry{Host: host(home), Allow: []string{host(elsewhere)}, Header: http.Header{"X-Via": {"me"}}}
	body, _, err := r.Source().Blobs.Open(t.Context(), "team/app", digest.FromString(content), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if seen["home"] != "me" || seen["elsewhere"] != "" || len(seen) != 2 {
		t.Errorf("seen %q", seen)
	}
}

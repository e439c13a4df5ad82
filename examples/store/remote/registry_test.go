package remote

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/replicationtest"
)

// serve returns a client of a server.
func serve(t testing.TB, h http.Handler) *Registry {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &Registry{Host: strings.TrimPrefix(server.URL, "http://")}
}

// handlers are our own registry in forms that others have.
var handlers = map[string]func(*wharfage.Handler) http.Handler{
	"wharfage": func(h *wharfage.Handler) http.Handler { return h },
	"no referrers API": func(h *wharfage.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				http.NotFound(w, r)
				return
			}
			h.ServeHTTP(without{w, []string{"Oci-Subject"}}, r)
		})
	},
	"the least of an API": func(h *wharfage.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			switch {
			case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/manifests/") && !strings.Contains(r.URL.Path, "sha"):
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			case q.Has("mount") && strings.Contains(r.URL.Path, "/"+q.Get("from")+"/blobs/"):
				w.WriteHeader(http.StatusBadRequest)
				return
			case q.Has("tag"):
				q.Del("tag")
				r.URL.RawQuery = q.Encode()
			}
			r.Header.Del("Range")
			h.ServeHTTP(without{w, []string{"Docker-Content-Digest", "Etag", "Docker-Upload-Uuid"}}, r)
		})
	},
}

// without leaves headers out of an answer.
type without struct {
	http.ResponseWriter
	headers []string
}

func (w without) WriteHeader(status int) {
	for _, h := range w.headers {
		w.Header().Del(h)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w without) Write(p []byte) (int, error) {
	for _, h := range w.headers {
		w.Header().Del(h)
	}
	return w.ResponseWriter.Write(p)
}

func TestSource(t *testing.T) {
	for name, form := range handlers {
		t.Run(name, func(t *testing.T) {
			replicationtest.TestSource(t, func(t testing.TB) (replication.Source, replicationtest.Backing) {
				h := wharfage.NewMemory()
				source := serve(t, form(h)).Source()
				if name == "no referrers API" {
					source.Referrers = nil // its list is what clients write, not the stores behind
				}
				return source, replicationtest.Backing{Blobs: h.Blobs, Manifests: h.Manifests}
			})
		})
	}
}

func TestTarget(t *testing.T) {
	for name, form := range handlers {
		t.Run(name, func(t *testing.T) {
			replicationtest.TestTarget(t, func(t testing.TB) (replication.Target, replicationtest.Backing) {
				h := wharfage.NewMemory()
				target := serve(t, form(h)).Target()
				if name == "no referrers API" {
					target.Referrers = nil
				}
				return target, replicationtest.Backing{Blobs: h.Blobs, Manifests: h.Manifests}
			})
		})
	}
}

package remote

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/replication"
)

// gate is a registry behind a token server, or behind a password.
type gate struct {
	basic    bool
	lifetime int // requests that a token is good for

	registry http.Handler
	mu       sync.Mutex
	issued   int
	used     map[string]int
	scopes   []string // that tokens were asked for
	requests []string
	url      string
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, r.Method+" "+r.URL.Path)
	user, pass, basic := r.BasicAuth()
	switch {
	case r.URL.Path == "/token" && r.Method == http.MethodPost:
		r.ParseForm()
		if r.Form.Get("grant_type") != "refresh_token" || r.Form.Get("refresh_token") != password || r.Form.Get("service") != "s" || r.Form.Get("client_id") == "" {
			w.WriteHeader(401)
			return
		}
		g.scopes = append(g.scopes, r.Form.Get("scope"))
		g.issued++
		fmt.Fprintf(w, `{"access_token":"t%d"}`, g.issued)
	case r.URL.Path == "/token":
		if basic && (user != "user" || pass != password) {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"details":"incorrect username or password"}`)
			return
		}
		g.scopes = append(g.scopes, strings.Join(r.URL.Query()["scope"], " "))
		g.issued++
		fmt.Fprintf(w, `{"token":"t%d"}`, g.issued)
	case g.basic && user == "user" && pass == password:
		g.registry.ServeHTTP(w, r)
	case g.basic:
		w.Header().Set("Www-Authenticate", `Basic realm="r"`)
		w.WriteHeader(401)
	default:
		token := r.Header.Get("Authorization")
		if g.used[token]++; !strings.HasPrefix(token, "Bearer t") || g.used[token] > g.lifetime {
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="repository:a/b:pull"`, g.url))
			w.WriteHeader(401)
			return
		}
		g.registry.ServeHTTP(w, r)
	}
}

func (g *gate) open(t *testing.T) *Registry {
	g.registry = wharfage.NewMemory()
	g.used = map[string]int{}
	if g.lifetime == 0 {
		g.lifetime = 1000
	}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	g.url = server.URL
	return &Registry{Host: strings.TrimPrefix(server.URL, "http://")}
}

func describe(content string) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
}

// Docker's file and its helpers are where credentials come from.
func TestDockerCredentials(t *testing.T) {
	pair := base64.StdEncoding.EncodeToString([]byte("user:" + password))
	for _, form := range []string{"file", "helper"} {
		for _, basic := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s basic %v", form, basic), func(t *testing.T) {
				g := &gate{basic: basic}
				r := g.open(t)
				dir := t.TempDir()
				t.Setenv("DOCKER_CONFIG", dir)
				config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host, pair)
				if form == "helper" {
					if runtime.GOOS == "windows" {
						t.Skip("the helper is a shell script")
					}
					config = fmt.Sprintf(`{"credHelpers":{%q:"canary"}}`, r.Host)
					script := fmt.Sprintf("#!/bin/sh\nread host\n[ \"$host\" = %q ] && echo '{\"Username\":\"user\",\"Secret\":\"%s\"}'\n", r.Host, password)
					if err := os.WriteFile(filepath.Join(dir, "docker-credential-canary"), []byte(script), 0o700); err != nil {
						t.Fatal(err)
					}
					t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
				}
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
					t.Fatal(err)
				}
				var err error
				if r.Credential, err = DockerCredentials(); err != nil {
					t.Fatal(err)
				}
				if err := blob.Put(t.Context(), r.Target().Blobs, "a/b", describe(form), strings.NewReader(form)); err != nil {
					t.Fatal(err)
				}
				if _, err := blob.ReadAll(t.Context(), r.Target().Blobs.(blob.Reader), "a/b", describe(form)); err != nil {
					t.Error(err)
				}
				if !basic && (g.issued != 1 || !slices.Equal(g.scopes, []string{"repository:a/b:pull,push"})) {
					t.Errorf("%d tokens for %q: %q", g.issued, g.scopes, g.requests)
				}
			})
		}
	}
}

func TestTokens(t *testing.T) {
	t.Run("anonymous", func(t *testing.T) {
		g := &gate{}
		if err := open(t.Context(), g.open(t)); !errors.Is(err, blob.ErrNotFound) || !slices.Equal(g.scopes, []string{"repository:a/b:pull"}) {
			t.Errorf("%v, scopes %q", err, g.scopes)
		}
	})
	t.Run("refresh token", func(t *testing.T) {
		g := &gate{}
		r := g.open(t)
		r.Credential = auth.StaticCredential(r.Host, auth.Credential{RefreshToken: password})
		if err := open(t.Context(), r); !errors.Is(err, blob.ErrNotFound) || g.issued != 1 {
			t.Errorf("%v, %d tokens", err, g.issued)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		for _, basic := range []bool{false, true} {
			g := &gate{basic: basic}
			r := g.open(t)
			r.Credential = auth.StaticCredential(r.Host, auth.Credential{Username: "user", Password: "wrong-" + password})
			err := open(t.Context(), r)
			if !errors.Is(err, replication.ErrDenied) || strings.Contains(err.Error(), password) {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("a helper that fails", func(t *testing.T) {
		t.Setenv("DOCKER_CONFIG", t.TempDir())
		t.Setenv("PATH", "")
		r := (&gate{}).open(t)
		if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(`{"credsStore":"nowhere"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if r.Credential, err = DockerCredentials(); err != nil {
			t.Fatal(err)
		}
		if err := open(t.Context(), r); err == nil || !strings.Contains(err.Error(), "credentials of") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("one at a time for many", func(t *testing.T) {
		g := &gate{}
		r := g.open(t)
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 30 {
			all.Go(func() {
				<-start
				if err := open(t.Context(), r); !errors.Is(err, blob.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		if g.issued > 16 { // as many as may be under way when the first comes
			t.Errorf("%d tokens", g.issued)
		}
	})
	t.Run("content is sent again when a token has run out", func(t *testing.T) {
		g := &gate{lifetime: 1}
		r := g.open(t)
		content := strings.Repeat("content", 1000)
		opened := 0
		_, err := r.Target().Blobs.(replication.Receiver).Receive(t.Context(), "a/b", describe(content), nil, func(_ context.Context, off int64) (io.ReadCloser, error) {
			opened++
			return io.NopCloser(strings.NewReader(content[off:])), nil
		})
		if err != nil || opened != 2 {
			t.Errorf("opened %d times: %v", opened, err)
		}
		err = blob.Put(t.Context(), r.Target().Blobs, "a/b", describe("once"), strings.NewReader("once"))
		if _, temporary := errors.AsType[*replication.TemporaryError](err); !temporary || !errors.Is(err, errOneShot) {
			t.Errorf("content that can be read once: %v", err)
		}
	})
}

func TestChallenges(t *testing.T) {
	for in, want := range map[string]challenge{
		`Basic realm="x"`: {scheme: "basic", realm: "x"},
		`basic`:           {scheme: "basic"},
		`Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"`: {"bearer", "https://a/t", "s", "repository:a:pull,push"},
		`BEARER Realm = "https://a/t" , x=y`:                                    {scheme: "bearer", realm: "https://a/t"},
		`Bearer realm="a\"b\\c"`:                                                {scheme: "bearer", realm: `a"b\c`},
		`Basic realm="x", Bearer realm="y"`:                                     {scheme: "bearer", realm: "y"},
		`Negotiate, Basic realm="x"`:                                            {scheme: "basic", realm: "x"},
		`Bearer realm="a",realm="b"`:                                            {},
		`Bearer realm="a",REALM="b"`:                                            {},
		`Bearer realm="a", Bearer realm="b"`:                                    {},
		`Bearer realm="a`:                                                       {},
		`Bearer realm=`:                                                         {},
		`"Bearer"`:                                                              {},
		`Negotiate abc==, Basic realm="x"`:                                      {},
		"":                                                                      {},
	} {
		if got := readChallenge([]string{in}); got != want {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
	if got := readChallenge([]string{`Basic realm="x"`, `Bearer realm="y"`}); got.realm != "y" {
		t.Errorf("of two headers: %+v", got)
	}
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://a/t",service="s"`, `Basic , Bearer a="\`, `a b=c d=,`, "\xff=", `x ,,=`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := readChallenge([]string{s})
		if c.scheme != "" && c.scheme != "basic" && c.scheme != "bearer" || c.scheme == "" && c != (challenge{}) {
			t.Errorf("%+v", c)
		}
	})
}

func TestRealms(t *testing.T) {
	for _, c := range []struct {
		registry, realm string
		trusted, ok     bool
	}{
		{"https://registry.example.com", "https://registry.example.com/token", true, true},
		{"https://registry.example.com", "https://REGISTRY.example.com:443/token", true, true},
		{"https://registry-1.docker.io", "https://auth.docker.io/token", true, true},
		{"https://registry.example.co.uk", "https://other.co.uk/token", false, true},
		{"https://a.github.io", "https://b.github.io/token", false, true},
		{"https://github.io", "https://github.io.evil.test/token", false, true},
		{"https://registry.team.svc.cluster.local", "https://evil.other.svc.cluster.local/token", false, true},
		{"https://10.0.0.1", "https://10.0.0.2/token", false, true},
		{"https://10.0.0.1:5000", "https://10.0.0.1:5001/token", false, true},
		{"http://localhost:5000", "http://localhost:5001/token", false, true},
		{"https://registry.example.com", "https://listed.test:8443/token", true, true},
		{"https://registry.example.com", "https://listed.test/token", false, true},
		{"https://registry.example.com", "http://registry.example.com/token", false, false},
		{"http://registry.example.com", "http://auth.example.com/token", true, true},
		{"https://registry.example.com", "/token", false, false},
		{"https://registry.example.com", "//registry.example.com/token", false, false},
		{"https://registry.example.com", "https://registry.example.com@evil.test/token", false, false},
		{"https://registry.example.com", `https://evil.test\@registry.example.com/`, false, false},
		{"https://registry.example.com", "file:///etc/passwd", false, false},
		{"https://registry.example.com", "", false, false},
		{"https://registry.example.com.", "https://evil.com./token", false, true},
	} {
		base, err := url.Parse(c.registry)
		if err != nil {
			t.Fatal(err)
		}
		if _, trusted, err := realmURL(base, c.realm, []string{"https://listed.test:8443"}); trusted != c.trusted || (err == nil) != c.ok {
			t.Errorf("%s, realm %q: %v, %v", c.registry, c.realm, trusted, err)
		}
	}
}

// A Registry whose fields cannot be right says so before it asks anybody.
func TestCheck(t *testing.T) {
	for _, r := range []*Registry{{}, {Host: "user@host"}, {Host: "host/path"}, {Host: "https://host"}, {Host: "host", Scheme: "ftp"}, {Host: "host", Realms: []string{"auth.example"}}} {
		if err := r.Check(); err == nil {
			t.Errorf("%q %q %q passes", r.Host, r.Scheme, r.Realms)
		} else if err := getEmpty(r); err == nil {
			t.Errorf("%q: a request has no error", r.Host)
		}
	}
	for host, want := range map[string]string{"docker.io": "https://registry-1.docker.io/v2/", "localhost:5000": "http://localhost:5000/v2/", "[::1]:5000": "http://[::1]:5000/v2/", "10.0.0.1": "https://10.0.0.1/v2/"} {
		r := &Registry{Host: host}
		if err := r.Check(); err != nil || r.base.String() != want {
			t.Errorf("%s: %v, %v", host, r.base, err)
		}
	}
}

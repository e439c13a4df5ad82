package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/internal/vectors"
)

var vectorsDir = flag.String("vectors", "../../../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

// The secrets, in the forms that they travel in.
const (
	password = "canary-password"
	issued   = "canary-token"
)

var (
	basicPair = base64.StdEncoding.EncodeToString([]byte("user:" + password))
	secrets   = []string{password, url.QueryEscape(password), basicPair, issued}
)

// world is all hosts there are. It sees every request.
type world struct {
	home    *url.URL
	trusted string // an origin that may see the password too
	answer  func(w *world, req *http.Request) *http.Response

	mu                           sync.Mutex
	atHome, atTrusted, elsewhere int
	requests                     []string
}

func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent bytes.Buffer
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	fmt.Fprintln(&sent, req.URL, body)
	req.Header.Write(&sent)
	sent.Write(body)
	count := 0
	for _, s := range secrets {
		count += strings.Count(sent.String(), s)
	}
	w.mu.Lock()
	w.requests = append(w.requests, req.Method+" "+req.URL.String())
	switch origin := req.URL.Scheme + "://" + req.URL.Host; {
	case sameOrigin(w.home, req.URL):
		w.atHome += count
	case origin == w.trusted && !strings.Contains(sent.String(), issued):
		w.atTrusted += count
	default:
		w.elsewhere += count
	}
	w.mu.Unlock()
	resp := w.answer(w, req)
	resp.Request = req
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	return resp, nil
}

func (w *world) isHome(req *http.Request) bool { return sameOrigin(w.home, req.URL) }

func status(code int, header ...string) *http.Response {
	resp := &http.Response{StatusCode: code, ProtoMajor: 1, Header: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Add(header[i], header[i+1])
	}
	return resp
}

func text(code int, s string, header ...string) *http.Response {
	resp := status(code, header...)
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s))
	return resp
}

// behind asks for a login by a challenge, and answers others by then.
func behind(challenge string, then func(w *world, req *http.Request) *http.Response) func(*world, *http.Request) *http.Response {
	return func(w *world, req *http.Request) *http.Response {
		switch {
		case !w.isHome(req), strings.HasSuffix(req.URL.Path, "/token"):
			return then(w, req)
		case req.Header.Get("Authorization") == "":
			return status(401, "Www-Authenticate", challenge)
		}
		return then(w, req)
	}
}

func tokens(_ *world, req *http.Request) *http.Response {
	if req.Method == http.MethodHead {
		return status(200, "Docker-Content-Digest", string(digest.FromString("x")))
	}
	return text(200, `{"token":"`+issued+`"}`)
}

// scenario is what a registry may do to get at credentials.
type scenario struct {
	name, registry, trusted string
	answer                  func(w *world, req *http.Request) *http.Response
	act                     func(ctx context.Context, r *Registry) error
	works                   bool
	realm                   string // of the challenge
}

func resolve(ctx context.Context, r *Registry) error {
	_, err := r.Source().Manifests.Resolve(ctx, "a/b", "v1")
	return err
}

func open(ctx context.Context, r *Registry) error {
	content, _, err := r.Source().Blobs.Open(ctx, "a/b", digest.FromString("x"), 0, -1)
	if err == nil {
		_, err = io.Copy(io.Discard, content)
		content.Close()
	}
	return err
}

func put(ctx context.Context, r *Registry) error {
	return blob.Put(ctx, r.Target().Blobs, "a/b", ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}, strings.NewReader("x"))
}

const home = "https://registry.example.com"

func scenarios(t *testing.T) (out []scenario) {
	cases, err := vectors.Hostile(*vectorsDir, "auth-challenge", "location", "fetch-url")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range cases {
		s := scenario{name: v.Kind + "/" + v.ID, works: v.Accept()}
		switch v.Kind {
		case "auth-challenge":
			var in struct {
				Registry     string
				Authenticate string `json:"www_authenticate"`
			}
			if err := json.Unmarshal(v.Input, &in); err != nil {
				t.Fatal(err)
			}
			s.registry, s.answer, s.act = in.Registry, behind(in.Authenticate, tokens), resolve
			s.realm = readChallenge([]string{in.Authenticate}).realm
			if u, err := url.Parse(s.realm); err == nil && v.Accept() {
				s.trusted = u.Scheme + "://" + u.Host
			}
		case "location":
			var in struct{ Request, Location string }
			if err := json.Unmarshal(v.Input, &in); err != nil {
				t.Fatal(err)
			}
			at, err := url.Parse(in.Request)
			if err != nil {
				t.Fatal(err)
			}
			s.registry, s.act = at.Scheme+"://"+at.Host, put
			s.answer = behind(`Basic realm="r"`, func(w *world, req *http.Request) *http.Response {
				if req.Method == http.MethodPost {
					return status(202, "Location", in.Location)
				}
				return status(201)
			})
			s.works = false // whether or not, the secret stays
		case "fetch-url":
			s.registry, s.act = home, open
			s.answer = behind(`Basic realm="r"`, func(w *world, req *http.Request) *http.Response {
				if w.isHome(req) {
					return status(307, "Location", string(v.Input))
				}
				return text(200, "x")
			})
		}
		out = append(out, s)
	}
	redirect := func(name, challenge, to string, code int, act func(context.Context, *Registry) error) {
		out = append(out, scenario{name: "redirect/" + name, registry: home, act: act, answer: behind(challenge, func(w *world, req *http.Request) *http.Response {
			switch {
			case w.isHome(req) && req.Method == http.MethodPost && code == 307:
				return status(202, "Location", "/v2/a/b/blobs/uploads/1?state=s")
			case w.isHome(req) && req.URL.Path != "/back" && !strings.Contains(req.URL.Path, "token"):
				return status(code, "Location", to)
			case strings.Contains(req.URL.Path, "/token"):
				return tokens(w, req)
			case strings.HasSuffix(req.URL.Path, "/home"):
				return status(302, "Location", home+"/back")
			case strings.HasSuffix(req.URL.Path, "/login"):
				return status(401, "Www-Authenticate", `Bearer realm="https://evil.test/token"`)
			}
			return text(200, "x")
		})})
	}
	for _, challenge := range []string{`Basic realm="r"`, `Bearer realm="` + home + `/token",service="s"`} {
		for _, to := range []string{"https://evil.test/x", "https://registry.example.com:8443/x", "https://sub.registry.example.com/x", "http://registry.example.com/x",
			"https://evil.test/home", "https://evil.test/login", "//evil.test/x", "https://evil.test\\@registry.example.com/", "https://user:pw@evil.test/x"} {
			redirect(challenge[:5]+" GET "+to, challenge, to, 302, open)
			redirect(challenge[:5]+" HEAD "+to, challenge, to, 307, resolve)
			redirect(challenge[:5]+" PUT "+to, challenge, to, 307, put)
		}
	}
	// Token servers that redirect, and those who repeat what they are told.
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, refresh := range []bool{false, true} {
			out = append(out, scenario{name: fmt.Sprintf("token redirect/%d refresh %v", code, refresh), registry: home, act: func(ctx context.Context, r *Registry) error {
				if refresh {
					r.Credential = auth.StaticCredential("registry.example.com", auth.Credential{RefreshToken: password})
				}
				return resolve(ctx, r)
			}, answer: behind(`Bearer realm="`+home+`/token"`, func(w *world, req *http.Request) *http.Response {
				return status(code, "Location", "https://evil.test/token")
			})})
		}
	}
	echo := func(name, challenge string, act func(context.Context, *Registry) error) {
		out = append(out, scenario{name: "echo/" + name, registry: home, act: act, answer: behind(challenge, func(w *world, req *http.Request) *http.Response {
			if strings.HasSuffix(req.URL.Path, "/token") && name == "registry" {
				return tokens(w, req)
			}
			user, pass, _ := req.BasicAuth()
			body, _ := json.Marshal(map[string]any{"errors": []any{map[string]string{"code": "DENIED", "message": "you said " + req.Header.Get("Authorization") + " " + user + ":" + pass}}})
			return text(403, string(body))
		})})
	}
	echo("registry", `Bearer realm="`+home+`/token"`, resolveByGet)
	echo("registry, basic", `Basic realm="r"`, resolveByGet)
	echo("token server", `Bearer realm="`+home+`/token"`, resolveByGet)
	return out
}

func resolveByGet(ctx context.Context, r *Registry) error {
	_, err := r.Source().Manifests.Get(ctx, "a/b", digest.FromString("x"))
	return err
}

// run plays a scenario and returns what was seen of the secrets.
func (s scenario) run(t *testing.T, mutate func(*Registry, *world)) (w *world, inErrors int, err error) {
	at, err := url.Parse(s.registry)
	if err != nil {
		t.Fatal(err)
	}
	w = &world{home: at, trusted: s.trusted, answer: s.answer}
	r := &Registry{Host: at.Host, Scheme: at.Scheme, Transport: w}
	r.Credential = func(context.Context, string) (auth.Credential, error) {
		return auth.Credential{Username: "user", Password: password}, nil // whoever asks
	}
	if mutate != nil {
		mutate(r, w)
	}
	err = s.act(t.Context(), r)
	for _, secret := range secrets {
		inErrors += strings.Count(fmt.Sprintf("%v %+v %#v", err, err, err), secret)
	}
	return w, inErrors, err
}

// Credentials are sent to nobody else, whatever challenge, Location or redirect a
// registry answers with, and are in no error and no log.
func TestCredentialsStayWithTheirOrigin(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(log.Default().Writer())
	atHome, elsewhere, inErrors, all := 0, 0, 0, scenarios(t)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			w, n, err := s.run(t, nil)
			atHome, elsewhere, inErrors = atHome+w.atHome+w.atTrusted, elsewhere+w.elsewhere, inErrors+n
			if w.elsewhere > 0 || n > 0 {
				t.Errorf("a secret is seen %d times elsewhere, %d times in %v: %q", w.elsewhere, n, err, w.requests)
			}
			if strings.HasPrefix(s.name, "token redirect/") && (err == nil || strings.Contains(fmt.Sprint(w.requests), "evil.test")) {
				t.Errorf("a redirect for a token is followed: %v: %q", err, w.requests)
			}
			if strings.HasPrefix(s.name, "auth-challenge/") && s.works != (w.atTrusted+w.atHome > 0 && err == nil) {
				t.Errorf("works: %v, %v: %q", !s.works, err, w.requests)
			}
			if !strings.HasPrefix(s.name, "auth-challenge/") && w.atHome == 0 {
				t.Errorf("not even the registry has seen it: %v: %q", err, w.requests)
			}
		})
	}
	for _, s := range secrets {
		if strings.Contains(logged.String(), s) {
			t.Errorf("in the log: %s", &logged)
		}
	}
	t.Logf("%d scenarios: seen %d times where it may be, %d times elsewhere, %d times in errors", len(all), atHome, elsewhere, inErrors)
}

// What leaves the origin has no credentials, whoever put them there.
func TestBindingTakesCredentialsOff(t *testing.T) {
	for to, want := range map[string]bool{home: true, "https://REGISTRY.example.com:443": true, "http://registry.example.com": false, "https://registry.example.com:8443": false, "https://evil.test": false} {
		var got string
		b := &binding{&Registry{base: mustParse(home)}, roundTripper(func(req *http.Request) (*http.Response, error) {
			got = req.Header.Get("Authorization")
			return status(200), nil
		})}
		req, _ := http.NewRequest(http.MethodGet, to+"/v2/", nil)
		req.SetBasicAuth("user", password)
		if _, err := b.RoundTrip(req); err != nil || (got != "") != want || req.Header.Get("Authorization") == "" {
			t.Errorf("%s: %q, %v", to, got, err)
		}
	}
}

// promiscuous sends the credentials along with everything, as clients did that
// copied headers.
type promiscuous struct{ next http.RoundTripper }

func (p promiscuous) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.SetBasicAuth("user", password)
	return p.next.RoundTrip(req)
}

// The test above rejects clients that do not bind credentials: one that sends them
// anywhere, one that trusts any realm, and one that does not look for them in errors.
func TestCanaryIsSeen(t *testing.T) {
	count := func(prefix string, mutate func(*Registry, *world, scenario)) (seen, of int) {
		for _, s := range scenarios(t) {
			if strings.HasPrefix(s.name, prefix) && (prefix != "auth-challenge/" || !s.works) {
				w, n, _ := s.run(t, func(r *Registry, w *world) { mutate(r, w, s) })
				of++
				if w.elsewhere+n > 0 {
					seen++
				}
			}
		}
		return seen, of
	}
	for _, c := range []struct {
		prefix string
		least  int
		mutate func(*Registry, *world, scenario)
	}{
		{"redirect/", 24, func(r *Registry, w *world, _ scenario) { r.Transport = promiscuous{w} }},
		{"location/", 1, func(r *Registry, w *world, _ scenario) { r.Transport = promiscuous{w} }},
		{"fetch-url/", 1, func(r *Registry, w *world, _ scenario) { r.Transport = promiscuous{w} }},
		{"auth-challenge/", 3, func(r *Registry, w *world, s scenario) { r.Realms = []string{s.realm} }},
		{"echo/", 3, func(r *Registry, w *world, _ scenario) { r.Transport = verbatim{w} }},
	} {
		seen, of := c.prefix, 0
		n, of := count(c.prefix, c.mutate)
		if t.Logf("%s the mutant is caught in %d of %d", seen, n, of); n < c.least {
			t.Errorf("%s the mutant is caught in %d scenarios of %d, want %d", c.prefix, n, of, c.least)
		}
	}
	// oras-go's client alone sends the password where the realm says.
	w := &world{home: mustParse(home), answer: behind(`Bearer realm="https://evil.test/token"`, tokens)}
	plain := &auth.Client{Client: &http.Client{Transport: w}, Credential: auth.StaticCredential("registry.example.com", auth.Credential{Username: "user", Password: password})}
	req, _ := http.NewRequest(http.MethodHead, home+"/v2/a/b/manifests/v1", nil)
	if resp, err := plain.Do(req); err == nil {
		resp.Body.Close()
	}
	if w.elsewhere == 0 {
		t.Error("the canary is not seen at another origin")
	}
}

func mustParse(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

// verbatim hides from the client what it has sent, so that it cannot know a secret that
// comes back.
type verbatim struct{ next http.RoundTripper }

func (v verbatim) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := v.next.RoundTrip(req)
	if err == nil {
		bare := req.Clone(req.Context())
		bare.Header.Del("Authorization")
		resp.Request = bare
	}
	return resp, err
}

// What [wharfage.ResolveLocation] says of the corpus, the client does.
func TestLocationsOfTheCorpus(t *testing.T) {
	cases, err := vectors.Hostile(*vectorsDir, "location")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range cases {
		t.Run(v.ID, func(t *testing.T) {
			var in struct{ Request, Location string }
			if err := json.Unmarshal(v.Input, &in); err != nil {
				t.Fatal(err)
			}
			_, same, err := wharfage.ResolveLocation(mustParse(in.Request), in.Location)
			for _, s := range scenarios(t) {
				if s.name != "location/"+v.ID {
					continue
				}
				w, _, putErr := s.run(t, nil)
				last := w.requests[len(w.requests)-1]
				sent := putErr == nil && strings.HasPrefix(last, "PUT")
				if v.Accept() != (same && err == nil && sent) {
					t.Errorf("sent with credentials: %v: %v: %q", sent, putErr, w.requests)
				}
			}
		})
	}
}

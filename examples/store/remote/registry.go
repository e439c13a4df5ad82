package remote

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	oras "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/replication"
)

// Registry is a registry over HTTP. Only Host is required. Its methods may be called
// from many goroutines at once; its fields are not to be changed after the first call.
type Registry struct {
	Host string // "registry.example", "localhost:5000"; "docker.io" is Docker Hub
	// Scheme is "http" or "https". "" means http for localhost and loopback
	// addresses, and https for all others. No redirect leads from https to http.
	Scheme string

	// Credential returns what to log in with, if the registry asks for it. nil means
	// nothing: tokens are then asked for anonymously. See [DockerCredentials].
	Credential auth.CredentialFunc
	// Realms are the token servers elsewhere that may get the credentials: their origins, as
	// in "https://auth.example:8443".
	Realms []string

	// Allow are the hosts in private networks, "host:port", that the registry may
	// redirect to. It and Realms are allowed anyway.
	Allow []string
	// Proxy is that of [http.Transport]; nil means none. A proxy resolves names itself,
	// so that behind one only its own address is looked at.
	Proxy func(*http.Request) (*url.URL, error)
	// Transport sends the requests. nil means that of a [Guard]; any other has to
	// guard its connections itself.
	Transport http.RoundTripper

	// Parallel is how many requests wait for an answer at once, those with content apart
	// from the others, so that who sends what it reads here does not wait for itself. 0
	// means 16.
	Parallel int
	// Idle is how long neither side may send anything before a request ends with
	// replication.ErrUnavailable. 0 means two minutes.
	Idle      time.Duration
	UserAgent string           // "" means "wharfage"
	Now       func() time.Time // nil means time.Now

	once          sync.Once
	err           error    // of begin
	base          *url.URL // scheme://host/v2/
	client        *auth.Client
	plain, tokens *http.Client
	slots, bodies chan struct{}
	lists         [16]chan struct{} // whoever writes a list of referrers, by its tag
	paces         sync.Map          // kind of request: *pace

	// What the registry has been seen to do, each a trait.
	selfMount, referrersAPI, digestOfHead, tagParameter atomic.Int32
	chunk                                               atomic.Int32 // least bytes of a chunk
}

// Traits of a registry.
const (
	unknown int32 = iota
	yes
	no
)

// Source returns r to be read.
func (r *Registry) Source() replication.Source {
	m := &Manifests{r, false}
	return replication.Source{Registry: r.name(), Blobs: &Blobs{r, false}, Manifests: m, Referrers: m}
}

// Target returns r to be written. It asks for tokens with the right to push.
func (r *Registry) Target() replication.Target {
	m := &Manifests{r, true}
	return replication.Target{Registry: r.name(), Blobs: &Blobs{r, true}, Manifests: m, Referrers: m}
}

// name is the same for two values that are one registry.
func (r *Registry) name() string {
	if r.Check() != nil {
		return ""
	}
	return address(r.base)
}

// Check tells whether the fields of r can be right. It asks nobody.
func (r *Registry) Check() error {
	r.once.Do(func() { r.err = r.begin() })
	return r.err
}

func (r *Registry) begin() error {
	ref := oras.Reference{Registry: r.Host}
	if err := ref.ValidateRegistry(); err != nil {
		return fmt.Errorf("registry %q: want a host, with a port or without: %w", r.Host, err)
	}
	r.base = &url.URL{Scheme: r.Scheme, Host: ref.Host(), Path: "/v2/"}
	if ip := net.ParseIP(r.base.Hostname()); r.Scheme == "" && (r.base.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		r.base.Scheme = "http"
	}
	r.base.Scheme = cmp.Or(r.base.Scheme, "https")
	if r.base.Scheme != "http" && r.base.Scheme != "https" {
		return fmt.Errorf("registry %q: scheme %q: want http or https", r.Host, r.Scheme)
	}
	guard := &Guard{Allow: append(slices.Clone(r.Allow), address(r.base))}
	for _, realm := range r.Realms {
		u, err := url.Parse(realm)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("realm %q: want an origin, as in https://auth.example", realm)
		}
		guard.Allow = append(guard.Allow, address(u))
	}
	transport := r.Transport
	if transport == nil {
		t := guard.Transport()
		if t.Proxy = r.Proxy; r.Proxy != nil {
			if at, err := r.Proxy(&http.Request{URL: r.base}); err == nil && at != nil {
				guard.Allow = append(guard.Allow, address(at))
			}
		}
		transport = t
	}
	r.plain = &http.Client{Transport: &binding{r, transport}, CheckRedirect: checkRedirect}
	r.client = &auth.Client{Client: r.plain, Credential: r.credential, Cache: auth.NewCache()}
	r.tokens = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	n := cmp.Or(max(0, r.Parallel), 16)
	r.slots, r.bodies = make(chan struct{}, n), make(chan struct{}, n)
	for i := range r.lists {
		r.lists[i] = make(chan struct{}, 1)
	}
	return nil
}

// address is what a transport dials for u.
func address(u *url.URL) string {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return net.JoinHostPort(u.Hostname(), port)
}

func sameOrigin(a, b *url.URL) bool {
	_, same, err := wharfage.ResolveLocation(a, b.Scheme+"://"+b.Host)
	return err == nil && same
}

func (r *Registry) userAgent() string { return cmp.Or(r.UserAgent, "wharfage") }

func (r *Registry) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// binding keeps credentials at the origin of the registry, whatever clients above
// it do, and shows auth.Client only challenges that can be followed.
type binding struct {
	r    *Registry
	next http.RoundTripper
}

func (b *binding) RoundTrip(req *http.Request) (*http.Response, error) {
	home := sameOrigin(b.r.base, req.URL)
	if !home && req.Header["Authorization"] != nil {
		req = req.Clone(req.Context())
		req.Header.Del("Authorization")
	}
	resp, err := b.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	asked := readChallenge(resp.Header["Www-Authenticate"])
	resp.Header.Del("Www-Authenticate")
	if x, _ := req.Context().Value(exchangeKey{}).(*exchange); home && x != nil {
		x.asked = asked
		switch asked.scheme { // without the realm: credential goes there, not auth.Client
		case "bearer":
			resp.Header.Set("Www-Authenticate", "Bearer scope="+strconv.Quote(asked.scope))
		case "basic":
			resp.Header.Set("Www-Authenticate", "Basic")
		}
	}
	return resp, nil
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1]
	to, _, err := wharfage.ResolveLocation(from.URL, req.Response.Header.Get("Location"))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errRedirect, err)
	case to.Scheme == "http" && from.URL.Scheme == "https":
		return fmt.Errorf("%w from https to http", errRedirect)
	case req.Method != from.Method:
		return fmt.Errorf("%w that makes a %s of a %s", errRedirect, req.Method, from.Method)
	case len(via) >= 10:
		return fmt.Errorf("%w: the tenth", errRedirect)
	}
	req.Header.Del("Referer") // a query may be a signature
	return nil
}

// request is what do sends.
type request struct {
	method string
	path   string   // below /v2/
	at     *url.URL // if not nil instead, where a Location led
	kind   string   // of what; limits are counted by it
	scopes []string
	header http.Header

	open func(ctx context.Context) (io.ReadCloser, error) // the content; nil means none
	size int64                                            // of the content; -1 means unknown
}

// of returns a request for something of a repository. Actions are those that a token is
// asked to permit.
func of(method, repo, kind, ref string, actions ...string) request {
	return request{method: method, path: repo + "/" + kind + ref, kind: kind, scopes: []string{auth.ScopeRepository(repo, actions...)}}
}

// actions are those of a method that changes nothing, on what may be written too.
func actions(push bool) []string {
	if push {
		return []string{auth.ActionPull, auth.ActionPush} // a token of its own for each would cost a request
	}
	return []string{auth.ActionPull}
}

// do sends a request, and returns an answer whose status is among ok. The error is
// typed, and holds neither secrets nor a query.
func (r *Registry) do(ctx context.Context, q request, ok ...int) (*http.Response, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	if err := r.wait(ctx, q.kind); err != nil {
		return nil, err
	}
	slots := r.slots
	if q.open != nil {
		slots = r.bodies
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	x := &exchange{idle: cmp.Or(r.Idle, 2*time.Minute)}
	ctx, x.cancel = context.WithCancelCause(ctx)
	ctx = context.WithValue(auth.WithScopesForHost(ctx, r.base.Host, q.scopes...), exchangeKey{}, x)
	x.ctx = ctx
	req, err := r.newRequest(ctx, q, x)
	if err != nil {
		x.cancel(nil)
		return nil, err
	}
	send := r.client.Do
	if !sameOrigin(r.base, req.URL) {
		send = r.plain.Do
	}
	x.timer = time.AfterFunc(x.idle, func() { x.cancel(errStalled) })
	resp, err := send(req)
	sendErr := x.answer()
	if err != nil {
		if sendErr == nil {
			sendErr = sentError(ctx, err)
		}
		x.cancel(nil)
		return nil, sendErr
	}
	resp.Body = &answer{resp.Body, x}
	if sameOrigin(r.base, resp.Request.URL) {
		r.heed(q.kind, resp.Header)
	}
	if slices.Contains(ok, resp.StatusCode) {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, r.statusError(resp)
}

func (r *Registry) newRequest(ctx context.Context, q request, x *exchange) (*http.Request, error) {
	at := q.at
	if at == nil {
		var err error
		if at, err = r.base.Parse(q.path); err != nil {
			return nil, err
		}
	}
	req := (&http.Request{Method: q.method, URL: at, Host: at.Host, Header: q.header.Clone()}).WithContext(ctx)
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", r.userAgent())
	if q.open == nil {
		return req, nil
	}
	req.GetBody = func() (io.ReadCloser, error) {
		content, err := q.open(ctx)
		if err != nil {
			return nil, err
		}
		return &sending{content, x}, nil
	}
	var err error
	req.ContentLength = q.size
	req.Body, err = req.GetBody()
	if err == nil && q.size == 0 { // net/http would take it for unknown
		_, err = io.Copy(io.Discard, req.Body)
		req.Body.Close()
		req.Body, req.GetBody = http.NoBody, nil
	}
	return req, err
}

// read is do for an answer of at most limit bytes.
func (r *Registry) read(ctx context.Context, q request, limit int64, ok ...int) ([]byte, *http.Response, error) {
	resp, err := r.do(ctx, q, ok...)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%w: the answer has more than %d bytes", replication.ErrContent, limit)
	}
	return body, resp, err
}

// done is do for an answer whose head says it all.
func (r *Registry) done(ctx context.Context, q request, ok ...int) (*http.Response, error) {
	_, resp, err := r.read(ctx, q, maxError, ok...) // to its end, for the connection to be used again
	return resp, err
}

// location returns where an answer leads.
func location(resp *http.Response) (*url.URL, error) {
	to, _, err := wharfage.ResolveLocation(resp.Request.URL, resp.Header.Get("Location"))
	if err == nil && resp.Request.URL.Scheme == "https" && to.Scheme != "https" {
		err = wharfage.ErrLocation
	}
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, fmt.Errorf("%w: %w", replication.ErrContent, cmp.Or(err, wharfage.ErrLocation))
	}
	return to, nil
}

// escape makes a query value.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }

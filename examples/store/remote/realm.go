package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/replication"
)

// ErrRealm is a challenge that would take credentials where they may not go.
var ErrRealm = errors.New("credentials are asked for at another site")

// DockerCredentials returns the credentials that docker login has stored: those of its
// configuration file, in the folder DOCKER_CONFIG if that is set, and of the
// credential helpers that the file names.
func DockerCredentials() (auth.CredentialFunc, error) {
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("credentials of docker: %w", err)
	}
	return credentials.Credential(store), nil
}

// challenge is what a registry asks for with status 401.
type challenge struct {
	scheme                string // "basic", "bearer", or "" for none that is understood
	realm, service, scope string
}

// readChallenge reads the WWW-Authenticate headers of an answer (RFC 9110 section
// 11.6.1) and takes Bearer before Basic. A header that readers may take for
// different things, such as one with two realms, is none.
func readChallenge(values []string) (out challenge) {
	for _, v := range values {
		for v = strings.Trim(v, " \t,"); v != ""; v = strings.Trim(v, " \t,") {
			var word string
			if word, v = token(v); word == "" {
				return challenge{}
			}
			c := challenge{scheme: strings.ToLower(word)}
			seen := map[string]bool{}
			for {
				name, rest := token(strings.TrimLeft(v, " \t,"))
				rest = strings.TrimLeft(rest, " \t")
				if name == "" || !strings.HasPrefix(rest, "=") {
					break // the next challenge, or the end
				}
				value, rest, ok := tokenOrQuoted(strings.TrimLeft(rest[1:], " \t"))
				if name = strings.ToLower(name); !ok || seen[name] {
					return challenge{}
				}
				seen[name], v = true, rest
				switch name {
				case "realm":
					c.realm = value
				case "service":
					c.service = value
				case "scope":
					c.scope = value
				}
			}
			if c.scheme == out.scheme {
				return challenge{} // which of the two?
			}
			if c.scheme == "bearer" || c.scheme == "basic" && out.scheme == "" {
				out = c
			}
		}
	}
	return out
}

func token(s string) (word, rest string) {
	end := strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

func tokenOrQuoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = token(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			fallthrough
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// realmURL returns where a token is to be asked for, and whether the credentials of the
// registry at base may go there: to its own origin, to another host of its registrable
// domain, or to an origin that is listed.
func realmURL(base *url.URL, realm string, listed []string) (u *url.URL, trusted bool, err error) {
	u, same, err := wharfage.ResolveLocation(base, realm)
	if abs, e := url.Parse(realm); err != nil || e != nil || !abs.IsAbs() || u.Scheme == "http" && base.Scheme == "https" {
		return nil, false, fmt.Errorf("%w: realm %.200q", ErrRealm, realm)
	}
	for _, l := range listed {
		if at, e := url.Parse(l); e == nil && at.Host != "" {
			_, here, e := wharfage.ResolveLocation(at, u.Scheme+"://"+u.Host)
			same = same || e == nil && here
		}
	}
	return u, same || sameSite(base.Hostname(), u.Hostname()), nil
}

// sameSite tells whether two hosts are of one registrable domain. What no list
// has as a suffix, such as a cluster's own names, may have many owners.
func sameSite(a, b string) bool {
	site := func(host string) string {
		host = strings.ToLower(host)
		if _, err := netip.ParseAddr(host); err == nil {
			return ""
		}
		suffix, icann := publicsuffix.PublicSuffix(host)
		if !icann && !strings.Contains(suffix, ".") {
			return ""
		}
		domain, _ := publicsuffix.EffectiveTLDPlusOne(host)
		return domain
	}
	s := site(a)
	return s != "" && s == site(b)
}

// loginError is why there is no token. Its text holds no URL of the registry, unlike
// that of the error which wraps it.
type loginError struct{ err error }

func (e *loginError) Error() string { return e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

// credential answers auth.Client, for the registry only, with what the challenge
// of this exchange asks for. It fetches tokens itself: auth.Client would follow
// redirects, resolve the name of the realm unguarded, and refuse one that the operator
// has listed.
func (r *Registry) credential(ctx context.Context, host string) (auth.Credential, error) {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil || host != r.base.Host {
		return auth.EmptyCredential, nil
	}
	cred := auth.EmptyCredential
	if r.Credential != nil {
		var err error
		if cred, err = r.Credential(ctx, host); err != nil {
			return auth.EmptyCredential, &loginError{fmt.Errorf("credentials of %s: %w", host, err)}
		}
	}
	if x.asked.scheme == "basic" {
		return cred, nil
	}
	text, err := r.token(ctx, x.asked, cred)
	if err != nil {
		return auth.EmptyCredential, &loginError{err}
	}
	return auth.Credential{AccessToken: text}, nil
}

// token asks for a token as cred, by Docker's protocol, or, with a refresh token, by
// that of OAuth 2.
func (r *Registry) token(ctx context.Context, c challenge, cred auth.Credential) (string, error) {
	at, trusted, err := realmURL(r.base, c.realm, r.Realms)
	switch {
	case cred.AccessToken != "":
		return cred.AccessToken, nil
	case err != nil:
		return "", fmt.Errorf("%w: %w", replication.ErrDenied, err)
	case cred != auth.EmptyCredential && !trusted:
		return "", fmt.Errorf("%w: %w: %s://%s: list it in Realms if that is right", replication.ErrDenied, ErrRealm, at.Scheme, at.Host)
	}
	scopes := auth.GetAllScopesForHost(ctx, r.base.Host)
	if c.scope != "" {
		scopes = auth.CleanScopes(append(scopes, strings.Fields(c.scope)...))
	}
	form := url.Values{"service": {c.service}}
	req := (&http.Request{Method: http.MethodGet, URL: at, Header: http.Header{"User-Agent": {r.userAgent()}}}).WithContext(ctx)
	if cred.RefreshToken != "" {
		form["grant_type"], form["refresh_token"], form["client_id"] = []string{"refresh_token"}, []string{cred.RefreshToken}, []string{r.userAgent()}
		form["scope"] = []string{strings.Join(scopes, " ")}
		req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		form["scope"] = scopes
		at.RawQuery = strings.TrimPrefix(at.RawQuery+"&"+form.Encode(), "&")
		if cred.Username != "" {
			req.SetBasicAuth(cred.Username, cred.Password)
		}
	}
	resp, err := r.tokens.Do(req)
	if err != nil {
		return "", networkError(ctx, fmt.Errorf("token of %s: %w", at.Host, plain(err)))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", r.statusError(resp, cred.Password, cred.RefreshToken)
	}
	var got struct {
		Token       string
		AccessToken string `json:"access_token"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 128<<10)).Decode(&got)
	if got.Token = cmp.Or(got.AccessToken, got.Token); err != nil || got.Token == "" {
		return "", fmt.Errorf("token of %s: %w: no token in the answer", at.Host, replication.ErrContent)
	}
	return got.Token, nil
}

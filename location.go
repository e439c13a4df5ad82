package wharfage

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
)

// ErrLocation is a Location that no careful client follows.
var ErrLocation = errors.New("invalid Location")

// ResolveLocation resolves the Location that a registry answered to request
// with, and tells whether it is of the same origin (scheme, host and port), so
// that the credentials of request may be sent there. A Location that clients
// read differently, with a backslash, a control character, white space or user
// information, matches [ErrLocation].
func ResolveLocation(request *url.URL, location string) (to *url.URL, sameOrigin bool, err error) {
	if strings.ContainsFunc(location, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) || c == '\\' }) {
		return nil, false, ErrLocation
	}
	ref, err := url.Parse(location)
	if err != nil || ref.User != nil { // the request may have its own
		return nil, false, ErrLocation
	}
	to = request.ResolveReference(ref)
	if to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, false, ErrLocation
	}
	return to, to.Scheme == request.Scheme && strings.EqualFold(to.Hostname(), request.Hostname()) && port(to) == port(request), nil
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

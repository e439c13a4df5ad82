package wharfage

import (
	"errors"
	"net/url"
	"strings"
)

// ErrLocation is a Location that no careful client follows.
var ErrLocation = errors.New("invalid Location")

// ResolveLocation resolves the Location that a registry answered to request
// with, and tells whether it is of the same origin (scheme, host and port), so
// that the credentials of request may be sent there. A Location that clients
// read differently, with a backslash, a control character, white space or user
// information, matches [ErrLocation].
func ResolveLocation(request *url.URL, location string) (to *url.URL, sameOrigin bool, err error) {
	if strings.ContainsFunc(location, func(c rune) bool { return c <= ' ' || c == '\\' || c == 0x7f }) {
		return nil, false, ErrLocation
	}
	to, err = request.Parse(location)
	if err != nil || to.User != nil || to.Host == "" {
		return nil, false, ErrLocation
	}
	if to.Scheme != "http" && to.Scheme != "https" {
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

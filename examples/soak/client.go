package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
)

// client sends requests to a registry.
type client struct {
	http     *http.Client
	base     *url.URL
	requests atomic.Int64
}

// answer is one that has been read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request, whose URL may be relative, and is an error unless the
// answer has one of the statuses wanted.
func (c *client) do(ctx context.Context, method, uri string, header http.Header, body []byte, want ...int) (answer, error) {
	var r io.Reader = http.NoBody
	if body != nil {
		r = bytes.NewReader(body)
	}
	a, err := c.send(ctx, method, uri, header, r, int64(len(body)))
	if err == nil && !slices.Contains(want, a.status) {
		err = fmt.Errorf("%s %s: status %d, want %d: %.300s", method, uri, a.status, want, a.body)
	}
	return a, err
}

func (c *client) send(ctx context.Context, method, uri string, header http.Header, body io.Reader, length int64) (answer, error) {
	u, err := c.base.Parse(uri)
	if err != nil {
		return answer{}, err
	}
	// Not ended by ctx: a request that is cut off leaves the model in doubt.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), method, u.String(), body)
	if err != nil {
		return answer{}, err
	}
	req.ContentLength = length
	for k, v := range header {
		req.Header[k] = v
	}
	c.requests.Add(1)
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: the body: %w", method, uri, err)
	}
	return answer{resp.StatusCode, resp.Header, b}, nil
}

func contentType(t string) http.Header { return http.Header{"Content-Type": {t}} }

var octets = contentType("application/octet-stream")

// with adds a parameter to a URL.
func with(uri, key, value string) string {
	sep := "?"
	if strings.Contains(uri, "?") {
		sep = "&"
	}
	return uri + sep + key + "=" + url.QueryEscape(value)
}

// pages calls f with each page of a listing.
func (c *client) pages(ctx context.Context, uri string, f func(body []byte) error) error {
	for uri != "" {
		a, err := c.do(ctx, "GET", uri, nil, nil, http.StatusOK)
		if err == nil {
			err = f(a.body)
		}
		if err != nil {
			return err
		}
		uri, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	return nil
}

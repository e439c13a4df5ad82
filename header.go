package wharfage

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

func setLength(w http.ResponseWriter, n int64) {
	w.Header()["Content-Length"] = []string{strconv.FormatInt(n, 10)}
}

// setContent sets the headers that name content. The keys are canonical, so
// that they need not be made so for each request.
func setContent(w http.ResponseWriter, contentType string, dgst digest.Digest) {
	head := w.Header()
	values := [...]string{contentType, string(dgst), etag(dgst)}
	if contentType != "" {
		head["Content-Type"] = values[0:1:1]
	}
	head["Docker-Content-Digest"] = values[1:2:2]
	head["Etag"] = values[2:3:3]
}

func etag(dgst digest.Digest) string { return `"` + string(dgst) + `"` }

// matchesETag tells whether an If-None-Match header names dgst, which is here.
func matchesETag(header []string, dgst digest.Digest) bool {
	for _, h := range header {
		for v := range strings.SplitSeq(h, ",") {
			if v = strings.TrimPrefix(strings.TrimSpace(v), "W/"); v == etag(dgst) || v == "*" {
				return true
			}
		}
	}
	return false
}

// byteRange is a Range header: the bytes from first to last, or, as suffix, the
// last ones.
type byteRange struct {
	first, last int64 // last == -1: to the end; of a suffix the length
	suffix      bool
	ok          bool // false asks for everything
}

func (r byteRange) length() int64 {
	if r.last < 0 {
		return -1
	}
	return r.last - r.first + 1
}

// parseRange reads a Range header (RFC 9110 section 14.2). A header that is
// malformed, or asks for several ranges, is ignored, as the RFC allows; a last byte before
// the first is an empty range, which no blob satisfies.
func parseRange(s string) byteRange {
	spec, ok := strings.CutPrefix(s, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return byteRange{}
	}
	r := byteRange{ok: true, last: -1}
	if from == "" {
		r.suffix = true
		if r.last, ok = decimal(to); !ok {
			return byteRange{}
		}
		return r
	}
	if r.first, ok = decimal(from); !ok {
		return byteRange{}
	}
	if to != "" {
		if r.last, ok = decimal(to); !ok {
			return byteRange{}
		}
		if r.last < r.first {
			r.last = r.first - 1
		}
		const most = 1<<63 - 2 // so that a length is no overflow
		r.last = min(r.last, most)
	}
	return r
}

// parseContentRange reads the Content-Range of a chunk: first "-" last, both
// inclusive, without a unit (distribution-spec, "Pushing a blob in chunks").
func parseContentRange(s string) (first, last int64, ok bool) {
	from, to, _ := strings.Cut(s, "-")
	first, ok1 := decimal(from)
	last, ok2 := decimal(to)
	const most = 1<<63 - 2 // so that the length is no overflow
	return first, last, ok1 && ok2 && first <= last && last <= most
}

// decimal reads an unsigned integer of ASCII digits that fits an int64.
func decimal(s string) (int64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' { // ParseInt takes signs
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// warn adds Warning headers (distribution-spec, "Warnings"), at most 4096 bytes
// together.
func warn(w http.ResponseWriter, texts []string) {
	left := 4096
	for _, t := range texts {
		v := `299 - "` + strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				return '\''
			}
			return c
		}, t) + `"`
		if left -= len(v); left < 0 {
			return
		}
		w.Header().Add("Warning", v)
	}
}

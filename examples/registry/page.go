package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

// page shows people what the registry holds, below /ui/. It only reads, asks
// the Authorize of the handler before, and needs no script.
//
//	/ui/                           repositories
//	/ui/repo/team/app              the images of one
//	/ui/image/team/app:v1          an image, by tag or @digest, with its graph of referrers
//	/ui/graph/team/app@sha256:…    the graph as text: ?as=tree, dot, mermaid, json or svg
//	/ui/lifecycle/team/app         what a policy would do; a POST has the text of one
type page struct {
	handler  *wharfage.Handler
	pulls    lifecycle.Activity
	policy   func(ctx context.Context, repo string) (*lifecycle.Policy, error) // in force; nil if there is none
	scanning *scanningConfig                                                   // nil: nothing is scanned
}

//go:embed templates style.css icon.svg
var pageFiles embed.FS

// pageTag changes with the files.
var pageTag = func() string {
	style, _ := pageFiles.ReadFile("style.css")
	icon, _ := pageFiles.ReadFile("icon.svg")
	return strconv.Quote(digest.FromBytes(append(style, icon...)).Encoded())
}()

var pages = func() map[string]*template.Template {
	out := map[string]*template.Template{}
	for _, name := range []string{"repositories", "repository", "image", "lifecycle", "failure"} {
		out[name] = template.Must(template.New(name).Funcs(template.FuncMap{
			"text": visible, "clip": clip, "short": short, "bytes": size, "number": number, "moment": newMoment,
		}).ParseFS(pageFiles, "templates/base.html", "templates/"+name+".html"))
	}
	return out
}()

// view is a page to be written.
type view struct {
	name   string // of its template
	status int
	Title  string
	Trail  []crumb
	Now    time.Time
	Data   any
}

// crumb is a page above this one. Without an URL it is this one.
type crumb struct{ Name, URL string }

// pageError is an answer that is not what was asked for.
type pageError struct {
	status int
	text   string
}

func (e *pageError) Error() string { return e.text }

func notFound(format string, args ...any) error {
	return &pageError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

// pagePolicy lets pages load the style sheet and the icon, and nothing else.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for key, value := range map[string]string{
		"Content-Security-Policy": pagePolicy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache",
	} {
		w.Header().Set(key, value)
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/ui/"), "/")
	var serve func(*http.Request, string) (*view, error)
	switch kind {
	case "style.css", "icon.svg":
		w.Header().Set("ETag", pageTag)
		http.ServeFileFS(w, r, pageFiles, kind)
		return
	case "graph":
		if err := p.graph(w, r, rest); err != nil {
			p.fail(w, r, err)
		}
		return
	case "":
		serve = p.repositories
	case "repo":
		serve = p.repository
	case "image":
		serve = p.image
	case "lifecycle":
		serve = p.lifecycle
	}
	var v *view
	err := notFound("There is nothing at this address.")
	if serve != nil && (kind != "" || rest == "") {
		v, err = serve(r, rest)
	}
	if err == nil {
		err = p.write(w, v)
	}
	if err != nil {
		p.fail(w, r, err)
	}
}

// write sends all of a page, or none.
func (p *page) write(w http.ResponseWriter, v *view) error {
	v.Now = p.now()
	var b bytes.Buffer
	if err := pages[v.name].ExecuteTemplate(&b, "page", v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if v.status != 0 {
		w.WriteHeader(v.status)
	}
	w.Write(b.Bytes())
	return nil
}

// fail answers with an error, of a store without details.
func (p *page) fail(w http.ResponseWriter, r *http.Request, err error) {
	v := &view{name: "failure", status: http.StatusInternalServerError, Data: "The registry could not answer. Its log says why."}
	refused, isRefused := errors.AsType[*wharfage.AuthError](err)
	known, isKnown := errors.AsType[*pageError](err)
	switch {
	case isKnown:
		v.status, v.Data = known.status, known.text
	case isRefused:
		v.status, v.Data = http.StatusForbidden, refused.Error()
		if refused.Challenge != "" {
			v.status = http.StatusUnauthorized
			w.Header().Set("WWW-Authenticate", refused.Challenge)
		}
	case manifest.IsNotFound(err):
		v.status, v.Data = http.StatusNotFound, "No such image. It may have been deleted."
	default:
		p.tell(r, err)
	}
	v.Title = http.StatusText(v.status)
	v.Trail = []crumb{{v.Title, ""}}
	if err := p.write(w, v); err != nil {
		p.tell(r, err)
	}
}

func (p *page) tell(r *http.Request, err error) {
	if p.handler.OnError != nil {
		p.handler.OnError(r, err)
	}
}

func (p *page) now() time.Time {
	if p.handler.Now != nil {
		return p.handler.Now()
	}
	return time.Now()
}

// authorize asks what the API asks, and makes an *AuthError of any refusal. One
// that is none is told OnError, as there.
func (p *page) authorize(r *http.Request, repo string, a wharfage.Action) error {
	if p.handler.Authorize == nil {
		return nil
	}
	err := p.handler.Authorize(r, repo, a)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*wharfage.AuthError](err); !ok {
		p.tell(r, err)
		err = &wharfage.AuthError{}
	}
	return err
}

// read checks the method, the name and that there is the repository, before
// anything is read of it.
func (p *page) read(r *http.Request, repo string, methods ...string) error {
	if err := onlyMethods(r, methods...); err != nil {
		return err
	}
	if manifest.CheckRepository(repo) != nil {
		return notFound("%q is no name of a repository.", visible(clip(repo, 100)))
	}
	if err := p.authorize(r, repo, wharfage.ActionPull); err != nil {
		return err
	}
	_, err := p.made(r, repo)
	return err
}

func onlyMethods(r *http.Request, more ...string) error {
	for _, m := range append(more, http.MethodGet, http.MethodHead) {
		if r.Method == m {
			return nil
		}
	}
	return &pageError{http.StatusMethodNotAllowed, "This page only shows things, and changes none."}
}

// pageNumber reads a number from 1, and stays among the pages that there are.
func pageNumber(s string, items, perPage int) (at, pages int, err error) {
	pages = max(1, (items+perPage-1)/perPage)
	if s == "" {
		return 1, pages, nil
	}
	at, err = strconv.Atoi(s)
	if err != nil || at < 1 {
		return 0, 0, &pageError{http.StatusBadRequest, "Pages have numbers, from 1."}
	}
	return min(at, pages), pages, nil
}

// firstOf counts the items of a listing, up to most.
func firstOf[T any](ctx context.Context, most int, list func(yield func(T, error) bool)) (n int, err error) {
	for _, err := range list {
		if err != nil {
			return n, err
		}
		if n++; n == most {
			break
		}
	}
	return n, ctx.Err()
}

// visible replaces what has no shape of its own, as marks that turn the
// direction of text, by escapes. Templates escape all the same.
func visible(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, string(utf8.RuneError)) {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// short is a digest as people compare them.
func short(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return visible(clip(algorithm, 20) + ":" + encoded[:min(len(encoded), 12)])
}

// number is an integer with commas between thousands.
func number(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size is in decimal units.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n, " B")
	}
	x, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		if x /= 1000; x < 999.5 {
			break
		}
	}
	if x < 9.95 {
		return fmt.Sprintf("%.1f %s", x, unit)
	}
	return fmt.Sprintf("%.0f %s", x, unit)
}

// moment is a time as a page tells it.
type moment struct {
	At  time.Time
	Ago string
}

func newMoment(now, at time.Time) moment {
	d := now.Sub(at)
	ago := func(unit time.Duration, name string) moment {
		n := int(d / unit)
		if n != 1 {
			name += "s"
		}
		return moment{at.UTC(), fmt.Sprint(n, " ", name, " ago")}
	}
	const day = 24 * time.Hour
	switch {
	case at.IsZero():
		return moment{}
	case d < -time.Minute:
		return moment{at.UTC(), "in the future"}
	case d < time.Minute:
		return moment{at.UTC(), "just now"}
	case d < time.Hour:
		return ago(time.Minute, "minute")
	case d < day:
		return ago(time.Hour, "hour")
	case d < 60*day:
		return ago(day, "day")
	case d < 730*day:
		return ago(30*day, "month")
	}
	return ago(365*day, "year")
}

func (m moment) ISO() string  { return m.At.Format(time.RFC3339) }
func (m moment) Full() string { return m.At.Format("2006-01-02 15:04") + " UTC" }

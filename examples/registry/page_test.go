package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/scan"
)

// showcase is a registry in memory with a page, whose clock stands still.
type showcase struct {
	*testing.T
	store *storage
	*page
	now   time.Time // of what is pushed next
	layer int       // bytes of the first layer
}

var today = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newShowcase(t *testing.T) *showcase {
	store := place{}.openMemory()
	h := store.handler()
	h.Now = func() time.Time { return today }
	h.OnError = func(r *http.Request, err error) { t.Errorf("%s: %v", r.URL, err) }
	return &showcase{T: t, store: store, page: &page{handler: h, pulls: store.pulls}, now: today}
}

// blob pushes content of a size.
func (s *showcase) blob(repo, mediaType, text string, n int) ocispec.Descriptor {
	s.Helper()
	content := []byte(text + strings.Repeat("\x00", n))
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := blob.Put(s.Context(), s.store.blobs, repo, desc, bytes.NewReader(content)); err != nil {
		s.Fatal(err)
	}
	return desc
}

func (s *showcase) push(repo string, raw []byte, desc ocispec.Descriptor, err error, tags ...string) ocispec.Descriptor {
	s.Helper()
	if err == nil {
		p := manifest.Pusher{Store: s.store.manifests, Now: func() time.Time { return s.now }}
		_, err = p.Push(s.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: tags})
	}
	if err != nil {
		s.Fatal(err)
	}
	return desc
}

// image pushes an image with a config and two layers.
func (s *showcase) image(repo, seed string, tags ...string) ocispec.Descriptor {
	s.Helper()
	config := s.blob(repo, ocispec.MediaTypeImageConfig, `{"architecture":"amd64","os":"linux","seed":"`+seed+`"}`, 0)
	layers := []ocispec.Descriptor{s.blob(repo, ocispec.MediaTypeImageLayerGzip, "base", s.layer), s.blob(repo, ocispec.MediaTypeImageLayerGzip, seed, s.layer/8)}
	raw, desc, err := manifest.ImageDraft{Config: &config, Layers: layers, Annotations: map[string]string{
		ocispec.AnnotationSource: "https://git.example.com/" + repo, ocispec.AnnotationRevision: digest.FromString(seed).Encoded()[:40],
	}}.Build()
	return s.push(repo, raw, desc, err, tags...)
}

// attach pushes an artifact that refers to subject.
func (s *showcase) attach(repo, artifactType string, subject ocispec.Descriptor, annotations map[string]string) ocispec.Descriptor {
	s.Helper()
	layer := s.blob(repo, "application/octet-stream", artifactType+string(subject.Digest), 9000)
	_, empty := manifest.Empty()
	s.blob(repo, manifest.MediaTypeEmpty, string(empty), 0)
	raw, desc, err := manifest.ImageDraft{ArtifactType: artifactType, Layers: []ocispec.Descriptor{layer}, Subject: &subject, Annotations: annotations}.Build()
	return s.push(repo, raw, desc, err)
}

func (s *showcase) pulled(repo string, at time.Time, dgsts ...digest.Digest) {
	s.Helper()
	for _, d := range dgsts {
		if err := s.store.pulls.Touch(s.Context(), repo, []lifecycle.Pull{{Digest: d, At: at}}); err != nil {
			s.Fatal(err)
		}
	}
}

// demo fills it with what one finds in a registry.
func demo(t *testing.T) *showcase {
	s := newShowcase(t)
	s.layer = 2_400_000
	day := func(n int) { s.now = today.Add(-time.Duration(n)*24*time.Hour - 7*time.Hour) }
	const app = "team/shop/checkout"
	for i := range 24 {
		day(240 - 10*i)
		v := fmt.Sprintf("v1.%d.0", i)
		amd, arm := s.image(app, v+"amd"), s.image(app, v+"arm")
		amd.Platform, arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}, &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
		tags := []string{v}
		if i == 23 {
			tags = append(tags, "latest", "v1")
		}
		raw, desc, err := manifest.IndexDraft{Manifests: []ocispec.Descriptor{amd, arm}, Annotations: map[string]string{ocispec.AnnotationVersion: v}}.Build()
		index := s.push(app, raw, desc, err, tags...)
		sbom := s.attach(app, "application/spdx+json", amd, map[string]string{ocispec.AnnotationCreated: s.now.Format(time.RFC3339)})
		s.attach(app, "application/vnd.cyclonedx+json", arm, nil)
		s.attach(app, "application/vnd.dev.cosign.artifact.sig.v1+json", index, nil)
		if i > 20 {
			s.attach(app, "application/vnd.cncf.notary.signature", sbom, nil)
			s.attach(app, "application/vnd.in-toto.provenance+json", index, map[string]string{"org.example.builder": "ci-7"})
			s.attach(app, "application/sarif+json", amd, nil)
		}
		s.pulled(app, today.Add(-time.Duration(24-i)*5*24*time.Hour), index.Digest)
	}
	for i := range 9 {
		day(3 * i)
		s.image(app, fmt.Sprint("nightly", i), fmt.Sprintf("nightly-%d", i))
		day(3*i + 1)
		s.image(app, fmt.Sprint("lost", i))
	}
	for i, repo := range []string{"base/debian", "base/go", "charts/checkout", "policies/admission", "team/shop/cart", "team/shop/search", "team/ops/backup", "mirror/nginx"} {
		day(20 * i)
		s.image(repo, repo, "latest", "1")
	}
	config := s.blob("charts/checkout", "application/vnd.cncf.helm.config.v1+json", "{}", 0)
	raw, desc, err := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{s.blob("charts/checkout", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "chart", 5000)}}.Build()
	s.push("charts/checkout", raw, desc, err, "2.4.1")
	return s
}

// get asks for a page, and checks what holds for all of them.
func (s *showcase) get(target string) (status int, body string) {
	s.Helper()
	return s.do(httptest.NewRequest("GET", target, nil))
}

func (s *showcase) post(target string, form url.Values) (status int, body string) {
	s.Helper()
	r := httptest.NewRequest("POST", target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return s.do(r)
}

func (s *showcase) do(r *http.Request) (status int, body string) {
	s.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	h := w.Header()
	if got := h.Get("Content-Security-Policy"); got != pagePolicy || strings.Contains(got, "script-src") || strings.Contains(got, "unsafe") {
		s.Errorf("%s: Content-Security-Policy %q", r.URL, got)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
		s.Errorf("%s: header %v", r.URL, h)
	}
	body = w.Body.String()
	if strings.HasPrefix(h.Get("Content-Type"), "text/html") {
		for _, bad := range []string{"<script", "style=\"", "ZgotmplZ"} {
			if strings.Contains(body, bad) {
				s.Errorf("%s: the page has %q", r.URL, bad)
			}
		}
		if !strings.HasSuffix(strings.TrimSpace(body), "</html>") {
			s.Errorf("%s: the page has no end", r.URL)
		}
	}
	return w.Code, body
}

// has checks that texts are there.
func has(t *testing.T, body string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(body, text) {
			t.Errorf("no %q in\n%s", text, clip(body, 20000))
		}
	}
}

func TestPagesShowWhatIsThere(t *testing.T) {
	s := demo(t)
	for _, c := range []struct {
		target string
		want   []string
	}{
		{"/ui/", []string{`href="/ui/repo/team/shop/checkout"`, "base/debian"}},
		{"/ui/?q=shop", []string{"team/shop/cart"}},
		{"/ui/?after=team/shop/cart", []string{"team/shop/search"}},
		{"/ui/repo/team/shop/checkout", []string{"v1.23.0", "latest", "nightly-0", `<span class="kind sbom">2 SBOMs</span>`, "signature", "7 hours ago", "Page 1 of 1", "3.0 MB"}},
		{"/ui/repo/team/shop/checkout?show=attached", []string{"SPDX SBOM", "Cosign signature"}},
		{"/ui/repo/team/shop/checkout?q=v1.2", []string{"v1.2.0", "v1.23.0"}},
		{"/ui/repo/charts/checkout", []string{"Helm chart"}},
		{"/ui/image/charts/checkout:2.4.1", []string{"helm pull oci://example.com/charts/checkout:2.4.1", "Nothing refers to it"}},
		{"/ui/image/team/shop/checkout:v1.23.0", []string{"docker pull example.com/team/shop/checkout:", "<svg", "Notation signature", "in-toto attestation", "linux/arm64/v8, listed by", "org.opencontainers.image.version", "2026-05-22 05:00 UTC", "/ui/lifecycle/team/shop/checkout?image=sha256%3A"}},
		{"/ui/lifecycle/team/shop/checkout", []string{"Example: Keep the 10 newest images", "imageCountMoreThan", `<span class="verdict expire">expire</span>`, "Forecast for 90 days", `<path class="line"`, "Page 1 of 2"}},
		{"/ui/lifecycle/team/shop/checkout?policy=unused", []string{`<span class="verdict keep">keep</span>`, "sinceImagePulled"}},
	} {
		status, body := s.get(c.target)
		if status != 200 {
			t.Errorf("%s: status %d", c.target, status)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q", c.target, want)
			}
		}
	}
	if _, body := s.get("/ui/?q=shop"); strings.Contains(body, "base/debian") {
		t.Error("a search finds what has another name")
	}
}

func TestTheGraphCanBeHadAsAFile(t *testing.T) {
	s := demo(t)
	tag, err := s.store.manifests.Resolve(t.Context(), "team/shop/checkout", "v1")
	if err != nil {
		t.Fatal(err)
	}
	base := "/ui/graph/team/shop/checkout@" + string(tag.Digest)
	for as, want := range map[string]string{"": "Notation signature", "tree": "Notation signature", "dot": "digraph", "mermaid": "flowchart", "json": `"steps"`, "svg": "<svg"} {
		if status, body := s.get(base + "?as=" + as); status != 200 || !strings.Contains(body, want) {
			t.Errorf("as %q: %d, no %q", as, status, want)
		}
	}
	if _, body := s.get(base); !strings.HasPrefix(body, "team/shop/checkout@"+string(tag.Digest)+" Image index [latest") {
		t.Errorf("the tree begins %q", clip(body, 200))
	}
	if status, _ := s.get(base + "?as=exe"); status != 400 {
		t.Errorf("as something else: %d", status)
	}
}

func TestErrorsArePages(t *testing.T) {
	s := newShowcase(t)
	image := s.image("a", "x", "v1")
	for target, want := range map[string]int{
		"/ui/nothing":                           404,
		"/ui//x":                                404,
		"/ui/repo/":                             404,
		"/ui/repo/none":                         404,
		"/ui/repo/UPPER":                        404,
		"/ui/repo/a?page=0":                     400,
		"/ui/repo/a?page=x":                     400,
		"/ui/repo/a?show=x":                     400,
		"/ui/image/a:none":                      404,
		"/ui/image/a":                           404,
		"/ui/image/none:v1":                     404,
		"/ui/image/a@sha256:1":                  404,
		"/ui/image/a@" + absent:                 404,
		"/ui/graph/a@" + absent:                 404,
		"/ui/lifecycle/none":                    404,
		"/ui/lifecycle/a?policy=x":              404,
		"/ui/lifecycle/a?days=4":                400,
		"/ui/lifecycle/a?page=x":                400,
		"/ui/lifecycle/a?image=none":            404,
		"/ui/lifecycle/a?image=v1":              200,
		"/ui/image/a@" + string(image.Digest):   200,
		"/ui/repo/a?page=99":                    200,
		"/ui/image/a:%3Cscript%3Ealert(1)":      404,
		"/ui/repo/%3Cscript%3Ealert(1)":         404,
		"/ui/?q=%3Cscript%3Ealert(1)%3C/script": 200,
	} {
		status, body := s.get(target)
		if status != want {
			t.Errorf("%s: status %d, want %d", target, status, want)
		}
		has(t, body, "<h1", `<a href="/ui/`)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, target := range []string{"/ui/", "/ui/repo/a", "/ui/image/a:v1", "/ui/graph/a:v1"} {
			if status, _ := s.do(httptest.NewRequest(method, target, nil)); status != 405 {
				t.Errorf("%s %s: status %d", method, target, status)
			}
		}
	}
	if status, body := s.do(httptest.NewRequest("HEAD", "/ui/", nil)); status != 200 {
		t.Error("HEAD", status, body)
	}
}

const absent = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// broken fails each listing.
type broken struct{ manifest.Store }

var errBroken = errors.New("dsn=secret: connection refused")

func (broken) Manifests(context.Context, string, digest.Digest) iter.Seq2[manifest.Record, error] {
	return func(yield func(manifest.Record, error) bool) { yield(manifest.Record{}, errBroken) }
}

func (broken) Get(context.Context, string, digest.Digest) (manifest.Record, error) {
	return manifest.Record{}, errBroken
}

func TestAnImageShowsItsScan(t *testing.T) {
	s := newShowcase(t)
	image := s.image("a", "x", "v1")
	const key = "com.github.wharfage.scan."
	for _, c := range []struct{ status, counts, want string }{
		{"COMPLETE", "CRITICAL=2,LOW=1500", "COMPLETE</bdi>: 2 critical, 1,500 low, "},
		{"COMPLETE", "", "COMPLETE</bdi>: no findings, "},
		{"<b>", "", "&lt;b&gt;</bdi>, "},
	} {
		s.now = s.now.Add(time.Second)
		s.attach("a", scan.ArtifactType, image, map[string]string{key + "status": c.status, key + "counts": c.counts, key + "completed": s.now.Format(time.RFC3339)})
		_, body := s.get("/ui/image/a:v1")
		has(t, body, c.want, "Scan findings")
	}
}

func TestAFailingStoreIsToldWithoutDetails(t *testing.T) {
	s := newShowcase(t)
	s.image("a", "x", "v1")
	var told []error
	s.handler.OnError = func(_ *http.Request, err error) { told = append(told, err) }
	s.handler.Manifests = broken{s.store.manifests}
	for _, target := range []string{"/ui/repo/a", "/ui/image/a:v1", "/ui/lifecycle/a"} {
		told = nil
		status, body := s.get(target)
		if status != 500 || len(told) != 1 || !errors.Is(told[0], errBroken) || strings.Contains(body, "secret") {
			t.Errorf("%s: status %d, told %v:\n%s", target, status, told, body)
		}
	}
}

func TestThePageAsksWhatTheAPIAsks(t *testing.T) {
	s := newShowcase(t)
	s.image("open", "x", "v1")
	s.image("closed", "x", "v1")
	s.handler.Authorize = func(r *http.Request, repo string, a wharfage.Action) error {
		switch {
		case a != wharfage.ActionPull && a != wharfage.ActionCatalog:
			t.Errorf("it asks to %s", a)
		case repo == "closed" && r.Header.Get("Authorization") == "":
			return &wharfage.AuthError{Challenge: `Basic realm="registry"`}
		case repo == "closed":
			return &wharfage.AuthError{Message: "not you"}
		}
		return nil
	}
	for _, target := range []string{"/ui/repo/closed", "/ui/repo/closed?show=all", "/ui/image/closed:v1", "/ui/image/closed:none", "/ui/graph/closed:v1", "/ui/lifecycle/closed"} {
		r := httptest.NewRequest("GET", target, nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != `Basic realm="registry"` {
			t.Errorf("%s: status %d, header %v", target, w.Code, w.Header())
		}
		r.Header.Set("Authorization", "Basic x")
		if status, body := s.do(r); status != 403 || !strings.Contains(body, "not you") {
			t.Errorf("%s: status %d", target, status)
		}
	}
	if status, body := s.get("/ui/"); status != 200 || strings.Count(body, `<td class="n">1</td>`) != 2 {
		t.Errorf("the list: %d, wants the counts of what may be read:\n%s", status, body)
	}
	if status, _ := s.get("/ui/repo/open"); status != 200 {
		t.Error("open:", status)
	}
}

func TestHostileContentIsOnlyText(t *testing.T) {
	s := newShowcase(t)
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>` + "\u202egnp.exe\x00"
	image := s.image("a", "x", "v1")
	raw, desc, err := manifest.ImageDraft{ArtifactType: "application/vnd.evil+json", Layers: []ocispec.Descriptor{s.blob("a", "application/x.y", "l", 1)}, Subject: &image,
		Annotations: map[string]string{evil: evil, "org.opencontainers.image.title": "</title><script>", "big": strings.Repeat("A", 1<<20)}}.Build()
	_, empty := manifest.Empty()
	s.blob("a", manifest.MediaTypeEmpty, string(empty), 0)
	artifact := s.push("a", raw, desc, err)
	for _, target := range []string{"/ui/image/a:v1", "/ui/image/a@" + string(artifact.Digest), "/ui/repo/a?show=all", "/ui/repo/a?q=" + url.QueryEscape(evil), "/ui/?q=" + url.QueryEscape(evil), "/ui/?after=" + url.QueryEscape(evil),
		"/ui/lifecycle/a?image=" + url.QueryEscape(evil), "/ui/lifecycle/a?policy=" + url.QueryEscape(evil)} {
		_, body := s.get(target) // which looks for scripts
		if strings.Contains(body, "<img") || strings.ContainsAny(strings.ReplaceAll(body, "\u202e", "\x01"), "\x00\x01") && !strings.Contains(target, "?q=") {
			t.Errorf("%s: it comes through:\n%s", target, clip(body, 20000))
		}
		if len(body) > 300_000 {
			t.Errorf("%s: %d bytes", target, len(body))
		}
	}
	_, body := s.get("/ui/image/a@" + string(artifact.Digest))
	has(t, body, `&lt;script&gt;alert(1)`, `\u202egnp.exe`)
	status, body := s.post("/ui/lifecycle/a", url.Values{"text": {`{"rules": [{"rulePriority": "` + evil + `"}]}`}})
	if status != 200 {
		t.Error("a policy with faults:", status)
	}
	has(t, body, "This is no valid policy", "&lt;script&gt;")
}

func TestAThousandImagesArePages(t *testing.T) {
	s := newShowcase(t)
	for i := range 1000 {
		s.now = today.Add(-time.Duration(i) * time.Hour)
		s.image("big", fmt.Sprint(i), fmt.Sprintf("t%03d", i))
	}
	seen := map[string]bool{}
	target, pages := "/ui/repo/big", 0
	next := regexp.MustCompile(`<a href="([^"]*)" rel="next">`)
	for target != "" {
		status, body := s.get(target)
		if pages++; status != 200 || len(body) > 100_000 || pages > 100 {
			t.Fatalf("%s: status %d, %d bytes", target, status, len(body))
		}
		for _, m := range regexp.MustCompile(`<span class="tag">(t\d+)</span>`).FindAllStringSubmatch(body, -1) {
			seen[m[1]] = true
		}
		target = ""
		if m := next.FindStringSubmatch(body); m != nil {
			target = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(seen) != 1000 || pages != 20 {
		t.Errorf("%d images on %d pages", len(seen), pages)
	}
	seen = map[string]bool{}
	for n := 1; n <= 10; n++ {
		status, body := s.post("/ui/lifecycle/big", url.Values{"text": {examplePolicies[0].Text}, "page": {fmt.Sprint(n)}, "days": {"30"}})
		if status != 200 {
			t.Fatal(status)
		}
		for _, m := range regexp.MustCompile(`<span class="tag">(t\d+)</span>`).FindAllStringSubmatch(body, -1) {
			seen[m[1]] = true
		}
	}
	if len(seen) != 1000 {
		t.Errorf("the preview has %d images", len(seen))
	}
	if _, body := s.get("/ui/"); !strings.Contains(body, "1,000&#43;") {
		t.Error("the list of repositories counts on")
	}
}

func TestNumbersSizesAndTimesAreForPeople(t *testing.T) {
	for want, got := range map[string]string{
		"0": number(0), "999": number(999), "1,000": number(1000), "-1,000": number(-1000), "-999": number(-999), "1,234,567": number(int64(1234567)),
		"0 B": size(0), "999 B": size(999), "1.0 kB": size(1000), "9.9 kB": size(9940), "10 kB": size(9960), "1.0 MB": size(999_600), "9.2 EB": size(1<<63 - 1),
		"just now": newMoment(today, today).Ago, "1 minute ago": newMoment(today, today.Add(-time.Minute)).Ago, "23 hours ago": newMoment(today, today.Add(-24*time.Hour+1)).Ago,
		"59 days ago": newMoment(today, today.AddDate(0, 0, -59)).Ago, "2 months ago": newMoment(today, today.AddDate(0, 0, -60)).Ago, "2 years ago": newMoment(today, today.AddDate(-2, 0, 0)).Ago,
		"in the future": newMoment(today, today.Add(time.Hour)).Ago, "": newMoment(today, time.Time{}).Ago,
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAForecastIsDrawnAsSteps(t *testing.T) {
	at := func(d, images, archived, expired int) lifecycle.Day {
		return lifecycle.Day{At: today.AddDate(0, 0, d), Images: images, Archived: archived, Expired: expired}
	}
	f := draw(&lifecycle.Timeline{Days: []lifecycle.Day{at(0, 8, 0, 2), at(1, 8, 0, 0), at(2, 5, 5, 3)}}, false)
	if len(f.Plots) != 1 || len(f.Rows) != 2 || f.Days != 2 {
		t.Fatalf("%+v", f)
	}
	p := f.Plots[0]
	if want := "M0 0H0V24H300V24H600V60"; p.Line != want || p.ArchivedLine != "M0 120H0V120H300V120H600V60" || p.First != "10" || p.Last != "5" {
		t.Errorf("%+v, want the line %s", p, want)
	}
}

func TestAFanOfReferrersIsCut(t *testing.T) {
	s := newShowcase(t)
	image := s.image("a", "x", "v1")
	for i := range mostSteps + 50 {
		s.attach("a", fmt.Sprintf("application/vnd.example.n%d", i), image, nil)
	}
	status, body := s.get("/ui/image/a:v1")
	if status != 200 || len(body) > 1<<20 {
		t.Errorf("status %d, %d bytes", status, len(body))
	}
	has(t, body, "There is more than is shown here")
	if _, body := s.get("/ui/graph/a:v1?as=json"); strings.Count(body, `"edge"`) != mostSteps+50 {
		t.Error("the file has not all of it")
	}
}

func TestThePolicyInForceComesFirst(t *testing.T) {
	s := newShowcase(t)
	s.image("prod/a", "x", "v1")
	s.image("dev/a", "x", "v1")
	file := filepath.Join(t.TempDir(), "policies.json")
	s.policy = (&lifecycleRules{file: file}).inForce
	if err := os.WriteFile(file, []byte(`{"policies": [{"repositories": ["prod/*"], "policy": `+examplePolicies[1].Text+`}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, body := s.get("/ui/lifecycle/prod/a")
	has(t, body, "<option value=\"server\" selected>", "Untagged images go after 14 days")
	_, body = s.get("/ui/lifecycle/dev/a")
	if strings.Contains(body, `value="server"`) {
		t.Error("dev has a policy")
	}
	_, body = s.post("/ui/lifecycle/prod/a", url.Values{"text": {strings.ReplaceAll(examplePolicies[0].Text, "\n", "\r\n")}})
	has(t, body, "<h2 id=\"sums\">Your policy</h2>", "Your own, below")
}

func TestTheServerHasThePageUnlessToldOtherwise(t *testing.T) {
	for _, on := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		addr, admin := free(t), free(t)
		ended := make(chan error, 1)
		go func() {
			ended <- serve(ctx, []string{"-addr", addr, "-admin", admin, "-drain-delay", "0", "-collect-every", "0", fmt.Sprint("-ui=", on)})
		}()
		for status(t, "http://"+addr+"/v2/") != 200 || status(t, "http://"+admin+"/healthz") != 200 {
			select {
			case err := <-ended:
				t.Fatal(err)
			default:
			}
		}
		want := 404
		if on {
			want = 200
		}
		for _, path := range []string{"/", "/ui", "/ui/", "/ui/style.css", "/ui/icon.svg"} {
			if got := status(t, "http://"+addr+path); got != want {
				t.Errorf("-ui=%v: %s: %d, want %d", on, path, got, want)
			}
		}
		for url, want := range map[string]int{
			"http://" + admin + "/ui/": 404, "http://" + admin + "/healthz": 200, "http://" + addr + "/healthz": 404, "http://" + addr + "/v2/_catalog": 200, "http://" + addr + "/other": 404,
		} {
			if got := status(t, url); got != want {
				t.Errorf("-ui=%v: %s: %d, want %d", on, url, got, want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestSettingsAreShown(t *testing.T) {
	s := newShowcase(t)
	_ = s.image("plain/app", "x", "v1")
	_, body := s.get("/ui/repo/plain/app")
	has(t, body, "Settings: tags may move · no lifecycle policy · no scans")

	file := write(t, t.TempDir(), "policy.json", keepOne)
	s.policy = (&lifecycleRules{file: file, own: s.store.repositories}).inForce
	s.scanning = configuration(scan.OnPush, scan.Basic)
	s.handler.Repositories = &repository.Registry{Store: s.store.repositories, Now: s.handler.Now}
	for name, settings := range map[string]repository.Settings{
		"plain/app": {},
		"team/app": {
			TagMutability: "IMMUTABLE_WITH_EXCLUSION", TagMutabilityNot: []repository.TagFilter{{Type: "WILDCARD", Filter: "dev-*"}},
			LifecyclePolicy: keepOne, Encryption: repository.Encryption{Type: "KMS", KMSKey: "<key>"},
			ResourceTags: []repository.ResourceTag{{Key: "cost", Value: "<b>"}},
		},
	} {
		if _, err := s.handler.Repositories.Create(t.Context(), name, settings); err != nil {
			t.Fatal(err)
		}
	}
	_, body = s.get("/ui/repo/plain/app")
	has(t, body, "tags may move · the server&#39;s lifecycle policy · scans by hand", `href="/ui/lifecycle/plain/app?policy=server"`, "Made")
	_, body = s.get("/ui/repo/team/app") // which is empty
	has(t, body, "tags do not move, with exceptions · a lifecycle policy of its own · scans on push", "<code>dev-*</code>", "<code>team</code>", "&lt;key&gt;", "&lt;b&gt;", "<p>None.</p>")
	_, body = s.get("/ui/")
	has(t, body, "plain/app", "team/app")
	s.image("unmade/app", "x", "v1")
	for _, path := range []string{"/ui/repo/unmade/app", "/ui/image/unmade/app:v1", "/ui/lifecycle/unmade/app"} {
		if status, body := s.get(path); status != 404 || !strings.Contains(body, "There is no repository unmade/app.") {
			t.Errorf("%s of what nobody has made: %d", path, status)
		}
	}
	s.handler.OnError = func(*http.Request, error) {}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, body := s.get("/ui/repo/plain/app")
	has(t, body, "a lifecycle policy that cannot be read")
	if status != 200 {
		t.Errorf("status %d", status)
	}
}

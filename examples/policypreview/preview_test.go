package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

const policyText = `{"rules":[
	{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}},
	{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":3},"action":{"type":"expire"}},
	{"rulePriority":3,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":3},"action":{"type":"transition","targetStorageClass":"archive"}}]}`

var day = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// fixture is a registry with a repository of four releases, of which the first
// has a signature and the last is an index.
type fixture struct {
	t     *testing.T
	h     *wharfage.Handler
	now   time.Time
	where string // REGISTRY/REPOSITORY
}

func newFixture(t *testing.T, around func(http.Handler) http.Handler) *fixture {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	f := &fixture{t: t, h: wharfage.NewMemory(), now: day}
	f.h.Now = func() time.Time { return f.now }
	var h http.Handler = f.h
	if around != nil {
		h = around(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	f.where = strings.TrimPrefix(server.URL, "http://") + "/team/app"
	for n := 1; n <= 3; n++ {
		rec := f.image(n, nil, fmt.Sprint("v", n))
		if n == 1 {
			f.image(10, &rec)
		}
		f.now = f.now.AddDate(0, 0, 1)
	}
	child := f.image(4, nil)
	raw, _, err := manifest.IndexDraft{Manifests: []ocispec.Descriptor{
		{MediaType: child.Desc.MediaType, Digest: child.Desc.Digest, Size: child.Desc.Size},
	}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	f.push(raw, "v4", "latest")
	f.now = f.now.AddDate(0, 0, 1)
	return f
}

// image was created n days after 2025 began, and is pushed now.
func (f *fixture) image(n int, subject *manifest.Record, tags ...string) manifest.Record {
	f.t.Helper()
	put := func(typ, content string) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: typ, Digest: digest.FromString(content), Size: int64(len(content))}
		if err := blob.Put(f.t.Context(), f.h.Blobs, "team/app", desc, strings.NewReader(content)); err != nil {
			f.t.Fatal(err)
		}
		return desc
	}
	config := put(ocispec.MediaTypeImageConfig, fmt.Sprintf(`{"created":"2025-01-%02dT00:00:00Z"}`, n))
	d := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{put("application/vnd.example", fmt.Sprint(n))}}
	if subject != nil {
		d.Subject = &ocispec.Descriptor{MediaType: subject.Desc.MediaType, Digest: subject.Desc.Digest, Size: subject.Desc.Size}
	}
	raw, _, err := d.Build()
	if err != nil {
		f.t.Fatal(err)
	}
	return f.push(raw, tags...)
}

func (f *fixture) push(raw []byte, tags ...string) manifest.Record {
	f.t.Helper()
	p := manifest.Pusher{Store: f.h.Manifests, Now: f.h.Now}
	done, err := p.Push(f.t.Context(), "team/app", manifest.PushRequest{Raw: raw, Tags: tags})
	if err != nil {
		f.t.Fatal(err)
	}
	return done.Record
}

// run runs the command with a policy and this repository.
func (f *fixture) run(policy string, args ...string) (status int, stdout, stderr string) {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return command(f.t.Context(), append(args, "-at", "2026-01-05T12:00:00Z", file, f.where)...)
}

func command(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

// table is what a preview shows of each image: action, rule, tags, where its
// time is from.
func table(text string) (rows []string) {
	_, text, _ = strings.Cut(text, "WHY\n")
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) > 5 {
			rows = append(rows, strings.Join([]string{f[0], f[1], f[2], f[4], f[5]}, " "))
		}
	}
	return rows
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPreviewByPushTimes(t *testing.T) {
	f := newFixture(t, nil)
	status, stdout, stderr := f.run(policyText, "-all")
	if status != exitOK || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	rows := table(stdout)
	equal(t, rows[:3],
		"expire 1 v1 2026-01-01T12:00:00Z pushed",
		"expire 1 v2 2026-01-02T12:00:00Z pushed",
		"expire - - 2026-01-01T12:00:00Z pushed", // its signature
	)
	if len(rows) != 6 || !strings.Contains(stdout, "6 images, 2 to expire, 1 to follow") || !strings.Contains(stdout, "times: 6 of the push, as the registry says") ||
		!strings.Contains(stdout, "note: the registry does not list manifests without a tag") {
		t.Errorf("the preview is\n%s", stdout)
	}
}

func TestPreviewByCreationSaysSo(t *testing.T) {
	f := newFixture(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(without{w}, r) })
	})
	status, stdout, stderr := f.run(policyText, "-json", "-all")
	if status != exitOK {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var got struct {
		Repository string
		Summary    struct{ Images, Expiring int }
		Images     []struct {
			TimeIs  source
			Time    time.Time
			Verdict struct {
				Action string
				Tags   []string
				Rule   int64
			}
		}
		Preview struct {
			PreviewResults []struct{ ImageTags []string }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in\n%s", err, stdout)
	}
	var rows []string
	for _, im := range got.Images {
		rows = append(rows, fmt.Sprint(im.Verdict.Action, im.Verdict.Rule, im.Verdict.Tags, im.Time.Format(time.DateOnly), " ", im.TimeIs))
	}
	equal(t, rows[:3], "expire1 [v1]2025-01-01 created", "expire1 [v2]2025-01-02 created", "expire0 []2025-01-10 created")
	if s := strings.Join(rows[3:], "; "); !strings.Contains(s, "keep0 [latest v4]2025-01-04 created (newest)") {
		t.Errorf("the index is not dated by its child: %s", s)
	}
	if got.Repository != f.where || got.Summary.Images != 6 || got.Summary.Expiring != 2 || len(got.Preview.PreviewResults) != 2 {
		t.Errorf("the preview is\n%s", stdout)
	}
}

// without takes the time of a push from answers.
type without struct{ http.ResponseWriter }

func (w without) WriteHeader(status int) {
	w.Header().Del("Last-Modified")
	w.ResponseWriter.WriteHeader(status)
}

// A registry of Google lists manifests without a tag, and when each was uploaded.
func TestPreviewReadsTheListOfGoogle(t *testing.T) {
	var f *fixture
	f = newFixture(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/tags/list") {
				next.ServeHTTP(without{w}, r)
				return
			}
			list := map[string]any{"tags": []string{"v1", "v2", "v3", "v4", "latest"}}
			entries := map[string]any{}
			for rec, err := range f.h.Manifests.Manifests(r.Context(), "team/app", "") {
				if err != nil {
					t.Error(err)
				}
				entries[string(rec.Desc.Digest)] = map[string]any{"tag": []string{}, "timeUploadedMs": fmt.Sprint(rec.PushedAt.UnixMilli())}
			}
			list["manifest"] = entries
			json.NewEncoder(w).Encode(list)
		})
	})
	f.now = day
	f.image(7, nil) // that nothing leads to
	status, stdout, stderr := f.run(policyText)
	if status != exitOK || strings.Contains(stdout, "note:") {
		t.Fatalf("status %d: %s\n%s", status, stderr, stdout)
	}
	rows := table(stdout)
	if len(rows) != 4 || !strings.Contains(strings.Join(rows, "\n"), "expire 2 - 2026-01-01T12:00:00Z pushed") {
		t.Errorf("the preview is\n%s", stdout)
	}
}

func TestPlaceholdersAreNoTimes(t *testing.T) {
	f := newFixture(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(without{w}, r) })
	})
	raw, _, err := manifest.ImageDraft{ArtifactType: "application/vnd.example", Annotations: map[string]string{ocispec.AnnotationCreated: "1970-01-01T00:00:00Z"}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	config, content := manifest.Empty()
	if err := blob.Put(t.Context(), f.h.Blobs, "team/app", config, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	f.push(raw, "v0")
	_, stdout, _ := f.run(policyText, "-all")
	if rows := strings.Join(table(stdout), "\n"); !strings.Contains(rows, "keep - v0 - unknown") {
		t.Errorf("the preview is\n%s", stdout)
	}
}

func TestLimitsAreForCI(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		args   []string
		status int
		stderr string
	}{
		{nil, exitOK, ""},
		{[]string{"-max", "3", "-max-share", "0.5", "-keep", "v3", "-keep", "late*"}, exitOK, ""},
		{[]string{"-max", "2"}, exitLimit, "-max 2: 3 images would go"},
		{[]string{"-max-share", "0.25", "-json"}, exitLimit, "-max-share 0.25: 2 of 4 tagged images would go"},
		{[]string{"-keep", "*2"}, exitLimit, "-keep *2: the image with the tag v2 would go: expire: rule 1 keeps the 2 newest"},
	} {
		status, stdout, stderr := f.run(policyText, c.args...)
		if status != c.status || !strings.Contains(stderr, c.stderr) || stdout == "" {
			t.Errorf("%q: status %d: %s", c.args, status, stderr)
		}
	}
}

// Each mistake has an error that says what it is.
func TestMistakes(t *testing.T) {
	f := newFixture(t, nil)
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	policy := file("policy.json", policyText)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	host := func(h http.HandlerFunc) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	answer := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(status)
				fmt.Fprint(w, text)
			}
		}
	}
	wrong := f.h
	swapped := host(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
			fmt.Fprint(w, "{}")
			return
		}
		wrong.ServeHTTP(w, r)
	})
	for name, c := range map[string]struct {
		args   []string
		status int
		want   []string
	}{
		"no arguments":     {nil, exitUsage, []string{"want a policy file and a repository", "usage:"}},
		"a question":       {[]string{"-h"}, exitOK, []string{"usage:", "-max-share"}},
		"unknown flag":     {[]string{"-nope"}, exitUsage, []string{"-nope"}},
		"bad time":         {[]string{"-at", "tomorrow", policy, f.where}, exitUsage, []string{`-at "tomorrow"`, "2026-12-31"}},
		"empty pattern":    {[]string{"-keep", "", policy, f.where}, exitUsage, []string{"the pattern is empty"}},
		"no file":          {[]string{filepath.Join(dir, "none"), f.where}, exitFailed, []string{"none"}},
		"no JSON":          {[]string{file("text", "rules: []"), f.where}, exitFailed, []string{"is no lifecycle policy", "parse"}},
		"faults":           {[]string{file("faults", strings.Replace(strings.Replace(policyText, `"days"`, `"hours"`, 1), `"countNumber":2`, `"countNumber":0`, 1)), f.where}, exitFailed, []string{"/rules/0/selection/countNumber", "/rules/1/selection/countUnit"}},
		"a scheme":         {[]string{policy, "https://" + f.where}, exitFailed, []string{"without a scheme"}},
		"a tag":            {[]string{policy, f.where + ":v1"}, exitFailed, []string{"names one image"}},
		"no registry name": {[]string{policy, "app"}, exitFailed, []string{"is no repository"}},
		"bad name":         {[]string{policy, "localhost:1/UPPER"}, exitFailed, []string{"is no repository"}},
		"not there":        {[]string{policy, strings.TrimPrefix(closed.URL, "http://") + "/x/y"}, exitFailed, []string{"list tags", "refused"}},
		"no registry":      {[]string{policy, host(http.NotFound) + "/x/y"}, exitFailed, []string{"404"}},
		"no repository":    {[]string{policy, f.where + "/none"}, exitFailed, []string{"there is no repository"}},
		"no right":         {[]string{policy, host(answer(403, `{"errors":[{"code":"DENIED","message":"not yours"}]}`)) + "/x/y"}, exitFailed, []string{"403", "DENIED not yours", "docker login"}},
		"too many":         {[]string{policy, host(answer(429, "")) + "/x/y"}, exitFailed, []string{"429", "try again later"}},
		"no list":          {[]string{policy, host(answer(200, "<html>")) + "/x/y"}, exitFailed, []string{"the answer is no list"}},
		"bad tag":          {[]string{policy, host(answer(200, `{"tags":["../x"]}`)) + "/x/y"}, exitFailed, []string{`"../x"`}},
		"next is away": {[]string{policy, host(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<http://example.com/>; rel="next"`)
			fmt.Fprint(w, `{}`)
		}) + "/x/y"}, exitFailed, []string{"the next page is elsewhere"}},
		"other bytes":      {[]string{policy, swapped + "/team/app"}, exitFailed, []string{"wrong content"}},
		"an ended context": {[]string{policy, f.where}, exitFailed, []string{"canceled"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			if name == "an ended context" {
				stop()
			}
			status, stdout, stderr := command(ctx, c.args...)
			if status != c.status || stdout != "" {
				t.Errorf("status %d, %s", status, stdout)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("the error is %q, want %q", stderr, want)
				}
			}
		})
	}
}

func TestRegistryWithoutReferrers(t *testing.T) {
	f := newFixture(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	status, stdout, stderr := f.run(policyText, "-all")
	if status != exitOK || len(table(stdout)) != 5 || strings.Count(stdout, "no referrers API") != 1 {
		t.Errorf("status %d: %s\n%s", status, stderr, stdout)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{{"*", "", true}, {"a", "a", true}, {"a", "ab", false}, {"a*a", "a", false}, {"*b*", "abc", true}, {"*b*c*", "acb", false}, {"a**", "abc", true}, {"*ab", "aab", true}} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("matches(%q, %q) is %v", c.pattern, c.name, got)
		}
	}
}

package wharfage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

// site serves h, and sends requests to it.
type site struct {
	*testing.T
	url string
}

func serve(t *testing.T, h *Handler) site {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return site{t, server.URL + "/v2/"}
}

// does sends a request and checks the status and a part of the answer.
func (s site) does(method, path string, body []byte, status int, part string, header ...string) {
	s.Helper()
	resp, answer := send(s.T, method, s.url+path, body, header...)
	if resp.StatusCode != status || !strings.Contains(string(answer), part) {
		s.Errorf("%s %s: %s %s, want %d %s", method, path, resp.Status, answer, status, part)
	}
}

func (s site) put(path string, raw []byte, status int, part string) {
	s.Helper()
	s.does("PUT", path, raw, status, part, "Content-Type", manifest.MediaTypeIndex)
}

// index returns an index that is another one for each name.
func index(t *testing.T, name string) ([]byte, digest.Digest) {
	t.Helper()
	raw, desc, err := manifest.IndexDraft{Annotations: map[string]string{"name": name}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return raw, desc.Digest
}

func TestPushesMakeRepositoriesAsTemplatesSay(t *testing.T) {
	h := NewMemory()
	h.Repositories = &repository.Registry{
		Store: new(memrepository.Store), Content: h.Manifests, MaxRepositories: 3,
		Templates: repository.Static(repository.Template{Prefix: "team", AppliedFor: []repository.Cause{repository.CausePush}}),
	}
	var asked []string
	h.Authorize = func(_ *http.Request, repo string, a Action) error {
		asked = append(asked, repo+" "+string(a))
		if a == ActionCreateRepository && repo == "team/secret" {
			return errors.New("no")
		}
		return nil
	}
	s := serve(t, h)
	raw, dgst := index(t, "1")
	for _, path := range []string{"other/manifests/v1", "team/manifests/v1"} {
		s.put(path, raw, 404, "NAME_UNKNOWN")
	}
	s.does("POST", "other/blobs/uploads/", nil, 404, "NAME_UNKNOWN")
	s.put("team/secret/manifests/v1", raw, 403, "DENIED")
	s.does("GET", "team/app/tags/list", nil, 404, "NAME_UNKNOWN")
	s.does("POST", "team/app/blobs/uploads/", nil, 202, "")
	s.does("GET", "team/app/tags/list", nil, 200, `{"name":"team/app","tags":[]}`)
	asked = nil
	s.put("team/app/manifests/v1", raw, 201, "")
	if want := []string{"team/app push"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	s.put("team/b/manifests/v1", raw, 201, "")
	if want := []string{"team/app push", "team/b push", "team/b create-repository"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	s.put("team/c/manifests/v1", raw, 201, "")
	s.put("team/d/manifests/v1", raw, 403, "quota")
	if _, err := h.Repositories.Create(t.Context(), "empty", repository.Settings{}); !errors.Is(err, repository.ErrQuota) {
		t.Error(err)
	}
	s.does("DELETE", "team/c/manifests/"+string(dgst), nil, 202, "")
	s.does("GET", "_catalog", nil, 200, `["team/app","team/b","team/c"]`)
	if err := h.Repositories.Delete(t.Context(), "team/c"); err != nil {
		t.Error(err)
	}
	if err := h.Repositories.Delete(t.Context(), "team/b"); !errors.Is(err, repository.ErrNotEmpty) {
		t.Error(err)
	}
	h.Repositories.Content = nil
	if err := h.Repositories.Delete(t.Context(), "team/b"); err != nil {
		t.Error(err)
	}
	s.does("GET", "team/b/manifests/v1", nil, 404, "NAME_UNKNOWN")
	s.does("DELETE", "team/b/manifests/v1", nil, 404, "NAME_UNKNOWN")
}

func TestTagsMoveAsTheRepositoryIsSet(t *testing.T) {
	h := NewMemory()
	h.Repositories = &repository.Registry{Store: new(memrepository.Store), Content: h.Manifests}
	if _, err := h.Repositories.Create(t.Context(), "app", repository.Settings{
		TagMutability: "IMMUTABLE_WITH_EXCLUSION", TagMutabilityNot: []repository.TagFilter{{Type: "WILDCARD", Filter: "dev-*"}},
	}); err != nil {
		t.Fatal(err)
	}
	var asked []string
	h.AuthorizeChange = func(_ *http.Request, _ string, tr Transition) error {
		asked = append(asked, tr.Tag)
		return nil
	}
	s := serve(t, h)
	one, _ := index(t, "1")
	two, _ := index(t, "2")
	for _, tag := range []string{"v1", "dev-1"} {
		s.put("app/manifests/"+tag, one, 201, "")
		s.put("app/manifests/"+tag, one, 201, "")
	}
	s.put("app/manifests/v1", two, 409, "immutable")
	s.put("app/manifests/dev-1", two, 201, "")
	if want := []string{"v1", "dev-1", "dev-1"}; !slices.Equal(asked, want) {
		t.Errorf("AuthorizeChange was asked about %q, want %q: not about what is refused anyhow", asked, want)
	}
}

func TestQuotasRefuseWhatIsNew(t *testing.T) {
	for _, counts := range []bool{true, false} {
		h := NewMemory()
		h.Limits = Limits{Images: 2, TagsPerImage: 2}
		if !counts {
			h.Manifests = struct{ manifest.Store }{h.Manifests}
		}
		s := serve(t, h)
		one, dgst := index(t, "1")
		two, other := index(t, "2")
		three, third := index(t, "3")
		s.put("app/manifests/a", one, 201, "")
		s.put("app/manifests/b", one, 201, "")
		s.put("app/manifests/b", one, 201, "") // where it is
		s.put("app/manifests/c", one, 403, "2 tags per image")
		s.put("app/manifests/"+string(dgst)+"?tag=c&tag=d", one, 403, "DENIED")
		s.put("app/manifests/b", two, 201, "")
		s.put("app/manifests/"+string(dgst)+"?tag=c&tag=c", one, 201, "")
		s.put("app/manifests/"+string(other), two, 201, "")
		s.put("app/manifests/x", three, 403, "2 images per repository")
		s.does("GET", "app/manifests/"+string(third), nil, 404, "")
		s.put("app2/manifests/x", three, 201, "")
	}
	if l := ECRLimits(); l.Images != 100_000 || l.TagsPerImage != 1_000 || l.BlobSize != 54_525_952_000 {
		t.Errorf("%+v", l)
	}
}

// askedWell fails a test that asks it for names that are none.
type askedWell struct {
	*memmanifest.Store
	t *testing.T
}

func (s askedWell) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	if err := manifest.CheckTag(tag); err != nil {
		s.t.Errorf("Resolve: %v", err)
	}
	return s.Store.Resolve(ctx, repo, tag)
}

func TestStoresAreNotAskedForTagsThatAreNone(t *testing.T) {
	h := NewMemory()
	h.Manifests = askedWell{h.Manifests.(*memmanifest.Store), t}
	h.Limits = Limits{TagsPerImage: 2}
	s := serve(t, h)
	raw, dgst := index(t, "1")
	for _, path := range []string{"app/manifests/-x", "app/manifests/x%00", "app/manifests/", "app/manifests/" + string(dgst) + "?tag=ok&tag=%00"} {
		s.put(path, raw, 400, "NAME_INVALID")
		s.does("DELETE", path, nil, 404, "")
		s.does("HEAD", path, nil, 404, "")
		s.does("GET", path, nil, 404, "")
	}
	s.does("PUT", "app/manifests/-x", raw, 400, "NAME_INVALID", "Content-Type", manifest.MediaTypeIndex, "If-Match", "*")
}

func TestAuthorizeChangeSeesTheTransition(t *testing.T) {
	h := NewMemory()
	var seen []string
	_, d1 := index(t, "1")
	_, d2 := index(t, "2")
	names := map[digest.Digest]string{"": "", d1: "d1", d2: "d2"}
	h.AuthorizeChange = func(_ *http.Request, repo string, tr Transition) error {
		seen = append(seen, strings.TrimRight(fmt.Sprintf("%s %s %s>%s", tr.Action, tr.Tag, names[tr.Old], names[tr.New]), ">"))
		if tr.Tag == "keep" && tr.Action != ActionCreate {
			return &AuthError{Message: "keep stays"}
		}
		if tr.Tag == "broken" {
			return errors.New("secret")
		}
		return nil
	}
	var told error
	h.OnError = func(_ *http.Request, err error) { told = err }
	s := serve(t, h)
	one, _ := index(t, "1")
	two, _ := index(t, "2")
	step := func(do func(), want ...string) {
		t.Helper()
		seen = nil
		if do(); !slices.Equal(seen, want) {
			t.Errorf("asked %q, want %q", seen, want)
		}
	}
	step(func() { s.put("app/manifests/v1", one, 201, "") }, "create v1 >d1")
	step(func() { s.put("app/manifests/v1", one, 201, "") })
	step(func() { s.put("app/manifests/v1", two, 201, "") }, "update v1 d1>d2")
	step(func() { s.put("app/manifests/"+string(d1), one, 201, "") })
	step(func() { s.put("app2/manifests/"+string(d1), one, 201, "") }, "create  >d1")
	step(func() { s.put("app/manifests/"+string(d1)+"?tag=keep&tag=v2", one, 201, "") }, "create keep >d1", "create v2 >d1")
	step(func() { s.put("app/manifests/keep", two, 403, "keep stays") }, "update keep d1>d2")
	step(func() { s.put("app/manifests/broken", two, 403, "access denied") }, "create broken >d2")
	if told == nil || told.Error() != "secret" {
		t.Errorf("OnError was told %v", told)
	}
	step(func() { s.does("DELETE", "app/manifests/keep", nil, 403, "keep stays") }, "delete keep d1")
	step(func() { s.does("DELETE", "app/manifests/"+string(d1), nil, 403, "keep stays") }, "delete  d1", "delete keep d1")
	step(func() { s.does("DELETE", "app/manifests/none", nil, 404, "") })
	step(func() { s.does("DELETE", "app/manifests/"+string(digest.FromString("x")), nil, 404, "") })
	step(func() { s.does("DELETE", "app/manifests/v2", nil, 202, "") }, "delete v2 d1")
	step(func() { s.does("GET", "app/tags/list", nil, 200, `["keep","v1"]`) })
	step(func() { s.does("DELETE", "app/manifests/v1", nil, 412, "", "If-Match", etag(d1)) })
	step(func() { s.does("DELETE", "app/manifests/v1", nil, 412, "", "If-None-Match", "*") })
	step(func() { s.does("DELETE", "app/manifests/"+string(d2), nil, 202, "") }, "delete  d2", "delete v1 d2")
	step(func() { s.does("GET", "app/tags/list", nil, 200, `["keep"]`) })
}

// TestAuthorizeChangeIsPartOfTheChange lets tags move, under the eyes of a hook that allows
// no more than what it is asked about, while others delete by digest.
func TestAuthorizeChangeIsPartOfTheChange(t *testing.T) {
	const rounds = 200
	for round := range rounds {
		h := NewMemory()
		one, d1 := index(t, "1")
		two, d2 := index(t, "2")
		// Nobody may delete a tag that names two, nor the manifest two while it has one.
		h.AuthorizeChange = func(_ *http.Request, _ string, tr Transition) error {
			if tr.Action == ActionDelete && tr.Old == d2 {
				return &AuthError{}
			}
			return nil
		}
		do := func(method, path string, body []byte) int {
			r := httptest.NewRequest(method, "/v2/app/manifests/"+path, strings.NewReader(string(body)))
			r.Header.Set("Content-Type", manifest.MediaTypeIndex)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		do("PUT", "v1", one)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for _, f := range []func(){
			func() { do("PUT", "v1", two) },
			func() { do("DELETE", "v1", nil) },
			func() { do("DELETE", string(d1), nil) },
		} {
			wg.Go(func() { <-start; f() })
		}
		close(start)
		wg.Wait()
		if tag, err := h.Manifests.Resolve(t.Context(), "app", "v1"); err != nil || tag.Digest != d2 {
			t.Fatalf("round %d: v1 is at %s, %v: a deletion passed that was never allowed", round, tag.Digest, err)
		}
	}
}

// movedOnce moves a tag, before the first Apply that it sees.
type movedOnce struct {
	*memmanifest.Store
	move manifest.Change
	once sync.Once
}

func (s *movedOnce) Apply(ctx context.Context, repo string, c manifest.Change) error {
	s.once.Do(func() {
		if err := s.Store.Apply(ctx, repo, s.move); err != nil {
			panic(err)
		}
	})
	return s.Store.Apply(ctx, repo, c)
}

func TestALostRaceIsAskedAboutAgain(t *testing.T) {
	one, d1 := index(t, "1")
	_, d2 := index(t, "2")
	for path, c := range map[string]struct {
		meanwhile manifest.TagMove
		want      []digest.Digest
	}{
		"v1":       {manifest.TagMove{Name: "v1", To: d2}, []digest.Digest{d1, d2}},
		string(d1): {manifest.TagMove{Name: "v2", To: d1}, []digest.Digest{d1, d1, d1, d1}}, // the manifest, v1, v1 and v2
	} {
		h := NewMemory()
		store := h.Manifests.(*memmanifest.Store)
		s := serve(t, h)
		two, _ := index(t, "2")
		s.put("app/manifests/v1", one, 201, "")
		s.put("app/manifests/x", two, 201, "")
		h.Manifests = &movedOnce{Store: store, move: manifest.Change{Tags: []manifest.TagMove{c.meanwhile}}}
		var asked []digest.Digest
		h.AuthorizeChange = func(_ *http.Request, _ string, tr Transition) error {
			asked = append(asked, tr.Old)
			return nil
		}
		s.does("DELETE", "app/manifests/"+path, nil, 202, "")
		if !slices.Equal(asked, c.want) {
			t.Errorf("%s: asked about %v, want %v", path, asked, c.want)
		}
	}
}

// A copy makes the repositories that a template makes for copies, and no other.
func TestACopyMakesRepositoriesByItsOwnTemplates(t *testing.T) {
	h := NewMemory()
	h.Repositories = &repository.Registry{
		Store: new(memrepository.Store), Content: h.Manifests,
		Templates: repository.Static(repository.Template{Prefix: "copies", AppliedFor: []repository.Cause{repository.CauseReplication}}),
	}
	h.Cause = func(r *http.Request) (manifest.Cause, []string) {
		return manifest.Cause(r.Header.Get("X-Test-Cause")), nil
	}
	server := httptest.NewServer(h)
	defer server.Close()
	for _, cause := range []manifest.Cause{manifest.CauseClient, manifest.CauseReplication} {
		want := map[manifest.Cause]int{manifest.CauseClient: http.StatusNotFound, manifest.CauseReplication: http.StatusAccepted}[cause]
		r, _ := http.NewRequest("POST", server.URL+"/v2/copies/app/blobs/uploads/", nil)
		r.Header.Set("X-Test-Cause", string(cause))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a push for %q: %d, want %d", cause, resp.StatusCode, want)
		}
	}
}

// leaving ends the context of a request once its change is committed.
type leaving struct {
	*memmanifest.Store
	leave context.CancelFunc
}

func (s *leaving) Apply(ctx context.Context, repo string, c manifest.Change) error {
	err := s.Store.Apply(ctx, repo, c)
	s.leave()
	return err
}

// What is committed is told, with a context that can still be used, though the client has gone.
func TestOnCommitOutlivesTheClient(t *testing.T) {
	h := NewMemory()
	store := &leaving{Store: h.Manifests.(*memmanifest.Store)}
	h.Manifests = store
	type key struct{}
	told := 0
	h.OnCommit = func(ctx context.Context, _ manifest.Event) {
		if told++; ctx.Err() != nil || ctx.Value(key{}) != "value" {
			t.Errorf("OnCommit was told with a context that is %v and has %v", ctx.Err(), ctx.Value(key{}))
		}
	}
	raw, _ := index(t, "1")
	for _, method := range []string{"PUT", "DELETE"} {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		store.leave = cancel
		r := httptest.NewRequestWithContext(ctx, method, "/v2/app/manifests/v1", strings.NewReader(string(raw)))
		r.Header.Set("Content-Type", manifest.MediaTypeIndex)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if told != 2 {
		t.Errorf("told of %d changes", told)
	}
}

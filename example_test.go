package wharfage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func ExampleNewMemory() {
	server := httptest.NewServer(wharfage.NewMemory())
	defer server.Close()

	hello := strings.NewReader("hello")
	resp, err := http.Post(server.URL+"/v2/demo/app/blobs/uploads/?digest="+string(digest.FromString("hello")), "application/octet-stream", hello)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.Status)
	fmt.Println(resp.Header.Get("Location"))
	// Output:
	// 201 Created
	// /v2/demo/app/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
}

// A registry out of stores of your choice, with its hooks.
func ExampleHandler() {
	blobs := new(memblob.Store)
	manifests := &memmanifest.Store{MissingBlobs: blob.Missing(blobs)}
	blobs.Guard = wharfage.GuardBlobs(manifests)
	h := &wharfage.Handler{
		Blobs:     blobs,
		Manifests: manifests,
		Authorize: func(r *http.Request, repo string, a wharfage.Action) error {
			if a == wharfage.ActionPush && !strings.HasPrefix(repo, "team/") {
				return &wharfage.AuthError{Message: "push below team/"}
			}
			return nil
		},
		OnCommit: func(_ context.Context, e manifest.Event) {
			fmt.Println("event:", e.Repo, e.Change.Tags[0].Name, e.Change.At.Year())
		},
		Now: func() time.Time { return time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC) },
	}
	server := httptest.NewServer(h)
	defer server.Close()

	index, desc, err := manifest.IndexDraft{}.Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, repo := range []string{"team/app", "other"} {
		req, _ := http.NewRequest("PUT", server.URL+"/v2/"+repo+"/manifests/v1", strings.NewReader(string(index)))
		req.Header.Set("Content-Type", desc.MediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		answer, _ := io.ReadAll(resp.Body)
		fmt.Println(strings.TrimSpace(resp.Status + " " + string(answer)))
	}
	// Output:
	// event: team/app v1 2026
	// 201 Created
	// 403 Forbidden {"errors":[{"code":"DENIED","message":"push below team/","detail":""}]}
}

// Tags that stay, but for some, as ECR's tag mutability has it. Here they cannot be
// deleted either.
func ExampleHandler_tagMutability() {
	h := wharfage.NewMemory()
	tags := manifest.TagMutability{Mode: manifest.ImmutableWithExclusion, Filters: []string{"latest", "dev-*"}}
	h.Pusher.MoveTag, h.Deleter.KeepTag = tags.MoveTag, tags.KeepTag
	do := func(method, path, body string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body)))
	}
	one, _, _ := manifest.IndexDraft{Annotations: map[string]string{"build": "1"}}.Build()
	two, _, _ := manifest.IndexDraft{Annotations: map[string]string{"build": "2"}}.Build()
	do("PUT", "/v2/app/manifests/v1", string(one))
	do("PUT", "/v2/app/manifests/v1", string(one)) // again is no harm
	do("PUT", "/v2/app/manifests/v1", string(two))
	do("DELETE", "/v2/app/manifests/v1", "")
	do("PUT", "/v2/app/manifests/latest", string(one))
	do("PUT", "/v2/app/manifests/latest", string(two))
	// Output:
	// 201
	// 201
	// 409 {"errors":[{"code":"DENIED","message":"push v1 in app: tag v1: refused: the tag v1 exists in the repository app and cannot be overwritten because it is immutable","detail":""}]}
	// 405 {"errors":[{"code":"DENIED","message":"untag v1 in app: tag v1: refused: the tag v1 exists in the repository app and cannot be deleted because it is immutable","detail":""}]}
	// 201
	// 201
}

func ExampleResolveLocation() {
	request, _ := url.Parse("https://registry.example/v2/app/blobs/uploads/")
	for _, location := range []string{"/v2/app/blobs/uploads/1?state=x", "https://storage.example/1", `https:\\evil.example\1`} {
		to, sameOrigin, err := wharfage.ResolveLocation(request, location)
		fmt.Println(to, "send credentials:", sameOrigin, errors.Is(err, wharfage.ErrLocation))
	}
	// Output:
	// https://registry.example/v2/app/blobs/uploads/1?state=x send credentials: true false
	// https://storage.example/1 send credentials: false false
	// <nil> send credentials: false true
}

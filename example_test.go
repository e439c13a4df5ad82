package wharfage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
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

// shop is a registry with one image and its SBOM.
func shop() (h *wharfage.Handler, image digest.Digest) {
	ctx := context.Background()
	h = wharfage.NewMemory()
	put := func(mediaType, content string) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
		if err := blob.Put(ctx, h.Blobs, "shop", desc, strings.NewReader(content)); err != nil {
			panic(err)
		}
		return desc
	}
	pusher := &manifest.Pusher{Store: h.Manifests, Now: func() time.Time { return time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC) }}
	push := func(d manifest.ImageDraft, tags ...string) ocispec.Descriptor {
		raw, desc, _ := d.Build()
		if _, err := pusher.Push(ctx, "shop", manifest.PushRequest{Raw: raw, Tags: tags}); err != nil {
			panic(err)
		}
		return desc
	}
	config := put(ocispec.MediaTypeImageConfig, "{}")
	desc := push(manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, "layer")}}, "latest", "v1")
	subject := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	push(manifest.ImageDraft{ArtifactType: "application/spdx+json", Layers: []ocispec.Descriptor{put("application/spdx+json", "sbom")}, Subject: &subject})
	return h, desc.Digest
}

func ExampleImages_Describe() {
	h, _ := shop()
	for d, err := range h.Images().Describe(context.Background(), "shop", wharfage.ImageFilter{Tags: wharfage.Tagged}, "") {
		fmt.Println(d.Tags, d.Size, d.ArtifactType, d.PushedAt.Year(), err)
	}
	// Output: [latest v1] 7 application/vnd.oci.image.config.v1+json 2026 <nil>
}

// Details in ECR's JSON.
func ExampleImages_Find() {
	h, _ := shop()
	found, err := h.Images().Find(context.Background(), "shop", wharfage.ImageID{Tag: "v1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := json.MarshalIndent(found[0], "", "  ")
	fmt.Println(string(text), err)
	_, err = h.Images().Find(context.Background(), "shop", wharfage.ImageID{Tag: "v2"})
	fmt.Println(manifest.IsNotFound(err))
	// Output:
	// {
	//   "repositoryName": "shop",
	//   "imageDigest": "sha256:a3aa9a6043e00956389f9e9ac582e89b5acda67f142cb2b9f4ca1ab146b651d7",
	//   "imageTags": [
	//     "latest",
	//     "v1"
	//   ],
	//   "imageSizeInBytes": 7,
	//   "imagePushedAt": 1795219200,
	//   "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json",
	//   "artifactMediaType": "application/vnd.oci.image.config.v1+json",
	//   "imageStatus": "ACTIVE"
	// } <nil>
	// true
}

func ExampleImages_List() {
	h, _ := shop()
	ids, more, err := wharfage.Page(h.Images().List(context.Background(), "shop", wharfage.ImageFilter{Tags: wharfage.Tagged}, wharfage.ImageID{}), 1)
	fmt.Println(ids[0].Tag, more, err)
	ids, more, err = wharfage.Page(h.Images().List(context.Background(), "shop", wharfage.ImageFilter{Tags: wharfage.Tagged}, ids[0]), 1)
	fmt.Println(ids[0].Tag, more, err)
	// Output:
	// latest true <nil>
	// v1 false <nil>
}

func ExampleImages_ImageReferrers() {
	h, image := shop()
	for r, err := range h.Images().ImageReferrers(context.Background(), "shop", image, wharfage.ReferrerFilter{}, "") {
		fmt.Println(r.ArtifactType, r.Status, err)
	}
	// Output: application/spdx+json ACTIVE <nil>
}

func ExampleImages_Usage() {
	h, _ := shop()
	u, err := h.Images().Usage(context.Background(), "shop")
	fmt.Println(u.Images, u.Tags, u.Blobs, u.ListedBytes, err)
	// Output: 2 2 3 13 <nil>
}

// Release tags may be made, and never moved or removed.
func ExampleHandler_authorizeChange() {
	h := wharfage.NewMemory()
	h.AuthorizeChange = func(r *http.Request, repo string, t wharfage.Transition) error {
		if strings.HasPrefix(t.Tag, "v") && t.Action != wharfage.ActionCreate {
			return &wharfage.AuthError{Message: "releases stay"}
		}
		return nil
	}
	for _, method := range []string{"PUT", "DELETE"} {
		index, _, _ := manifest.IndexDraft{}.Build()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/v2/app/manifests/v1", strings.NewReader(string(index))))
		fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body)))
	}
	// Output:
	// 201
	// 403 {"errors":[{"code":"DENIED","message":"releases stay","detail":""}]}
}

// Repositories below team/ are made by the first push, others by hand.
func ExampleHandler_repositories() {
	h := wharfage.NewMemory()
	h.Repositories = &repository.Registry{
		Store:     new(memrepository.Store),
		Templates: repository.Static(repository.Template{Prefix: "team", AppliedFor: []repository.Cause{repository.CausePush}}),
		Content:   h.Manifests,
	}
	for _, repo := range []string{"team/app", "app"} {
		index, _, _ := manifest.IndexDraft{}.Build()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/"+repo+"/manifests/v1", strings.NewReader(string(index))))
		fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body)))
	}
	// Output:
	// 201
	// 404 {"errors":[{"code":"NAME_UNKNOWN","message":"create repository app: repository not found, and no template lets a push make it","detail":""}]}
}

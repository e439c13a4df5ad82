package pullthrough_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/pullthrough"
)

// A registry that caches another. Here that is in this process; over HTTP it is one of
// examples/store/remote.
func Example() {
	ctx := context.Background()
	upstream := wharfage.NewMemory()
	pusher := manifest.Pusher{Store: upstream.Manifests}
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	if _, err := pusher.Push(ctx, "coreos/etcd", manifest.PushRequest{Raw: index, Tags: []string{"v3"}}); err != nil {
		fmt.Println(err)
	}

	rules, err := pullthrough.ParseRules(`[{"ecrRepositoryPrefix":"quay","upstreamRegistryUrl":"quay.io"}]`, pullthrough.RuleOptions{})
	if err != nil {
		fmt.Println(err)
	}
	up := true
	h := wharfage.NewMemory()
	cache := &pullthrough.Cache{
		Blobs: h.Blobs, Manifests: h.Manifests, Rules: rules,
		Upstream: func(context.Context, pullthrough.Rule) (replication.Source, error) {
			if !up {
				return replication.Source{}, errors.New("no route to host")
			}
			return replication.Source{Blobs: upstream.Blobs, Manifests: upstream.Manifests}, nil
		},
		TagAge: -1, // ask upstream at each pull
	}
	defer cache.Close()
	h.Blobs, h.Manifests, h.Referrers = cache.CachedBlobs(), cache.CachedManifests(), cache.CachedReferrers()
	serve := pullthrough.Middleware(h)

	pull := func(path string) {
		w := httptest.NewRecorder()
		serve.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		warning, _, _ := strings.Cut(w.Header().Get("Warning"), "; this is the copy of ")
		fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", warning)))
	}
	pull("/v2/quay/coreos/etcd/manifests/v3")
	up = false
	pull("/v2/quay/coreos/etcd/manifests/v3")
	pull("/v2/quay/coreos/etcd/manifests/v4")
	// Output:
	// 200
	// 200 299 - "upstream quay.io/coreos/etcd v3: unavailable: no route to host
	// 503
}

func ExampleRules() {
	rules, _ := pullthrough.ParseRules(`[
		{"ecrRepositoryPrefix":"ROOT",   "upstreamRegistryUrl":"registry.example.com:5000"},
		{"ecrRepositoryPrefix":"mirror", "upstreamRegistryUrl":"quay.io", "upstreamRepositoryPrefix":"coreos"}
	]`, pullthrough.RuleOptions{})
	for _, local := range []string{"mirror/etcd", "mirror", "team/app"} {
		rule, repo, _ := rules.Upstream(local)
		fmt.Println(local, "is", rule.UpstreamURL, repo)
	}
	fmt.Println(rules.Local("quay.io", "coreos/etcd"), rules.Local("quay.io", "other/etcd"))
	// Output:
	// mirror/etcd is quay.io coreos/etcd
	// mirror is registry.example.com:5000 mirror
	// team/app is registry.example.com:5000 team/app
	// [mirror/etcd] []
}

func ExampleParseRules() {
	for _, text := range []string{
		`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"registry-1.docker.io","upstreamRegistry":"quay"}]`,
		`[{"ecrRepositoryPrefix":"hub","upstreamRegistryURL":"registry-1.docker.io"}]`,
		`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"https://example.com"}]`,
	} {
		_, err := pullthrough.ParseRules(text, pullthrough.RuleOptions{})
		rule, _ := errors.AsType[*pullthrough.RuleError](err)
		fmt.Println(rule.Fault, "at", err)
	}
	// Output:
	// unsupported_upstream at /0/upstreamRegistry: is to be ECR's name for the upstream (is "quay")
	// unknown_field at /0/upstreamRegistryURL: no rule has a member of this name
	// unsupported_upstream at /0/upstreamRegistryUrl: is to be a host, with a port if need be (is "https://example.com")
}

// Everything that upstream has may be evicted; what was pushed here is not.
func ExampleCache_Evict() {
	ctx := context.Background()
	upstream, h := wharfage.NewMemory(), wharfage.NewMemory()
	rules, _ := pullthrough.NewRules([]pullthrough.Rule{{Prefix: pullthrough.Root, UpstreamURL: "quay.io"}}, pullthrough.RuleOptions{})
	cache := &pullthrough.Cache{Blobs: h.Blobs, Manifests: h.Manifests, Rules: rules,
		Upstream: func(context.Context, pullthrough.Rule) (replication.Source, error) {
			return replication.Source{Blobs: upstream.Blobs, Manifests: upstream.Manifests}, nil
		}}
	defer cache.Close()

	theirs := manifest.Pusher{Store: upstream.Manifests}
	theirs.Push(ctx, "app", manifest.PushRequest{Tags: []string{"theirs"},
		Raw: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)})
	ours := manifest.Pusher{Store: cache.CachedManifests()}
	ours.Push(ctx, "app", manifest.PushRequest{Tags: []string{"ours"},
		Raw: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{}}`)})
	cache.CachedManifests().Resolve(ctx, "app", "theirs")

	report, err := cache.Evict(ctx, pullthrough.EvictOptions{MaxBytes: 10})
	fmt.Println(report.Before, report.Freed, err)
	for t := range h.Manifests.Tags(ctx, "app", "") {
		fmt.Println("kept", t.Name)
	}
	// Output:
	// 193 88 <nil>
	// kept ours
}

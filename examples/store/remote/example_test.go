package remote_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// registry starts a registry with an image, and returns its host.
func registry() (host string, stop func()) {
	h := wharfage.NewMemory()
	raw, _, err := manifest.IndexDraft{}.Build()
	if err == nil {
		p := manifest.Pusher{Store: h.Manifests}
		_, err = p.Push(context.Background(), "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1", "v2"}})
	}
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(h)
	return strings.TrimPrefix(server.URL, "http://"), server.Close
}

// The shortest use: what is in a repository of some registry.
func ExampleRegistry() {
	host, stop := registry()
	defer stop()

	r := &remote.Registry{Host: host}
	source := r.Source()
	for tag, err := range source.Manifests.Tags(context.Background(), "team/app", "") {
		if err != nil {
			panic(err)
		}
		tag, err = source.Manifests.Resolve(context.Background(), "team/app", tag.Name)
		fmt.Println(tag.Name, tag.Digest[:19], err)
	}
	_, err := source.Manifests.Resolve(context.Background(), "team/app", "v3")
	fmt.Println(manifest.IsNotFound(err))
	// Output:
	// v1 sha256:dff9de109191 <nil>
	// v2 sha256:dff9de109191 <nil>
	// true
}

// Copying from one registry to another, with the logins that docker has.
func ExampleRegistry_Target() {
	from, stopFrom := registry()
	defer stopFrom()
	to, stopTo := registry()
	defer stopTo()

	login, err := remote.DockerCredentials()
	if err != nil {
		panic(err)
	}
	src := &remote.Registry{Host: from, Credential: login}
	dst := &remote.Registry{Host: to, Credential: login}
	var c replication.Copier
	done, err := c.Copy(context.Background(), src.Source(), "team/app", "v1", dst.Target(), "mirror/app", replication.CopyOptions{Referrers: replication.AllReferrers})
	fmt.Println(done.Tags, done.Manifests.Sent, err)
	// Output: [v1] 1 <nil>
}

// A registry in a private network may redirect to where its blobs are, if the operator says so.
func ExampleGuard() {
	g := &remote.Guard{Allow: []string{"minio.internal:9000"}}
	r := &remote.Registry{Host: "registry.example", Transport: g.Transport()}
	fmt.Println(r.Check())
	_, err := g.DialContext(context.Background(), "tcp", "169.254.169.254:80")
	fmt.Println(err)
	// Output:
	// <nil>
	// dial tcp 169.254.169.254:80: address of a private network, which is not allowed
}

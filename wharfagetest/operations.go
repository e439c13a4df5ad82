package wharfagetest

import (
	_ "crypto/sha512" // for digest.SHA512
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

const app, base = "team/app", "team/base"

// What the operations push.
var (
	contents = map[digest.Digest]string{}          // by digest, blobs and manifests
	needs    = map[digest.Digest][]digest.Digest{} // the blobs of a manifest

	config = content(digest.SHA256, "{}")
	layer  = content(digest.SHA256, strings.Repeat("0123456789", 300))
	large  = content(digest.SHA512, strings.Repeat("0123456789", 300))
	orphan = content(digest.SHA256, strings.Repeat("orphan", 500))
	one    = image("1", config, layer)
	two    = image("2", config, layer)
	wide   = image("3", config, large)
)

func content(alg digest.Algorithm, s string) digest.Digest {
	dgst := alg.FromString(s)
	contents[dgst] = s
	return dgst
}

func image(name string, config, layer digest.Digest) digest.Digest {
	desc := func(dgst digest.Digest) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: int64(len(contents[dgst]))}
	}
	c := desc(config)
	raw, made, err := manifest.ImageDraft{
		ArtifactType: "application/vnd.example", Config: &c, Layers: []ocispec.Descriptor{desc(layer)},
		Annotations: map[string]string{"org.example.name": name},
	}.Build()
	if err != nil {
		panic(err) // a draft of constants
	}
	contents[made.Digest] = string(raw)
	needs[made.Digest] = []digest.Digest{config, layer}
	return made.Digest
}

// operation is what clients or collectors do. Each returns whether all of it
// was acknowledged, and stops at the first failure.
type operation struct {
	name  string
	setup func(*run) bool // without faults; nil for an empty registry
	do    func(*run) bool // may be repeated
}

func hasBlob(repo string, dgst digest.Digest) effect {
	return effect{thing{"blob", repo, string(dgst)}, there}
}

func noBlob(repo string, dgst digest.Digest) effect {
	return effect{thing{"blob", repo, string(dgst)}, ""}
}

func hasManifest(dgst digest.Digest) effect {
	return effect{thing{"manifest", app, string(dgst)}, there}
}

func noManifest(dgst digest.Digest) effect {
	return effect{thing{"manifest", app, string(dgst)}, ""}
}

func tag(name string, dgst digest.Digest) effect {
	return effect{thing{"tag", app, name}, string(dgst)}
}

func sessionAt(size int) effect { return effect{thing{kind: "session", repo: app}, fmt.Sprint(size)} }

func noSession() effect { return effect{thing{kind: "session", repo: app}, ""} }

// begin starts an upload, and returns where it is.
func (r *run) begin() (string, bool) {
	head, ok := r.send("POST", "/v2/"+app+"/blobs/uploads/", "", http.StatusAccepted)
	return head.Get("Location"), ok
}

// pushBlob is POST and PUT.
func (r *run) pushBlob(dgst digest.Digest) bool {
	location, ok := r.begin()
	if !ok {
		return false
	}
	_, ok = r.send("PUT", location+"?digest="+string(dgst), contents[dgst], http.StatusCreated, hasBlob(app, dgst))
	return ok
}

// postBlob is a single POST.
func (r *run) postBlob(repo string, dgst digest.Digest) bool {
	_, ok := r.send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(dgst), contents[dgst], http.StatusCreated, hasBlob(repo, dgst))
	return ok
}

// patches begins an upload, and sends three chunks of layer.
func (r *run) patches() bool {
	delete(r.allowed, sessionAt(0).thing) // one of a time before is not looked at any more
	r.session = ""
	location, ok := r.begin()
	if !ok {
		return false
	}
	r.session = location
	r.became([]effect{sessionAt(0)}, false)
	for i := range 3 {
		if _, ok := r.send("PATCH", location, contents[layer][1000*i:1000*(i+1)], http.StatusAccepted, sessionAt(1000*(i+1))); !ok {
			return false
		}
	}
	return true
}

func (r *run) chunked(dgst digest.Digest) bool {
	if !r.patches() {
		return false
	}
	_, ok := r.send("PUT", r.session+"?digest="+string(dgst), "", http.StatusCreated, hasBlob(app, dgst), noSession())
	return ok
}

func (r *run) putTagged(name string, dgst digest.Digest) bool {
	_, ok := r.send("PUT", "/v2/"+app+"/manifests/"+name, contents[dgst], http.StatusCreated, hasManifest(dgst), tag(name, dgst))
	return ok
}

func (r *run) pushed() bool {
	return r.postBlob(app, config) && r.postBlob(app, layer) && r.putTagged("v1", one)
}

func (r *run) mount(query string) bool {
	_, ok := r.send("POST", "/v2/"+app+"/blobs/uploads/?mount="+string(layer)+query, "", http.StatusCreated, hasBlob(app, layer))
	return ok && r.postBlob(app, config) && r.putTagged("v1", one)
}

var operations = []operation{
	{name: "push", do: func(r *run) bool {
		return r.pushBlob(config) && r.pushBlob(layer) && r.putTagged("v1", one)
	}},
	{name: "push in single POSTs", do: (*run).pushed},
	{name: "push in chunks", do: func(r *run) bool {
		return r.pushBlob(config) && r.chunked(layer) && r.putTagged("v1", one)
	}},
	{name: "push in chunks that turns out to be sha512", do: func(r *run) bool {
		return r.pushBlob(config) && r.chunked(large) && r.putTagged("v1", wide)
	}},
	{
		name: "push what is there",
		setup: func(r *run) bool {
			return r.pushed()
		},
		do: func(r *run) bool {
			return r.pushBlob(config) && r.chunked(layer) && r.putTagged("v1", one)
		},
	},
	{
		name:  "mount",
		setup: func(r *run) bool { return r.postBlob(base, layer) },
		do:    func(r *run) bool { return r.mount("&from=" + base) },
	},
	{
		name:  "mount from anywhere",
		setup: func(r *run) bool { return r.postBlob(base, layer) },
		do:    func(r *run) bool { return r.mount("") },
	},
	{
		name:  "tag move",
		setup: (*run).pushed,
		do:    func(r *run) bool { return r.putTagged("v1", two) },
	},
	{
		name:  "tag delete",
		setup: (*run).pushed,
		do: func(r *run) bool {
			_, ok := r.send("DELETE", "/v2/"+app+"/manifests/v1", "", http.StatusAccepted, tag("v1", ""))
			return ok
		},
	},
	{
		name:  "manifest delete",
		setup: func(r *run) bool { return r.pushed() && r.putTagged("v2", two) },
		do: func(r *run) bool {
			_, ok := r.send("DELETE", "/v2/"+app+"/manifests/"+string(one), "", http.StatusAccepted, noManifest(one), tag("v1", ""))
			return ok
		},
	},
	{
		name: "blob delete",
		setup: func(r *run) bool {
			return r.pushed() && r.postBlob(app, orphan) && r.postBlob(base, orphan)
		},
		do: func(r *run) bool {
			_, ok := r.send("DELETE", "/v2/"+app+"/blobs/"+string(orphan), "", http.StatusAccepted, noBlob(app, orphan))
			return ok
		},
	},
	{
		name:  "upload delete",
		setup: (*run).patches,
		do: func(r *run) bool {
			_, ok := r.send("DELETE", r.session, "", http.StatusNoContent, noSession())
			return ok
		},
	},
	{
		name: "collect",
		setup: func(r *run) bool {
			return r.pushed() && r.postBlob(app, orphan) && r.postBlob(base, orphan) && r.postBlob(base, layer) && r.patches()
		},
		do: func(r *run) bool {
			return r.collect(noBlob(app, orphan), noBlob(base, orphan), noBlob(base, layer), noSession())
		},
	},
}

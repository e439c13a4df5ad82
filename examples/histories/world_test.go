package histories

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// What histories are about. There is little of each, so that operations meet.

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const lease = 8 * time.Hour

var (
	repoNames = []string{"a", "a/b", "b"}
	tagNames  = []string{"v1", "V1", "v2"}
	chunks    = []string{"x", "", "yz", "abc"}
	types     = []string{"", "application/vnd.test.a", "application/vnd.test.b"}
)

// content is a blob that histories know by name. Uploads make others.
type content struct {
	name, text string
	dgst       digest.Digest
}

var contents = []content{
	{name: "x", text: "x", dgst: digest.FromString("x")},
	{name: "xyz", text: "xyz", dgst: digest.FromString("xyz")},
	{name: "abcabc", text: "abcabc", dgst: digest.FromString("abcabc")},
	{name: "empty", text: "", dgst: digest.FromString("")},
	{name: "xyz512", text: "xyz", dgst: digest.SHA512.FromString("xyz")},
}

// document is a manifest, and what a Pusher makes of it.
type document struct {
	name      string
	alg       digest.Algorithm
	record    manifest.Record
	wrongSize digest.Digest // a blob whose size it has wrong
	foreign   digest.Digest // a layer that may be absent
}

const (
	layerType   = "application/vnd.oci.image.layer.v1.tar"
	foreignType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	configType  = "application/vnd.test.config"
	unknownType = "application/vnd.test.cache"
)

// absentSubject is of nothing, and of an algorithm that no store can check.
const absentSubject digest.Digest = "test+hash:0123456789abcdef"

// names is how digests are shown, documents is what can be pushed, subjects is
// what referrers are asked of.
var (
	names     = map[digest.Digest]string{"": "nothing", manifest.Absent: "absent", absentSubject: "absentSubject"}
	documents []*document
	subjects  = []digest.Digest{absentSubject}
)

func init() {
	for _, c := range contents {
		names[c.dgst] = c.name
	}
	x, xyz, abcabc, empty, xyz512 := contents[0], contents[1], contents[2], contents[3], contents[4]
	blob := func(typ string, c content) any {
		return map[string]any{"mediaType": typ, "digest": c.dgst, "size": len(c.text)}
	}
	of := func(d *document) any {
		return map[string]any{"mediaType": d.record.Desc.MediaType, "digest": d.record.Desc.Digest, "size": d.record.Desc.Size}
	}
	add := func(name, mediaType string, members map[string]any) *document {
		members["schemaVersion"], members["mediaType"] = 2, mediaType
		if !manifest.IsDocker(mediaType) {
			members["annotations"] = map[string]string{"org.test.name": name, "org.test.empty": ""}
		}
		d := &document{name: name, alg: digest.SHA256}
		d.build(members)
		documents = append(documents, d)
		return d
	}
	image := func(name string, config, layer content, subject any, artifactType string) *document {
		members := map[string]any{"config": blob(configType, config), "layers": []any{blob(layerType, layer)}}
		if subject != nil {
			members["subject"] = subject
		}
		if artifactType != "" {
			members["artifactType"] = artifactType
		}
		return add(name, manifest.MediaTypeImage, members)
	}
	index := func(name string, entries ...any) *document {
		return add(name, manifest.MediaTypeIndex, map[string]any{"manifests": entries})
	}

	image0 := image("image0", x, xyz, nil, "")
	image1 := image("image1", x, abcabc, nil, "")
	index0 := index("index0", of(image0), of(image1))
	index("index1", of(index0), of(image0))
	image("artifact0", x, empty, of(image0), types[1])
	image("artifact1", x, xyz512, of(image0), types[2])
	image("artifact2", x, x, map[string]any{"mediaType": manifest.MediaTypeImage, "digest": absentSubject, "size": 7}, types[1])
	add("artifact3", manifest.MediaTypeIndex, map[string]any{"manifests": []any{of(image1)}, "subject": of(index0), "artifactType": types[2]})
	add("docker0", manifest.MediaTypeDockerManifest, map[string]any{"config": blob(configType, xyz), "layers": []any{blob(layerType, xyz)}})
	index("cache0", of(image0), blob(unknownType, x), map[string]any{
		"mediaType": unknownType, "digest": image1.record.Desc.Digest, "size": image1.record.Desc.Size,
	})

	wrong := add("wrong0", manifest.MediaTypeImage, map[string]any{
		"config": blob(configType, x), "layers": []any{map[string]any{"mediaType": layerType, "digest": abcabc.dgst, "size": 5}},
	})
	wrong.wrongSize = abcabc.dgst
	foreign := add("foreign0", manifest.MediaTypeImage, map[string]any{
		"config": blob(configType, x), "layers": []any{blob(foreignType, abcabc)},
	})
	foreign.foreign = abcabc.dgst
	long := &document{name: "image512", alg: digest.SHA512}
	long.build(map[string]any{
		"schemaVersion": 2, "mediaType": manifest.MediaTypeImage, "subject": of(image1),
		"config": blob(configType, xyz512), "layers": []any{blob(layerType, xyz)},
	})
	documents = append(documents, long)

	for _, d := range documents {
		names[d.record.Desc.Digest] = d.name
	}
	for _, d := range []*document{image0, index0, image1} {
		subjects = append(subjects, d.record.Desc.Digest)
	}
}

// build makes the record of a document.
func (d *document) build(members map[string]any) {
	raw, err := json.Marshal(members)
	if err != nil {
		panic(err) // maps of strings
	}
	m, err := manifest.Parse(members["mediaType"].(string), raw)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", d.name, err))
	}
	d.record = m.Record(manifest.Digest(d.alg, raw), raw)
}

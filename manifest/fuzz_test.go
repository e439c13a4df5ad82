package manifest

import (
	"reflect"
	"regexp"
	"testing"

	"github.com/wharfage/wharfage/internal/vectors"
)

var mediaTypes = []string{MediaTypeImage, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList, MediaTypeDockerSchema1, MediaTypeOCIArtifact, MediaTypeORASArtifact, ""}

// FuzzParse compares Parse with the second reader.
func FuzzParse(f *testing.F) {
	cases, err := vectors.Hostile("../testdata/vectors", "manifest", "index", "descriptor")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		if len(c.Input) < 1<<12 {
			f.Add(byte(0), c.Input)
			f.Add(byte(1), c.Input)
		}
	}
	f.Add(byte(7), []byte(image(`,"annotations":{"a":"b"},"subject":`+desc(`,"urls":["https://a"],"platform":{"os":"a","architecture":"b","os.features":[]}`))))
	f.Fuzz(func(t *testing.T, which byte, raw []byte) {
		mediaType := mediaTypes[int(which)%len(mediaTypes)]
		m, err := Parse(mediaType, raw)
		second, err2 := secondParse(mediaType, raw)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("Parse: %v, second reader: %v\n%q", err, err2, raw)
		}
		if err != nil {
			return
		}
		got := secondDoc{m.MediaType, m.ArtifactType, string(m.Config.Digest), string(m.Subject.Digest), digests(m.Layers), digests(m.Manifests), m.Annotations()}
		if !reflect.DeepEqual(got, second) {
			t.Fatalf("Parse: %+v\nsecond reader: %+v\n%q", got, second, raw)
		}
		for _, d := range m.Layers {
			d.OCI() // what Parse passed can be read
		}
		m.Size()
		m.Record("", raw)
	})
}

func digests(list []Descriptor) (out []string) {
	for _, d := range list {
		out = append(out, string(d.Digest))
	}
	return out
}

func FuzzDigest(f *testing.F) {
	f.Add(d0)
	f.Add("a+b:c=")
	hex := map[string]int{"sha256": 64, "sha512": 128, "blake3": 64}
	grammar := regexp.MustCompile(`^([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)$`)
	f.Fuzz(func(t *testing.T, s string) {
		m := grammar.FindStringSubmatch(s)
		want := m != nil && len(s) <= 1024
		if want && hex[m[1]] > 0 {
			want = len(m[2]) == hex[m[1]] && regexp.MustCompile(`^[a-f0-9]+$`).MatchString(m[2])
		}
		if got := CheckDigest(s) == nil; got != want {
			t.Fatalf("%q: %v", s, got)
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("a/b_c__d.e--f")
	repository := regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag := regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := CheckRepository(s) == nil; got != (repository.MatchString(s) && len(s) <= 255) {
			t.Fatalf("repository %q: %v", s, got)
		}
		if got := CheckTag(s) == nil; got != tag.MatchString(s) {
			t.Fatalf("tag %q: %v", s, got)
		}
	})
}

package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	d0 = "sha256:" + strings.Repeat("0", 64)
	d1 = "sha256:" + strings.Repeat("1", 64)
)

// desc is a descriptor with more members behind it.
func desc(more string) string {
	return `{"mediaType":"application/octet-stream","digest":"` + d0 + `","size":5` + more + `}`
}

func image(more string) string {
	return `{"schemaVersion":2,"mediaType":"` + MediaTypeImage + `","config":` + desc("") + `,"layers":[` + desc("") + `]` + more + `}`
}

func index(entries, more string) string {
	return `{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `","manifests":[` + entries + `]` + more + `}`
}

// TestParseRefuses has a case for each rule; every fault is named with its
// place.
func TestParseRefuses(t *testing.T) {
	layer := func(more string) string {
		return `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + desc("") + `,` + desc(more) + `]}`
	}
	for _, c := range []struct {
		name, contentType, doc string
		want                   []string // pointer and rule of each fault
	}{
		{"nothing", MediaTypeImage, ``, []string{" json-syntax"}},
		{"array", MediaTypeImage, `[]`, []string{" json-syntax"}},
		{"trailing data", MediaTypeImage, image("") + "x", []string{" json-syntax"}},
		{"trailing NUL", MediaTypeImage, image("") + "\x00", []string{" json-syntax"}},
		{"trailing comma", MediaTypeImage, image(","), []string{" json-syntax"}},
		{"comma before the end of an array", MediaTypeIndex, index(desc("")+",", ""), []string{"/manifests/1 json-syntax"}},
		{"unclosed", MediaTypeImage, strings.TrimSuffix(image(""), "}"), []string{" json-syntax"}},
		{"unclosed string", MediaTypeImage, image("")[:30], []string{" json-syntax"}},
		{"bad escape", MediaTypeImage, image(`,"x":"\q"`), []string{" json-syntax"}},
		{"short escape", MediaTypeImage, image(`,"x":"\u12"`), []string{" json-syntax"}},
		{"lone surrogate", MediaTypeImage, image(`,"x":"\ud800"`), []string{" json-utf8"}},
		{"surrogates in the wrong order", MediaTypeImage, image(`,"x":"\udc00\ud800"`), []string{" json-utf8"}},
		{"bad UTF-8 in an unknown member", MediaTypeImage, image(",\"x\":\"\xff\""), []string{" json-utf8"}},
		{"bad UTF-8 in a name", MediaTypeImage, image(",\"\xff\":1"), []string{" json-utf8"}},
		{"bad UTF-8 beside an escape", MediaTypeImage, image(",\"x\":\"\\n\xff\""), []string{" json-utf8"}},
		{"bad UTF-8 in an annotation", MediaTypeImage, image(",\"annotations\":{\"k\":\"\xff\"}"), []string{"/annotations json-utf8"}},
		{"leading zero", MediaTypeImage, image(`,"x":01`), []string{" json-syntax"}},
		{"bare word", MediaTypeImage, image(`,"x":nul`), []string{" json-syntax"}},
		{"depth", MediaTypeImage, image(`,"x":` + strings.Repeat("[", 128) + strings.Repeat("]", 128)), []string{" json-depth"}},
		{"duplicate", MediaTypeImage, image(`,"layers":[]`), []string{" json-duplicate-name"}},
		{"duplicate, escaped", MediaTypeImage, image(`,"l\u0061yers":[]`), []string{" json-duplicate-name"}},
		{"duplicate below an unknown member", MediaTypeImage, image(`,"x":{"a":1,"a":1}`), []string{" json-duplicate-name"}},
		{"duplicate among many", MediaTypeImage, image(`,"annotations":{` + many(20) + `,"k7":""}`), []string{"/annotations json-duplicate-name"}},
		{"duplicate of an early one among many", MediaTypeImage, image(`,"annotations":{` + many(20) + `,"k0":""}`), []string{"/annotations json-duplicate-name"}},

		{"no media type at all", "", `{"schemaVersion":2}`, []string{"/mediaType required"}},
		{"Content-Type", MediaTypeIndex, image(""), []string{"/mediaType media-type-mismatch"}},
		{"Docker without mediaType", MediaTypeDockerManifest, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[]}`, []string{"/mediaType required"}},
		{"nothing required is there", MediaTypeImage, `{}`, []string{"/schemaVersion required", "/config required", "/layers required"}},
		{"image with manifests", MediaTypeImage, image(`,"manifests":[]`), []string{"/manifests ambiguous"}},
		{"image with fsLayers", MediaTypeImage, image(`,"fsLayers":[]`), []string{"/fsLayers ambiguous"}},
		{"image with blobs", MediaTypeImage, image(`,"blobs":null`), []string{"/blobs ambiguous"}},
		{"index with layers", MediaTypeIndex, index("", `,"layers":[]`), []string{"/layers ambiguous"}},
		{"index with config", MediaTypeIndex, index("", `,"config":`+desc("")), []string{"/config ambiguous"}},
		{"artifact with layers", MediaTypeOCIArtifact, `{"mediaType":"` + MediaTypeOCIArtifact + `","layers":[]}`, []string{"/layers ambiguous", "/artifactType required"}},
		{"artifact with neither type", MediaTypeORASArtifact, `{}`, []string{"/mediaType required", "/artifactType required"}},
		{"schema 1 with layers", MediaTypeDockerSchema1, `{"schemaVersion":1,"fsLayers":[],"layers":[]}`, []string{"/layers ambiguous"}},
		{"schema version", MediaTypeImage, strings.Replace(image(""), ":2,", ":3,", 1), []string{"/schemaVersion schema-version"}},
		{"schema version as a float", MediaTypeImage, strings.Replace(image(""), ":2,", ":2.0,", 1), []string{"/schemaVersion schema-version"}},
		{"schema version as a string", MediaTypeImage, strings.Replace(image(""), ":2,", `:"2",`, 1), []string{"/schemaVersion type"}},
		{"schema 1 as version 2", MediaTypeDockerSchema1, `{"schemaVersion":2,"fsLayers":[]}`, []string{"/schemaVersion schema-version"}},

		{"config is an array", MediaTypeImage, strings.Replace(image(""), `"config":{`, `"config":[],"x":{`, 1), []string{"/config type"}},
		{"layers is an object", MediaTypeImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":{}}`, []string{"/layers type"}},
		{"a layer is a string", MediaTypeImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":["x"]}`, []string{"/layers/0 type"}},
		{"annotation is a number", MediaTypeImage, image(`,"annotations":{"a/b":1}`), []string{"/annotations/a~1b type"}},
		{"annotations is an array", MediaTypeImage, image(`,"annotations":[]`), []string{"/annotations type"}},
		{"empty descriptor", MediaTypeIndex, index("{}", ""), []string{"/manifests/0/mediaType required", "/manifests/0/digest required", "/manifests/0/size required"}},
		{"negative size", MediaTypeIndex, index(strings.Replace(desc(""), ":5", ":-1", 1), ""), []string{"/manifests/0/size size"}},
		{"size with an exponent", MediaTypeIndex, index(strings.Replace(desc(""), ":5", ":5e0", 1), ""), []string{"/manifests/0/size size"}},
		{"size beyond int64", MediaTypeIndex, index(strings.Replace(desc(""), ":5", ":9223372036854775808", 1), ""), []string{"/manifests/0/size size"}},
		{"short sha256", MediaTypeIndex, index(strings.Replace(desc(""), d0, d0[:70], 1), ""), []string{"/manifests/0/digest digest"}},
		{"short sha512", MediaTypeIndex, index(strings.Replace(desc(""), d0, "sha512:"+strings.Repeat("0", 64), 1), ""), []string{"/manifests/0/digest digest"}},
		{"media type without a slash", MediaTypeIndex, index(strings.Replace(desc(""), "application/octet-stream", "tar", 1), ""), []string{"/manifests/0/mediaType media-type"}},
		{"media type of 128 characters", MediaTypeIndex, index(strings.Replace(desc(""), "octet-stream", strings.Repeat("a", 128), 1), ""), []string{"/manifests/0/mediaType too-long"}},
		{"artifact type of 300 characters", MediaTypeImage, image(`,"artifactType":"a/` + strings.Repeat("a", 298) + `"`), []string{"/artifactType too-long"}},
		{"artifact type of 300 characters with its parameters", MediaTypeImage, image(`,"artifactType":"a/b;c=` + strings.Repeat("a", 300) + `"`), []string{"/artifactType too-long"}},
		{"mediaType is a number", MediaTypeImage, strings.Replace(image(""), `"`+MediaTypeImage+`"`, "5", 1), []string{"/mediaType type"}},
		{"artifact type with a space", MediaTypeImage, image(`,"artifactType":"not a/type"`), []string{"/artifactType artifact-type"}},
		{"parameter without a value", MediaTypeImage, image(`,"artifactType":"a/b;c"`), []string{"/artifactType artifact-type"}},
		{"platform is a string", MediaTypeIndex, index(desc(`,"platform":"linux"`), ""), []string{"/manifests/0/platform type"}},
		{"architecture is a number", MediaTypeIndex, index(desc(`,"platform":{"os":"linux","architecture":1}`), ""), []string{"/manifests/0/platform/architecture type"}},
		{"feature is a number", MediaTypeIndex, index(desc(`,"platform":{"os":"linux","architecture":"arm","os.features":["a",1]}`), ""), []string{"/manifests/0/platform/os.features/1 type"}},
		{"url with a space", MediaTypeImage, layer(`,"urls":["https://a/b","https://a/b c"]`), []string{"/layers/1/urls/1 url"}},
		{"url without a scheme", MediaTypeImage, layer(`,"urls":["//a/b"]`), []string{"/layers/1/urls/0 url"}},
		{"data of another length", MediaTypeImage, layer(`,"data":"aGVsbA=="`), []string{"/layers/1/data data"}},
		{"data of another digest", MediaTypeImage, layer(`,"data":"aGVsbG8="`), []string{"/layers/1/data data"}},
		{"data with a line end", MediaTypeImage, layer(`,"data":"aGVs\nbG8="`), []string{"/layers/1/data data"}},
		{"data is a number", MediaTypeImage, layer(`,"data":1`), []string{"/layers/1/data type"}},
		{"fsLayer without blobSum", MediaTypeDockerSchema1, `{"schemaVersion":1,"fsLayers":[{}]}`, []string{"/fsLayers/0/blobSum required"}},
		{"two faults", MediaTypeImage, image(`,"artifactType":1,"subject":[]`), []string{"/artifactType type", "/subject type"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse(c.contentType, []byte(c.doc))
			var invalid *InvalidError
			if !errors.As(err, &invalid) || !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %+v, %v", m, err)
			}
			var got []string
			for _, f := range invalid.Fields {
				got = append(got, f.Pointer+" "+string(f.Rule))
				if f.Detail == "" || len(f.String()) > 400 {
					t.Errorf("%q explains nothing, or too much", f)
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("faults %q, want %q\n%v", got, c.want, err)
			}
		})
	}
}

func many(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf(`"k%d":""`, i))
	}
	return strings.Join(parts, ",")
}

func TestParseListsAtMostMaxFieldErrors(t *testing.T) {
	_, err := Parse(MediaTypeIndex, []byte(index(strings.TrimSuffix(strings.Repeat("{},", 1000), ","), "")))
	if got := len(err.(*InvalidError).Fields); got != MaxFieldErrors {
		t.Errorf("%d faults", got)
	}
}

func TestParseRefusesMoreThanMaxSize(t *testing.T) {
	doc := image("")
	doc += strings.Repeat(" ", MaxSize-len(doc))
	if _, err := Parse("", []byte(doc)); err != nil {
		t.Errorf("MaxSize is refused: %v", err)
	}
	if _, err := Parse("", []byte(doc+" ")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("MaxSize + 1: %v", err)
	}
}

// TestParseAllocatesByWhatItReads: a document that is refused costs no more
// than one that is taken.
func TestParseAllocatesByWhatItReads(t *testing.T) {
	head := `{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `","manifests":[`
	short := `{"mediaType":"a/b","digest":"a:b","size":0}`
	if len(short) != minDescriptor {
		t.Fatalf("the shortest descriptor has %d bytes", len(short))
	}
	for name, doc := range map[string]string{
		"numbers":        head + strings.Repeat("0,", 1<<20) + "0]}",
		"empty objects":  head + strings.Repeat("{},", 1<<20) + "{}]}",
		"one long fault": head + strings.Repeat("0,", 10) + `"` + strings.Repeat("a", 3<<20) + `"]}`,
		"short, then long": head + strings.Repeat(short+",", 5) + strings.TrimSuffix(short, "}") +
			`,"x":"` + strings.Repeat("a", 3<<20) + `"}]}`,
		"short ones":  head + strings.Repeat(short+",", 60000) + short + "]}",
		"annotations": head + `],"annotations":{` + many(150000) + `}}`,
	} {
		raw := []byte(doc)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		Parse(MediaTypeIndex, raw)
		runtime.ReadMemStats(&after)
		// The list of names grows by doubling, which adds up to two more.
		if got := after.TotalAlloc - before.TotalAlloc; got > 5*uint64(len(raw)) {
			t.Errorf("%s: %d bytes were allocated for %d", name, got, len(raw))
		}
	}
}

// TestParseWarns has what a push may do and should not.
func TestParseWarns(t *testing.T) {
	for _, c := range []struct{ name, doc, want string }{
		{"nothing", image(`,"unknown":{"Size":1}`), ""},
		{"a name in another case", image(`,"Layers":[]`), "/Layers case"},
		{"a name with a Kelvin sign", index(desc(`,"ſize":1`), ""), "/manifests/0/ſize case"},
		{"a parameter", image(`,"artifactType":"application/vnd.dev.sigstore.bundle+json;version=0.2"`), "/artifactType media-type-parameter"},
		{"an empty artifactType", image(`,"artifactType":""`), "/artifactType artifact-type-empty"},
		{"null", image(`,"annotations":null,"subject":null`), "/annotations null /subject null"},
		{"an empty config and no artifactType", strings.Replace(image(""), "application/octet-stream", MediaTypeEmpty, 1), "/artifactType artifact-type-required"},
		{"a platform without os", index(desc(`,"platform":{"architecture":"arm"}`), ""), "/manifests/0/platform platform"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse("", []byte(c.doc))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range m.Warnings {
				got = append(got, w.Pointer+" "+string(w.Rule))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("warnings %q, want %q", s, c.want)
			}
			if _, _, err := (&Pusher{Strict: true}).check(PushRequest{Raw: []byte(c.doc)}); (err != nil) != (c.want != "") {
				t.Errorf("strict: %v", err)
			}
		})
	}
}

func TestParseReads(t *testing.T) {
	sub := `{"mediaType":"` + MediaTypeImage + `","digest":"` + d1 + `","size":9}`
	type facts struct {
		kind                        Kind
		artifactType                string
		layers, manifests           int
		subject, config, annotation string
	}
	for _, c := range []struct {
		name, contentType, doc string
		want                   facts
	}{
		{"image", MediaTypeImage + "; charset=utf-8", image(`,"subject":` + sub + `,"annotations":{"a":"\u00e9"}`), facts{KindImage, "application/octet-stream", 1, 0, d1, d0, "é"}},
		{"artifact type", "", image(`,"artifactType":"a/b"`), facts{KindImage, "a/b", 1, 0, "", d0, ""}},
		{"index", "", index(desc("")+","+desc(""), `,"artifactType":"a/b","subject":`+sub), facts{KindIndex, "a/b", 0, 2, d1, "", ""}},
		{"index without an artifact type", "", index("", ""), facts{KindIndex, "", 0, 0, "", "", ""}},
		{"Docker schema 2 has no subject", "", strings.Replace(image(`,"subject":`+sub+`,"artifactType":"a/b"`), MediaTypeImage, MediaTypeDockerManifest, 1), facts{KindImage, "application/octet-stream", 1, 0, "", d0, ""}},
		{"Docker list", "", strings.Replace(index(desc(""), ""), MediaTypeIndex, MediaTypeDockerList, 1), facts{KindIndex, "", 0, 1, "", "", ""}},
		{"schema 1", MediaTypeDockerSchema1JWS, `{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64","fsLayers":[{"blobSum":"` + d0 + `"}],"history":[{"v1Compatibility":"{}"}],"signatures":[{}]}`, facts{KindSchema1, "", 1, 0, "", "", ""}},
		{"OCI artifact manifest", "", `{"mediaType":"` + MediaTypeOCIArtifact + `","artifactType":"a/b","blobs":[` + desc("") + `],"subject":` + sub + `}`, facts{KindArtifact, "a/b", 1, 0, d1, "", ""}},
		{"ORAS artifact manifest", MediaTypeORASArtifact, `{"mediaType":"` + MediaTypeORASArtifact + `","artifactType":"a/b","subject":` + sub + `}`, facts{KindArtifact, "a/b", 0, 0, d1, "", ""}},
		{"another type", "application/vnd.example", `{`, facts{KindOpaque, "", 0, 0, "", "", ""}},
		{"another type by the document's word", "", `{"mediaType":"application/vnd.example","layers":1}`, facts{KindOpaque, "", 0, 0, "", "", ""}},
		{"nine layers", "", strings.Replace(image(""), `"layers":[`, `"layers":[`+strings.Repeat(desc("")+",", 8), 1), facts{KindImage, "application/octet-stream", 9, 0, "", d0, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse(c.contentType, []byte(c.doc))
			if err != nil {
				t.Fatal(err)
			}
			got := facts{m.Kind, m.ArtifactType, len(m.Layers), len(m.Manifests), string(m.Subject.Digest), string(m.Config.Digest), m.Annotations()["a"]}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestDescriptorOCIIsWhole(t *testing.T) {
	m, err := Parse("", []byte(index(strings.Replace(desc(`,"urls":["https://a/b"],"annotations":{"k":"v"},"artifactType":"a/b","x":[{}],"data":"aGVsbG8=",
		"platform":{"architecture":"arm64","os":"windows","os.version":"10.0.1","os.features":["win32k"],"variant":"v8","x":0}`), d0, string(Digest("sha256", []byte("hello"))), 1), "")))
	if err != nil {
		t.Fatal(err)
	}
	want := ocispec.Descriptor{
		MediaType: "application/octet-stream", Digest: Digest("sha256", []byte("hello")), Size: 5, ArtifactType: "a/b",
		URLs: []string{"https://a/b"}, Annotations: map[string]string{"k": "v"}, Data: []byte("hello"),
		Platform: &ocispec.Platform{Architecture: "arm64", OS: "windows", OSVersion: "10.0.1", OSFeatures: []string{"win32k"}, Variant: "v8"},
	}
	if got := m.Manifests[0].OCI(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParseKeepsNothingOfItsInput(t *testing.T) {
	raw := []byte(image(`,"annotations":{"a":"b"}`))
	m, err := Parse("", raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if m.Config.Digest != m.Layers[0].Digest || string(m.Config.Digest) != d0 || m.Annotations()["a"] != "b" {
		t.Error("the manifest changed with the bytes it was read from")
	}
}

func TestSizeCountsEachBlobOnceAndSaturates(t *testing.T) {
	doc := image("")
	m, _ := Parse("", []byte(doc))
	if got := m.Size(); got != int64(len(doc)+5) { // config and layer are one blob
		t.Errorf("size %d", got)
	}
	doc = strings.Replace(image(""), `"size":5}]`, fmt.Sprintf(`"size":%d}]`, int64(math.MaxInt64)), 1)
	doc = strings.Replace(doc, d0, d1, 1)
	if m, _ = Parse("", []byte(doc)); m.Size() != math.MaxInt64 {
		t.Errorf("size %d", m.Size())
	}
}

// TestParseAllocates keeps the cost of the most frequent documents in view: a
// list is one allocation, whatever its length.
func TestParseAllocates(t *testing.T) {
	for _, c := range []struct {
		name string
		doc  string
		most float64
	}{
		{"image", image(""), 3},
		{"index of 1,000", index(strings.TrimSuffix(strings.Repeat(desc(`,"platform":{"os":"linux","architecture":"amd64"}`)+",", 1000), ","), ""), 4},
		{"index of 20,000", index(strings.TrimSuffix(strings.Repeat(desc("")+",", 20000), ","), ""), 4},
	} {
		raw := []byte(c.doc)
		if got := testing.AllocsPerRun(10, func() { Parse("", raw) }); got > c.most {
			t.Errorf("%s: %v allocations, at most %v", c.name, got, c.most)
		}
	}
}

func TestCheckMediaType(t *testing.T) {
	for s, want := range map[string][2]bool{
		"a/b": {true, false}, "application/vnd.oci.image.config.v1+json": {true, false}, "a/b;c=d": {true, true}, `a/b; c="d e" ;x=y`: {true, true},
		"": {}, "a": {}, "/": {}, "a/": {}, "/b": {}, "a/b/c": {}, "a b/c": {}, ".a/b": {}, "a/+b": {}, "a/b;": {false, true}, "a/b;c=": {false, true}, `a/b;c="d`: {false, true}, "é/b": {},
		"a/" + strings.Repeat("b", 127): {true, false}, "a/" + strings.Repeat("b", 128): {}, strings.Repeat("a", 128) + "/b": {},
	} {
		ok, params := checkMediaType(s)
		if ok != want[0] || ok && params != want[1] {
			t.Errorf("%q: %v %v", s, ok, params)
		}
	}
}

func TestNamesAndDigests(t *testing.T) {
	long := strings.Repeat("a", 255)
	for s, want := range map[string]bool{"a": true, "a/b": true, "a.b_c__d-e---f/0": true, long: true,
		long + "a": false, "": false, "A": false, "a/": false, "/a": false, "a//b": false, "a..b": false, "a___b": false, "a_-b": false, "a._b": false, "-a": false, "a-": false} {
		if err := CheckRepository(s); (err == nil) != want || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("repository %.20q: %v", s, err)
		}
	}
	for s, want := range map[string]bool{"a": true, "_": true, "A.b-c_d": true, long[:128]: true, long[:129]: false, "": false, ".a": false, "-a": false, "a:b": false, "a/b": false, "é": false} {
		if err := CheckTag(s); (err == nil) != want || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("tag %.20q: %v", s, err)
		}
	}
	for s, want := range map[string][2]bool{ // grammatical, storable
		d0: {true, true}, "sha512:" + strings.Repeat("a", 128): {true, true}, "blake3:" + d0[7:]: {true, false}, "multihash+base58:QmRZ": {true, false}, "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564": {true, false},
		"sha384:" + strings.Repeat("a", 96): {true, false}, "a:=": {true, false},
		"": {}, ":": {}, "a:": {}, ":a": {}, "a": {}, "A:b": {}, "a++b:c": {}, "+a:b": {}, "a+:b": {}, "a:b:c": {}, "a:b c": {}, "sha256:" + strings.Repeat("A", 64): {}, "blake3:00": {},
		d0 + "0": {}, strings.Repeat("a", 1023) + ":b": {}, d0[:70] + "\xff": {}, d0[:70] + "g": {}, d0[:70] + "/": {}, d0[:70] + "`": {}, d0[:70] + ":": {}} {
		if err := CheckDigest(s); (err == nil) != want[0] {
			t.Errorf("digest %.40q: %v", s, err)
		}
		if err := CheckContentDigest(s); (err == nil) != want[1] {
			t.Errorf("content digest %.40q: %v", s, err)
		}
	}
}

func TestPlatformSelection(t *testing.T) {
	platform := func(s string) string { return desc(`,"platform":{` + s + `}`) }
	m, err := Parse("", []byte(index(strings.Join([]string{
		desc(""),
		platform(`"architecture":"unknown","os":"unknown"`),
		platform(`"architecture":"arm","os":"linux","variant":"v6"`),
		platform(`"architecture":"arm64","os":"linux"`),
		platform(`"architecture":"amd64","os":"windows","os.version":"10.0.20348.1"`),
		platform(`"architecture":"amd64","os":"linux","os.features":["x"]`),
		platform(`"architecture":"amd64","os":"linux"`),
		platform(`"architecture":"amd64","os":"linux","variant":"v1"`),
	}, ","), "")))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want ocispec.Platform
		at   int
	}{
		{ocispec.Platform{OS: "linux", Architecture: "amd64"}, 6},
		{ocispec.Platform{OS: "linux", Architecture: "amd64", OSFeatures: []string{"x"}}, 5},
		{ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v2"}, -1},
		{ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, 3},
		{ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, 2},
		{ocispec.Platform{OS: "linux", Architecture: "arm"}, -1},
		{ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.20348.999"}, 4},
		{ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.17763.1"}, -1},
		{ocispec.Platform{OS: "plan9", Architecture: "386"}, -1},
	} {
		got, ok := m.Select(c.want)
		if ok != (c.at >= 0) || ok && !reflect.DeepEqual(got.OCI(), m.Manifests[c.at].OCI()) {
			t.Errorf("%+v: %v %+v", c.want, ok, got.OCI().Platform)
		}
	}
}

func TestBuildFollowsTheDecisionTree(t *testing.T) {
	empty, content := Empty()
	file := ocispec.Descriptor{MediaType: "text/plain", Digest: Digest("sha256", []byte("x")), Size: 1}
	for _, c := range []struct {
		name  string
		draft ImageDraft
		want  string
	}{
		{"nothing but annotations", ImageDraft{ArtifactType: "a/b", Annotations: map[string]string{"z": "<&>", "a": ""}},
			`{"schemaVersion":2,"mediaType":"` + MediaTypeImage + `","artifactType":"a/b","config":E,"layers":[E],"annotations":{"a":"","z":"<&>"}}`},
		{"files", ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{file}},
			`{"schemaVersion":2,"mediaType":"` + MediaTypeImage + `","artifactType":"a/b","config":E,"layers":[F]}`},
		{"files and configuration", ImageDraft{Config: &file, Layers: []ocispec.Descriptor{file}, Subject: &file},
			`{"schemaVersion":2,"mediaType":"` + MediaTypeImage + `","config":F,"layers":[F],"subject":F}`},
	} {
		raw, desc, err := c.draft.Build()
		want := strings.NewReplacer("E", `{"mediaType":"`+MediaTypeEmpty+`","digest":"`+string(empty.Digest)+`","size":2}`,
			"F", `{"mediaType":"text/plain","digest":"`+string(file.Digest)+`","size":1}`).Replace(c.want)
		if err != nil || string(raw) != want || desc.Digest != Digest("sha256", raw) || desc.Size != int64(len(raw)) {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, raw, want)
		}
	}
	if !bytes.Equal(content, []byte("{}")) {
		t.Errorf("content of the empty descriptor is %s", content)
	}
	if _, _, err := (ImageDraft{}).Build(); !errors.Is(err, ErrInvalid) {
		t.Errorf("no artifactType and no config: %v", err)
	}
	raw, _, err := IndexDraft{}.Build()
	if want := `{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `","manifests":[]}`; err != nil || string(raw) != want {
		t.Errorf("empty index: %v %s", err, raw)
	}
	if _, _, err := (IndexDraft{Manifests: []ocispec.Descriptor{{}}}).Build(); !errors.Is(err, ErrInvalid) {
		t.Errorf("an empty entry: %v", err)
	}
}

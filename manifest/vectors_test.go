package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/vectors"
)

// VectorsDir is for the test of package manifest_test of the same name too.
var VectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

func TestVectors(t *testing.T) {
	cases, err := vectors.Hostile(*VectorsDir, "manifest", "index", "descriptor", "digest", "repository", "tag", "graph")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run("hostile/"+c.ID, func(t *testing.T) {
			m, err := checkCase(t, c)
			if c.Accept() && err != nil {
				t.Errorf("refused: %v\n%s", err, c.Why)
			}
			if !c.Accept() && err == nil {
				t.Errorf("accepted: %s", c.Why)
			}
			if c.Accept() && m != nil {
				checkAssert(t, c, m)
			}
		})
	}
	artifactTypes(t)
}

// checkCase hands a case to the function that takes such input.
func checkCase(t *testing.T, c vectors.Case) (*Manifest, error) {
	input := string(c.Input)
	switch c.Kind {
	case "digest":
		if c.Op == "store" {
			return nil, CheckContentDigest(input)
		}
		return nil, CheckDigest(input)
	case "repository":
		return nil, CheckRepository(input)
	case "tag":
		return nil, CheckTag(input)
	case "descriptor":
		input = `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:` + strings.Repeat("0", 64) + `","size":0},"layers":[` + input + `]}`
		return Parse(MediaTypeImage, []byte(input))
	case "graph":
		return nil, walkGraph(t, c)
	}
	raw := bytes.Clone(c.Input)
	m, _, err := new(Pusher).check(PushRequest{MediaType: c.ContentType, Raw: c.Input})
	if !bytes.Equal(raw, c.Input) {
		t.Error("the document was written to")
	}
	return m, err
}

func checkAssert(t *testing.T, c vectors.Case, m *Manifest) {
	d := Descriptor{}
	if c.Kind == "descriptor" {
		d = m.Layers[0]
	}
	for key, want := range c.Assert {
		var got any
		switch key {
		case "layers":
			got = float64(len(m.Layers))
		case "mediaType":
			got = m.MediaType
		case "subject":
			got = string(m.Subject.Digest)
		case "size":
			got = fmt.Sprint(d.Size)
		case "artifactType":
			got = m.ArtifactType
		case "distinct_children":
			got = float64(len(m.Record("", c.Input).Manifests))
		case "stored_bytes_identical":
			got = bytes.Equal(m.Record("", c.Input).Raw, c.Input)
		default:
			t.Logf("assertion %s is not known here", key)
			continue
		}
		if got != want {
			t.Errorf("%s is %v, not %v", key, got, want)
		}
	}
}

// graphReader serves the documents of a graph and counts reads.
type graphReader struct {
	Reader
	docs  map[digest.Digest]Record
	reads int
}

func (g *graphReader) Get(_ context.Context, _ string, d digest.Digest) (Record, error) {
	g.reads++
	rec, ok := g.docs[d]
	if !ok {
		return rec, ErrNotFound
	}
	return rec, nil
}

func walkGraph(t *testing.T, c vectors.Case) error {
	g := &graphReader{docs: map[digest.Digest]Record{}}
	var root digest.Digest
	for _, doc := range c.Docs {
		m, err := Parse(doc.MediaType, doc.Raw)
		if err != nil {
			return err
		}
		root = Digest(digest.SHA256, doc.Raw)
		g.docs[root] = m.Record(root, doc.Raw)
	}
	for _, err := range Walk(t.Context(), g, "r", root, 0) {
		if err != nil {
			return err
		}
	}
	if most, ok := c.Assert["max_visits"].(float64); ok && g.reads > int(most) {
		t.Errorf("%d reads, at most %v are needed", g.reads, most)
	}
	return nil
}

// artifactTypes runs the set with the profile that its README names: what ECR
// accepts.
func artifactTypes(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(*VectorsDir, "platform", "artifact-types.json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Cases []struct {
			ID, Why     string
			Manifest    json.RawMessage
			ContentType string `json:"content_type"`
			Expect      struct {
				Accepted             bool
				Reason               string
				MediaType            string
				ArtifactMediaType    string
				ReferrerArtifactType string
				Subject              digest.Digest
				IsReferrer           bool
				Kind                 string
			}
		}
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Cases) == 0 {
		t.Fatal("artifact-types.json has no cases")
	}
	ecr := &Pusher{Accept: append(DefaultAccept(), MediaTypeDockerSchema1, MediaTypeDockerSchema1JWS)}
	for _, c := range set.Cases {
		t.Run("artifact-types/"+c.ID, func(t *testing.T) {
			m, _, err := ecr.check(PushRequest{MediaType: c.ContentType, Raw: c.Manifest})
			if (err == nil) != c.Expect.Accepted {
				t.Fatalf("err = %v: %s", err, c.Why)
			}
			if err != nil {
				if got := reason(err); got != c.Expect.Reason {
					t.Errorf("refused for %s, not for %s: %v", got, c.Expect.Reason, err)
				}
				return
			}
			if m.MediaType != c.Expect.MediaType || m.Subject.Digest != c.Expect.Subject || c.Expect.IsReferrer != (m.Subject.Digest != "") {
				t.Errorf("media type %s, subject %s", m.MediaType, m.Subject.Digest)
			}
			if m.ArtifactType != c.Expect.ArtifactMediaType {
				t.Errorf("artifact type is %q, not %q", m.ArtifactType, c.Expect.ArtifactMediaType)
			}
			if c.Expect.IsReferrer && m.ArtifactType != c.Expect.ReferrerArtifactType {
				t.Errorf("a referrers list would show %q, not %q", m.ArtifactType, c.Expect.ReferrerArtifactType)
			}
			if got := ecrKind(m); got != c.Expect.Kind {
				t.Errorf("kind is %s, not %s", got, c.Expect.Kind)
			}
		})
	}
}

// reason gives the name that the set has for the first fault.
func reason(err error) string {
	invalid, ok := err.(*InvalidError)
	if !ok {
		return err.Error()
	}
	f := invalid.Fields[0]
	switch f.Rule {
	case RuleMismatch:
		return "media_type_mismatch"
	case RuleAmbiguous:
		return "ambiguous_manifest"
	case RuleUnsupported:
		return "unsupported_media_type"
	case RuleSchemaVersion:
		return "invalid_schema_version"
	case RuleSyntax, RuleUTF8, RuleDuplicateName, RuleDepth:
		return "invalid_json"
	case RuleTooLong:
		return "artifact_type_too_long"
	case RuleArtifactType:
		return "invalid_artifact_type"
	}
	switch {
	case strings.HasPrefix(f.Pointer, "/subject"):
		return "invalid_subject"
	case f.Pointer == "/artifactType":
		return "invalid_artifact_type"
	case f.Pointer == "/schemaVersion":
		return "invalid_schema_version"
	}
	return f.String()
}

// ecrKind tells images from artifacts by their artifact type, as ECR does.
func ecrKind(m *Manifest) string {
	if m.Kind == KindImage {
		switch m.ArtifactType {
		case "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json":
			return "image"
		}
		return "artifact"
	}
	return m.Kind.String()
}

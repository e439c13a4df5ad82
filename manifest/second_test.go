package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// This file is a second strict reader, written apart from Parse: on
// encoding/json, maps and regular expressions, for the fuzzer to compare with.
// Maps keep encoding/json from folding names.

var errSecond = errors.New("refused")

type secondDoc struct {
	mediaType, artifactType, config, subject string
	layers, manifests                        []string // digests
	annotations                              map[string]string
}

var (
	secondType   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$`)
	secondParam  = regexp.MustCompile("^([ \t]*;[ \t]*[A-Za-z0-9!#$&^_.+%'*`|~-]+=([A-Za-z0-9!#$&^_.+%'*`|~-]+|\"[^\"\\\\\\x00-\\x1f\\x7f]*\"))+[ \t]*$")
	secondDigest = regexp.MustCompile(`^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$`)
	secondHex    = map[string]*regexp.Regexp{"sha256": regexp.MustCompile(`^[a-f0-9]{64}$`), "sha512": regexp.MustCompile(`^[a-f0-9]{128}$`), "blake3": regexp.MustCompile(`^[a-f0-9]{64}$`)}
	secondURI    = regexp.MustCompile(`^[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+$`)
)

type object = map[string]json.RawMessage

func secondParse(mediaType string, raw []byte) (doc secondDoc, err error) {
	defer func() { // a refusal anywhere
		if r := recover(); r != nil {
			if r != errSecond {
				panic(r)
			}
			err = errSecond
		}
	}()
	mediaType = strings.TrimSpace(strings.Split(mediaType, ";")[0])
	if mediaType != "" && KindOf(mediaType) == KindOpaque {
		return secondDoc{mediaType: mediaType}, nil
	}
	refuse(len(raw) > MaxSize || !json.Valid(raw) || !utf8.Valid(raw) || loneSurrogate(raw))
	refuse(bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{")) == false)
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	noDuplicates(d, 0)

	o := obj(raw)
	doc.mediaType = mediaType
	if v, ok := o["mediaType"]; ok {
		own := str(v)
		if mediaType == "" {
			doc.mediaType = own
		}
		refuse(own != doc.mediaType)
	}
	refuse(doc.mediaType == "")
	kind := KindOf(doc.mediaType)
	if kind == KindOpaque {
		return secondDoc{mediaType: doc.mediaType}, nil
	}
	need := func(names ...string) {
		for _, n := range names {
			_, ok := o[n]
			refuse(!ok)
		}
	}
	never := func(names ...string) {
		for _, n := range names {
			_, ok := o[n]
			refuse(ok)
		}
	}
	version := "2"
	switch kind {
	case KindImage:
		need("schemaVersion", "config", "layers")
		never("manifests", "blobs", "fsLayers")
	case KindIndex:
		need("schemaVersion", "manifests")
		never("config", "layers", "blobs", "fsLayers")
	case KindArtifact:
		need("mediaType", "artifactType")
		never("config", "layers", "manifests", "fsLayers")
	case KindSchema1:
		need("schemaVersion", "fsLayers")
		never("config", "layers", "manifests", "blobs")
		version = "1"
	}
	if doc.mediaType == MediaTypeDockerManifest || doc.mediaType == MediaTypeDockerList {
		need("mediaType")
	}
	if v, ok := o["schemaVersion"]; ok {
		refuse(!regexp.MustCompile(`^-?[0-9]+$`).Match(v) || kind != KindArtifact && string(v) != version)
		n, _ := new(big.Int).SetString(string(v), 10)
		refuse(!n.IsInt64())
	}
	if v, ok := o["artifactType"]; ok {
		doc.artifactType = optionalType(v)
	}
	configType := ""
	if v, ok := o["config"]; ok {
		doc.config, configType = second(v)
	}
	if v, ok := o["subject"]; ok && string(v) != "null" {
		doc.subject, _ = second(v)
	}
	doc.layers = append(seconds(o["layers"]), seconds(o["blobs"])...)
	doc.manifests = seconds(o["manifests"])
	if v, ok := o["fsLayers"]; ok {
		for _, l := range arr(v) {
			blobSum, ok := obj(l)["blobSum"]
			refuse(!ok)
			doc.layers = append(doc.layers, dig(blobSum))
		}
	}
	doc.annotations = annotations(o["annotations"])
	if IsDocker(doc.mediaType) {
		doc.subject, doc.artifactType = "", ""
	}
	if kind == KindImage && doc.artifactType == "" {
		doc.artifactType = configType
	}
	return doc, nil
}

func refuse(when bool) {
	if when {
		panic(errSecond)
	}
}

func str(v json.RawMessage) (s string) {
	refuse(v[0] != '"' || json.Unmarshal(v, &s) != nil)
	return s
}

func obj(v json.RawMessage) (o object) {
	v = bytes.TrimSpace(v)
	refuse(v[0] != '{' || json.Unmarshal(v, &o) != nil)
	return o
}

func arr(v json.RawMessage) (a []json.RawMessage) {
	refuse(v[0] != '[' || json.Unmarshal(v, &a) != nil)
	return a
}

func dig(v json.RawMessage) string {
	s := str(v)
	refuse(len(s) > 1024 || !secondDigest.MatchString(s))
	alg, hex, _ := strings.Cut(s, ":")
	if re := secondHex[alg]; re != nil {
		refuse(!re.MatchString(hex))
	}
	return s
}

func mediaTypeOf(s string) string {
	base, params, has := strings.Cut(s, ";")
	refuse(len(s) > 255 || !secondType.MatchString(base) || has && !secondParam.MatchString(";"+params))
	return s
}

func optionalType(v json.RawMessage) string {
	if s := str(v); s != "" {
		return mediaTypeOf(s)
	}
	return ""
}

func annotations(v json.RawMessage) map[string]string {
	if v == nil || string(v) == "null" {
		return nil
	}
	var out map[string]string
	for k, v := range obj(v) {
		if out == nil {
			out = map[string]string{}
		}
		out[k] = str(v)
	}
	return out
}

func stringsOf(v json.RawMessage) (out []string) {
	if v == nil || string(v) == "null" {
		return nil
	}
	for _, e := range arr(v) {
		out = append(out, str(e))
	}
	return out
}

func seconds(v json.RawMessage) (out []string) {
	if v == nil || string(v) == "null" {
		return nil
	}
	for _, e := range arr(v) {
		d, _ := second(e)
		out = append(out, d)
	}
	return out
}

// second reads a descriptor and returns its digest and media type.
func second(v json.RawMessage) (string, string) {
	o := obj(v)
	for _, n := range []string{"mediaType", "digest", "size"} {
		_, ok := o[n]
		refuse(!ok)
	}
	d, mt := dig(o["digest"]), mediaTypeOf(str(o["mediaType"]))
	refuse(!regexp.MustCompile(`^-?[0-9]+$`).Match(o["size"]))
	size, _ := new(big.Int).SetString(string(o["size"]), 10)
	refuse(!size.IsInt64() || size.Sign() < 0)
	if v, ok := o["artifactType"]; ok {
		optionalType(v)
	}
	annotations(o["annotations"])
	for _, s := range stringsOf(o["urls"]) {
		u, err := url.Parse(s)
		refuse(!secondURI.MatchString(s) || err != nil || u.Scheme == "")
	}
	if v, ok := o["platform"]; ok && string(v) != "null" {
		p := obj(v)
		for _, n := range []string{"architecture", "os", "os.version", "variant"} {
			if v, ok := p[n]; ok {
				str(v)
			}
		}
		stringsOf(p["os.features"])
	}
	if v, ok := o["data"]; ok {
		s := str(v)
		content, err := base64.StdEncoding.Strict().DecodeString(s)
		refuse(err != nil || strings.ContainsAny(s, "\r\n") || big.NewInt(int64(len(content))).Cmp(size) != 0)
		if alg, _, _ := strings.Cut(d, ":"); alg == "sha256" || alg == "sha512" {
			refuse(digest.Algorithm(alg).FromBytes(content) != digest.Digest(d))
		}
	}
	return d, mt
}

// noDuplicates walks the tokens of one value.
func noDuplicates(d *json.Decoder, depth int) {
	t, err := d.Token()
	refuse(err != nil && err != io.EOF)
	delim, _ := t.(json.Delim)
	if delim == '{' || delim == '[' {
		depth++
		refuse(depth > 128)
	}
	switch delim {
	case '{':
		seen := map[string]bool{}
		for d.More() {
			name, _ := d.Token()
			refuse(seen[fmt.Sprint(name)])
			seen[fmt.Sprint(name)] = true
			noDuplicates(d, depth)
		}
		d.Token()
	case '[':
		for d.More() {
			noDuplicates(d, depth)
		}
		d.Token()
	}
}

var escape = regexp.MustCompile(`\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89abcdefABCDEF][0-9a-fA-F]{2}|.)`)

// loneSurrogate looks for half a pair: an escape that the first alternative,
// the pair, did not take.
func loneSurrogate(raw []byte) bool {
	for _, m := range escape.FindAll(raw, -1) {
		if len(m) == 6 {
			return true
		}
	}
	return false
}

package manifest

import (
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/ocidigest"
	"github.com/wharfage/wharfage/internal/strictjson"
)

// MaxSize is the longest document that Parse reads, in bytes. Registries must
// take 4 MB (distribution-spec, "Pushing Manifests"); ECR takes 4 MiB.
const MaxSize = 4 << 20

// Manifest is a document that [Parse] has read and checked. It shares no memory
// with the bytes that Parse was given, and must not be written to.
type Manifest struct {
	Kind      Kind
	MediaType string // without parameters

	// ArtifactType is the artifactType member, else for an image the media type
	// of its config, else "" (image-spec "Guidelines for Artifact Usage").
	ArtifactType string

	Config    Descriptor   // of an image
	Layers    []Descriptor // of an image; the blobs of an artifact manifest; the fsLayers of schema 1, of which just the digest is known
	Manifests []Descriptor // of an index
	Subject   Descriptor   // zero if there is none; always zero for Docker's types, which do not define it

	// Warnings are things that bind a producer only, and names that a careless
	// reader would mistake for known ones.
	Warnings []FieldError

	size        int
	annotations string // text of the object, checked
}

// Parse reads a manifest and checks everything that can be checked without
// looking elsewhere. mediaType is the Content-Type it came with, whose
// parameters are ignored; if it is "", the document's own mediaType decides. A
// document of a media type that Parse does not know comes back as KindOpaque,
// unread. raw is neither kept nor changed: its bytes are the truth, for whoever stores it.
//
// The error is an *[InvalidError] that lists what is wrong and where, or
// matches [ErrTooLarge].
//
// Refused is what two readers could take for different things: a name that is
// there twice, invalid UTF-8, members of two kinds of manifest, a mediaType
// other than Content-Type, data after the document. Unknown members are left
// alone, and so are members whose names differ from known ones in case only,
// which are reported in Warnings.
func Parse(mediaType string, raw []byte) (*Manifest, error) {
	if len(raw) > MaxSize {
		return nil, tooLarge(len(raw), MaxSize)
	}
	if i := strings.IndexByte(mediaType, ';'); i >= 0 {
		mediaType = mediaType[:i]
	}
	mediaType = strings.TrimSpace(mediaType)
	m := &Manifest{MediaType: mediaType, size: len(raw)}
	if mediaType != "" {
		if m.Kind = KindOf(mediaType); m.Kind == KindOpaque {
			return m, nil
		}
	}
	var p parser
	p.Reset(string(raw))
	p.m, p.lastType = m, MediaTypeImage
	p.document()
	if len(p.errs) > 0 {
		return nil, &InvalidError{p.errs}
	}
	return m, nil
}

type parser struct {
	strictjson.Reader
	m    *Manifest
	errs []FieldError

	list  string // pointer of the descriptor, or list of descriptors, being read
	index int    // in that list, -1 if it is none
	sub   string // pointer, below that, of the object or array being read

	has      members // of the document
	schema   int64
	typ, art string // mediaType and artifactType as they stand
	lastType string // the last media type that passed: usually the next one too
}

// members is a set of the document's members that decide what it is.
type members uint16

const (
	hasSchema members = 1 << iota
	hasType
	hasConfig
	hasLayers
	hasManifests
	hasBlobs
	hasFSLayers
	hasArtifactType
)

var memberNames = [...]string{"schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "fsLayers", "artifactType"}

// shapes says which members a kind must have and which would make it something
// else for another reader.
var shapes = [...]struct{ must, mustNot members }{
	KindImage:    {hasSchema | hasConfig | hasLayers, hasManifests | hasBlobs | hasFSLayers},
	KindIndex:    {hasSchema | hasManifests, hasConfig | hasLayers | hasBlobs | hasFSLayers},
	KindArtifact: {hasType | hasArtifactType, hasConfig | hasLayers | hasManifests | hasFSLayers},
	KindSchema1:  {hasSchema | hasFSLayers, hasConfig | hasLayers | hasManifests | hasBlobs},
}

func (p *parser) document() {
	m := p.m
	p.index = -1
	if p.Peek() != '{' {
		p.fail("", RuleSyntax, "", "is to be a JSON object")
		return
	}
	for o := p.Object(); o.Next(); {
		switch p.Name {
		case "schemaVersion":
			p.has |= hasSchema
			p.schemaVersion()
		case "mediaType":
			p.has |= hasType
			faults := len(p.errs)
			if p.typ = p.string("mediaType"); len(p.errs) > faults {
				p.typ = m.MediaType // has been reported
			}
		case "artifactType":
			p.has |= hasArtifactType
			p.art = p.artifactType()
		case "config":
			p.has |= hasConfig
			p.list = "/config"
			m.Config = p.descriptor()
		case "subject":
			if p.null("subject") {
				break
			}
			p.list = "/subject"
			m.Subject = p.descriptor()
		case "layers":
			p.has |= hasLayers
			m.Layers = p.descriptors("/layers")
		case "blobs":
			p.has |= hasBlobs
			m.Layers = p.descriptors("/blobs")
		case "manifests":
			p.has |= hasManifests
			m.Manifests = p.descriptors("/manifests")
		case "fsLayers":
			p.has |= hasFSLayers
			m.Layers = p.fsLayers()
		case "annotations":
			m.annotations = p.annotations()
		default:
			p.unknown(p.Name, documentNames)
		}
		if p.Err() == nil {
			p.list, p.index = "", -1
		}
	}
	p.end()
	if p.Err() == nil {
		p.decide()
	}
}

// end checks that the document is over, and reports what the reader found.
func (p *parser) end() {
	p.End()
	if e := p.Err(); e != nil && e.Rule != "" {
		p.fail(p.at(""), Rule(e.Rule), "", e.Detail+" at byte "+strconv.Itoa(e.Offset))
	}
}

// decide settles what the document is, and checks that it is just that.
func (p *parser) decide() {
	m := p.m
	switch {
	case m.MediaType == "" && p.typ == "":
		p.fail("/mediaType", RuleRequired, "", "is to say what the document is, as no Content-Type does")
		return
	case m.MediaType == "":
		m.MediaType, m.Kind = p.typ, KindOf(p.typ)
	case p.has&hasType != 0 && p.typ != m.MediaType:
		p.fail("/mediaType", RuleMismatch, shorten(p.typ), "is to be the Content-Type, "+shorten(m.MediaType))
		return
	}
	if m.Kind == KindOpaque {
		*m = Manifest{MediaType: m.MediaType, size: m.size}
		p.errs = nil
		return
	}
	shape := shapes[m.Kind]
	docker := IsDocker(m.MediaType)
	if docker && m.Kind != KindSchema1 {
		shape.must |= hasType // Docker "Image Manifest V 2, Schema 2" requires it
	}
	for i, name := range memberNames {
		switch bit := members(1) << i; {
		case shape.must&^p.has&bit != 0:
			p.fail("/"+name, RuleRequired, "", "is required in "+m.MediaType)
		case shape.mustNot&p.has&bit != 0:
			p.fail("/"+name, RuleAmbiguous, "", "belongs to another kind of manifest than "+m.MediaType)
		}
	}
	want := int64(2)
	if m.Kind == KindSchema1 {
		want = 1
	}
	if p.has&hasSchema != 0 && m.Kind != KindArtifact && p.schema != want && p.schema != badSchema {
		p.fail("/schemaVersion", RuleSchemaVersion, strconv.FormatInt(p.schema, 10), "is to be "+strconv.FormatInt(want, 10))
	}
	if docker {
		m.Subject, p.art = Descriptor{}, ""
	}
	m.ArtifactType = p.art
	if m.Kind == KindImage && m.ArtifactType == "" {
		m.ArtifactType = m.Config.MediaType
		if m.Config.MediaType == MediaTypeEmpty {
			p.warn("/artifactType", RuleEmptyConfig, "", "is to be set when config has the empty type (image-spec manifest.md)")
		}
	}
}

// badSchema is a schemaVersion that has been reported already.
const badSchema = -1 << 63

// Names that a member must not merely resemble.
var (
	documentNames   = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "subject", "annotations", "fsLayers"}
	descriptorNames = []string{"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"}
	platformNames   = []string{"architecture", "os", "os.version", "os.features", "variant"}
)

func (p *parser) unknown(name string, known []string) {
	for _, k := range known {
		if len(name) >= len(k) && strings.EqualFold(name, k) {
			p.warn(p.at(name), RuleCase, "", "is an unknown member, which careless readers take for "+k)
		}
	}
	p.Skip()
}

// at returns the pointer of a member of what is being read.
func (p *parser) at(member string) string {
	s := p.list
	if p.index >= 0 {
		s += "/" + strconv.Itoa(p.index)
	}
	s += p.sub
	if member == "" {
		return s
	}
	return s + "/" + pointerEscaper.Replace(member)
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

func (p *parser) fail(pointer string, rule Rule, value, detail string) {
	if len(p.errs) < MaxFieldErrors {
		p.errs = append(p.errs, FieldError{pointer, rule, value, detail})
	}
	if len(p.errs) == MaxFieldErrors {
		p.Stop()
	}
}

func (p *parser) warn(pointer string, rule Rule, value, detail string) {
	if w := &p.m.Warnings; len(*w) < MaxFieldErrors {
		*w = append(*w, FieldError{pointer, rule, value, detail})
	}
}

// wrongType reports a value of the wrong JSON type and reads past it.
func (p *parser) wrongType(member, want string) {
	p.Peek()
	start := p.Pos()
	p.Skip()
	if p.Err() == nil {
		p.fail(p.at(member), RuleType, shorten(p.Since(start)), "is to be "+want)
	}
}

// null reads null where a member might as well be left out, as encoders of
// nil slices and maps write it.
func (p *parser) null(member string) bool {
	if !p.Null() {
		return false
	}
	p.warn(p.at(member), RuleNull, "null", "is to be left out")
	return true
}

func (p *parser) string(member string) string {
	s, ok := p.TryString()
	if !ok {
		p.wrongType(member, "a string")
	}
	return s
}

func (p *parser) schemaVersion() {
	if c := p.Peek(); c != '-' && (c < '0' || c > '9') {
		p.wrongType("schemaVersion", "an integer")
		p.schema = badSchema
		return
	}
	start := p.Pos()
	n, ok := p.Int64()
	if p.schema = n; !ok && p.Err() == nil {
		p.fail(p.at("schemaVersion"), RuleSchemaVersion, shorten(p.Since(start)), "is to be an integer")
		p.schema = badSchema
	}
}

func (p *parser) artifactType() string {
	s := p.string("artifactType")
	if s == "" {
		p.warn(p.at("artifactType"), RuleEmptyArtifact, "", "is empty, and counts as left out")
		return ""
	}
	p.checkType("artifactType", s, RuleArtifactType)
	return s
}

func (p *parser) checkType(member, s string, rule Rule) {
	switch ok, params := checkMediaType(s); {
	case isLongType(s):
		p.fail(p.at(member), RuleTooLong, shorten(s), "takes 127 characters on each side of the slash (RFC 6838), and 255 in all")
	case !ok:
		p.fail(p.at(member), rule, shorten(s), "is to be type/subtype of RFC 6838")
	case params:
		p.warn(p.at(member), RuleParameter, shorten(s), "is to be without a parameter")
	default:
		p.lastType = s
	}
}

// minDescriptor is how short a descriptor can be:
// {"mediaType":"a/b","digest":"a:b","size":0}.
const minDescriptor = 43

// descriptors reads a list of them with one allocation, whose size follows from
// what is left of the document. A list with a fault in it is not kept.
func (p *parser) descriptors(list string) []Descriptor {
	if p.null(list[1:]) {
		return nil
	}
	if p.Peek() != '[' {
		p.wrongType(list[1:], "an array")
		return nil
	}
	p.list, p.index = list, 0
	var few [4]Descriptor // on the stack, until it is known how many there may be
	var many []Descriptor
	shortest := p.Left()
	for a := p.Array(); a.Next(); p.index++ {
		start := p.Pos()
		d := p.descriptor()
		switch i := p.index; {
		case len(p.errs) > 0:
		case i < len(few):
			few[i] = d
			shortest = min(shortest, p.Pos()-start)
		default:
			if i == len(few) {
				many = append(make([]Descriptor, 0, i+2+p.Left()/max(shortest, minDescriptor)), few[:]...)
			}
			many = append(many, d)
		}
	}
	if p.index <= len(few) {
		many = append(many, few[:p.index]...)
	}
	return many
}

func (p *parser) descriptor() (d Descriptor) {
	if p.Peek() != '{' {
		p.wrongType("", "a descriptor")
		return d
	}
	start := p.Pos()
	var hasSize, hasDigest, hasMediaType bool
	data, hasData := "", false
	for o := p.Object(); o.Next(); {
		switch p.Name {
		case "mediaType":
			hasMediaType = true
			var ok bool
			if d.MediaType, ok = p.TryString(); !ok {
				p.wrongType("mediaType", "a string")
			} else if d.MediaType != p.lastType {
				p.checkType("mediaType", d.MediaType, RuleMediaType)
			}
		case "digest":
			hasDigest = true
			if s, ok := p.TryString(); !ok {
				p.wrongType("digest", "a string")
			} else {
				d.Digest = digest.Digest(s)
				p.checkDigest("digest", d.Digest)
			}
		case "size":
			hasSize = true
			d.Size = p.size()
		case "artifactType":
			d.ArtifactType = p.artifactType()
		case "annotations":
			p.annotations()
		case "platform":
			p.platform()
		case "urls":
			p.urls()
		case "data":
			hasData = p.Peek() == '"'
			data = p.string("data")
		default:
			p.unknown(p.Name, descriptorNames)
		}
	}
	d.text = p.Since(start)
	if p.Err() != nil {
		return d
	}
	if !hasMediaType {
		p.fail(p.at("mediaType"), RuleRequired, "", "is required in a descriptor")
	}
	if !hasDigest {
		p.fail(p.at("digest"), RuleRequired, "", "is required in a descriptor")
	}
	if !hasSize {
		p.fail(p.at("size"), RuleRequired, "", "is required in a descriptor")
	}
	if hasData {
		p.checkData(data, d)
	}
	return d
}

func (p *parser) checkDigest(member string, d digest.Digest) {
	if p.Err() == nil {
		if err := ocidigest.Check(string(d)); err != nil {
			p.fail(p.at(member), RuleDigest, shorten(string(d)), "is to be a digest: "+err.Error())
		}
	}
}

func (p *parser) size() int64 {
	if c := p.Peek(); c != '-' && (c < '0' || c > '9') {
		p.wrongType("size", "an integer")
		return 0
	}
	start := p.Pos()
	n, ok := p.Int64()
	if (!ok || n < 0) && p.Err() == nil {
		p.fail(p.at("size"), RuleSize, shorten(p.Since(start)), "is to be an integer from 0 to 9223372036854775807, without fraction and exponent")
	}
	return n
}

// annotations checks the object and returns its text; it is read again when
// somebody asks for it.
func (p *parser) annotations() string {
	if p.null("annotations") {
		return ""
	}
	if p.Peek() != '{' {
		p.wrongType("annotations", "an object of strings")
		return ""
	}
	start := p.Pos()
	p.sub = "/annotations"
	for o := p.Object(); o.Next(); {
		p.string(p.Name)
	}
	p.leave()
	return p.Since(start)
}

// leave forgets where the reader was, unless a fault there is to be reported.
func (p *parser) leave() {
	if p.Err() == nil {
		p.sub = ""
	}
}

func (p *parser) platform() {
	if p.null("platform") {
		return
	}
	if p.Peek() != '{' {
		p.wrongType("platform", "an object")
		return
	}
	var os, arch bool
	p.sub = "/platform"
	for o := p.Object(); o.Next(); {
		switch p.Name {
		case "architecture":
			arch = p.string("architecture") != ""
		case "os":
			os = p.string("os") != ""
		case "os.version", "variant":
			p.string(p.Name)
		case "os.features":
			p.strings("os.features", "/platform/os.features", nil)
			p.sub = "/platform"
		default:
			p.unknown(p.Name, platformNames)
		}
	}
	p.leave()
	if !os || !arch {
		p.warn(p.at("platform"), RulePlatform, "", "is to name os and architecture")
	}
}

func (p *parser) urls() {
	p.strings("urls", "/urls", func(i int, s string) {
		if !isURI(s) {
			p.fail(p.at(strconv.Itoa(i)), RuleURL, shorten(s), "is to be a URI of RFC 3986")
		}
	})
}

// strings reads an array of them, which is at sub.
func (p *parser) strings(member, sub string, check func(int, string)) {
	if p.null(member) {
		return
	}
	if p.Peek() != '[' {
		p.wrongType(member, "an array of strings")
		return
	}
	p.sub = sub
	i := 0
	for a := p.Array(); a.Next(); i++ {
		if s, ok := p.TryString(); !ok {
			p.wrongType(strconv.Itoa(i), "a string")
		} else if check != nil && p.Err() == nil {
			check(i, s)
		}
	}
	p.leave()
}

// isURI adds to url.Parse what it lets pass: characters that no URI has.
func isURI(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return false
		}
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme != ""
}

func (p *parser) checkData(data string, d Descriptor) {
	content, err := base64.StdEncoding.Strict().DecodeString(data)
	switch {
	case err != nil || strings.ContainsAny(data, "\r\n"): // the decoder skips line ends
		p.fail(p.at("data"), RuleData, shorten(data), "is to be base64 of RFC 4648 section 4")
	case int64(len(content)) != d.Size:
		p.fail(p.at("data"), RuleData, strconv.Itoa(len(content))+" bytes", "is to be the content, of "+strconv.FormatInt(d.Size, 10)+" bytes")
	case ocidigest.Supported(d.Digest):
		if got := ocidigest.Of(d.Digest.Algorithm(), content); got != d.Digest {
			p.fail(p.at("data"), RuleData, "content of "+string(got), "is to be the content of "+shorten(string(d.Digest)))
		}
	}
}

// fsLayers reads the layers of schema 1.
func (p *parser) fsLayers() (out []Descriptor) {
	if p.Peek() != '[' {
		p.wrongType("fsLayers", "an array")
		return nil
	}
	p.list, p.index = "/fsLayers", 0
	for a := p.Array(); a.Next(); p.index++ {
		if p.Peek() != '{' {
			p.wrongType("", "an object")
			continue
		}
		var d Descriptor
		for o := p.Object(); o.Next(); {
			if p.Name != "blobSum" {
				p.Skip()
				continue
			}
			d.Digest = digest.Digest(p.string("blobSum"))
			p.checkDigest("blobSum", d.Digest)
		}
		if d.Digest == "" && p.Err() == nil {
			p.fail(p.at("blobSum"), RuleRequired, "", "is required")
		}
		if len(p.errs) == 0 {
			out = append(out, d)
		}
	}
	return out
}

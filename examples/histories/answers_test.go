package histories

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// Answers are text with short names for digests, so that they compare at once,
// and print.
const (
	ok               = "ok"
	blobNotFound     = "blob not found"
	blobConflict     = "blob conflict"
	blobRange        = "range begins beyond the end"
	blobOffset       = "wrong offset"
	blobDigest       = "wrong digest"
	uploadNotFound   = "upload not found"
	manifestNotFound = "manifest or tag not found"
	manifestInvalid  = "invalid manifest"
	readerFailed     = "the reader's error"
)

var errReader = errors.New("the reader failed")

type errorClass struct {
	err    error
	answer string
}

var classes = []errorClass{
	{blob.ErrNotFound, blobNotFound},
	{blob.ErrConflict, blobConflict},
	{blob.ErrRange, blobRange},
	{blob.ErrOffset, blobOffset},
	{blob.ErrDigest, blobDigest},
	{blob.ErrUploadNotFound, uploadNotFound},
	{manifest.ErrNotFound, manifestNotFound},
	{manifest.ErrInvalid, manifestInvalid},
	{errReader, readerFailed},
}

// class is the answer that an error is. Its text may change from run to run, so
// what has no class is said elsewhere.
func class(err error) string {
	if err == nil {
		return ok
	}
	if e, found := errors.AsType[*manifest.MissingError](err); found {
		return missingAnswer(e)
	}
	if e, found := errors.AsType[*manifest.ConflictError](err); found {
		return conflictAnswer(e)
	}
	for _, c := range classes {
		if errors.Is(err, c.err) {
			return c.answer
		}
	}
	return "an error of no class"
}

func missingAnswer(e *manifest.MissingError) string {
	return "missing blobs " + showSet(e.Blobs) + " manifests " + showSet(e.Manifests)
}

func conflictAnswer(e *manifest.ConflictError) string {
	switch {
	case e.Parent != "":
		return "conflict: " + name(e.Digest) + " is listed by " + name(e.Parent)
	case e.Subject != "":
		return "conflict: " + name(e.Digest) + " has its subject " + name(e.Subject)
	case !e.TouchedAt.IsZero():
		return "conflict: " + name(e.Digest) + " was touched " + showTime(e.TouchedAt)
	case e.Digest != "" && e.Tag == "":
		return "conflict: " + name(e.Digest) + " is there since " + showTime(e.Since)
	case e.Digest != "":
		return "conflict: " + name(e.Digest) + " has tag " + e.Tag
	}
	return "conflict: " + e.Tag + " is at " + name(e.Have) + ", not " + name(e.Want)
}

// after returns the keys that a listing after a key shows.
func after[K cmp.Ordered, V any](m map[K]V, last K) []K {
	keys := slices.Sorted(maps.Keys(m))
	return slices.DeleteFunc(keys, func(key K) bool { return key <= last })
}

// list is an answer that is a list.
type list struct{ strings.Builder }

func (l *list) add(s string) {
	if l.Len() > 0 {
		l.WriteString("; ")
	}
	l.WriteString(s)
}

func quote(s string) string { return strconv.Quote(s) }

// name is short for a digest.
func name(dgst digest.Digest) string {
	if n, found := names[dgst]; found {
		return n
	}
	return string(dgst[:min(len(dgst), 15)])
}

func showSet(dgsts []digest.Digest) string {
	var out []string
	for _, d := range dgsts {
		out = append(out, name(d))
	}
	slices.Sort(out)
	return "[" + strings.Join(out, " ") + "]"
}

func showTime(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Sub(epoch).String()
}

func blobInfo(dgst digest.Digest, size int64) string {
	return name(dgst) + " " + strconv.FormatInt(size, 10) + " bytes"
}

func showBlob(dgst digest.Digest, l *link) string {
	if l == nil {
		return "-"
	}
	return blobInfo(dgst, int64(len(l.content)))
}

func opened(info, content string) string { return info + " " + quote(content) }

func showDescriptor(d ocispec.Descriptor) string {
	if d.Digest == "" {
		return "-"
	}
	var b strings.Builder
	b.WriteString(name(d.Digest))
	b.WriteByte(' ')
	b.WriteString(d.MediaType)
	b.WriteByte(' ')
	b.WriteString(strconv.FormatInt(d.Size, 10))
	b.WriteString(" bytes type ")
	b.WriteString(d.ArtifactType)
	for _, key := range slices.Sorted(maps.Keys(d.Annotations)) {
		b.WriteByte(' ')
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(d.Annotations[key])
	}
	return b.String()
}

func showRecord(rec manifest.Record, raw string) string {
	return showDescriptor(rec.Desc) + " subject " + name(rec.Subject) + " manifests " + showSet(rec.Manifests) +
		" blobs " + showSet(rec.Blobs) + " pushed " + showTime(rec.PushedAt) + ", last " + showTime(rec.TouchedAt) +
		" class " + string(rec.StorageClass) + " archived " + showTime(rec.ArchivedAt) + " restored " + showTime(rec.RestoredAt) + " " + raw
}

func showTag(t manifest.Tag) string {
	return t.Name + " at " + name(t.Digest) + " since " + showTime(t.MovedAt)
}

func showPull(dgst digest.Digest, at time.Time) string { return name(dgst) + " pulled " + showTime(at) }

// showEvent leaves out times of records, which Apply sets, and shows that
// there is no Raw.
func showEvent(e manifest.Event) string {
	c := e.Change
	put := make([]string, len(c.Put))
	for i, rec := range c.Put {
		rec.PushedAt, rec.TouchedAt = time.Time{}, time.Time{}
		put[i] = showRecord(rec, string(rec.Raw))
	}
	return fmt.Sprintf("%s: %s put %q at %s", e.Repo, showChange(c), put, showTime(c.At))
}

// showChange is a change on one line.
func showChange(c manifest.Change) string {
	var b strings.Builder
	add := func(name string, items []string) {
		if len(items) > 0 {
			fmt.Fprintf(&b, "%s: [%s], ", name, strings.Join(items, ", "))
		}
	}
	dgsts := func(dgsts []digest.Digest) (out []string) {
		for _, d := range dgsts {
			out = append(out, name(d))
		}
		return out
	}
	add("blobs", dgsts(c.RequireBlobs))
	add("manifests", dgsts(c.RequireManifests))
	var items []string
	for _, rec := range c.Put {
		items = append(items, name(rec.Desc.Digest))
	}
	add("put", items)
	items = nil
	for _, t := range c.Tags {
		item := t.Name + "→" + name(t.To)
		if t.From != "" {
			item += " from " + name(t.From)
		}
		items = append(items, item)
	}
	add("tags", items)
	items = nil
	for _, m := range c.Classes {
		item := name(m.Digest) + "→" + cmp.Or(string(m.To), "standard")
		if m.IfUnlisted {
			item += " ifUnlisted"
		}
		items = append(items, item)
	}
	add("classes", items)
	items = nil
	for _, s := range c.Unchanged {
		items = append(items, fmt.Sprintf("%s tags %q since %s", name(s.Digest), s.Tags, showTime(s.Since)))
	}
	add("unchanged", items)
	items = nil
	for _, d := range c.Delete {
		item := name(d.Digest)
		if d.IfUntagged {
			item += " ifUntagged"
		}
		if d.IfUnlisted {
			item += " ifUnlisted"
		}
		if d.IfOrphan {
			item += " ifOrphan"
		}
		if !d.Cutoff.IsZero() {
			item += " cutoff " + showTime(d.Cutoff)
		}
		items = append(items, item)
	}
	add("delete", items)
	if c.At.IsZero() {
		b.WriteString("at unknown, ")
	}
	return "{" + strings.TrimSuffix(b.String(), ", ") + "}"
}

// readerOf yields content, and then fails if broken.
func readerOf(content string, broken bool) io.Reader {
	if broken {
		return io.MultiReader(strings.NewReader(content), brokenReader{})
	}
	return strings.NewReader(content)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errReader }

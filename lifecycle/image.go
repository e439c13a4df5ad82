package lifecycle

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is what a policy needs to know of one manifest of a repository: an
// image, an index or an artifact. A zero time is one that is not known, or that
// never was.
type Image struct {
	Digest digest.Digest // unique among the images
	Tags   []string      // none: untagged

	PushedAt     time.Time    // first push of the manifest
	PulledAt     time.Time    // last recorded pull
	StorageClass StorageClass // "" is Standard
	ArchivedAt   time.Time    // last move to the archive; kept after a restore
	RestoredAt   time.Time    // last return from the archive

	Subject   digest.Digest   // of a referrer; it need not be among the images
	Manifests []digest.Digest // what an index lists; they need not be among the images

	Size         int64  // bytes, for sums
	MediaType    string // for people
	ArtifactType string // for people
}

func (im *Image) class() StorageClass { return cmp.Or(im.StorageClass, Standard) }

// pushTime is when the image came, or came back.
func (im *Image) pushTime() time.Time {
	if !im.RestoredAt.IsZero() {
		return im.RestoredAt
	}
	return im.PushedAt
}

// pullTime is the last use that counts: of a restored image no pull before the
// restore, of one that was never pulled the push.
func (im *Image) pullTime() time.Time {
	switch {
	case !im.RestoredAt.IsZero() && im.PulledAt.Before(im.RestoredAt):
		return im.RestoredAt
	case !im.PulledAt.IsZero():
		return im.PulledAt
	}
	return im.PushedAt
}

// classTime is when the image came to its storage class.
func (im *Image) classTime() time.Time {
	if im.StorageClass == Archive {
		return im.ArchivedAt
	}
	return im.pushTime()
}

// newer tells whether a comes before b, newest first.
func newer(a, b *Image, descendingTies bool) int {
	if c := b.pushTime().Compare(a.pushTime()); c != 0 {
		return c
	}
	c := strings.Compare(string(a.Digest), string(b.Digest))
	if descendingTies {
		c = -c
	}
	return c
}

// unknown is the instant of a zero time.
const unknown = math.MinInt64

// instant returns t in nanoseconds since 1970. What does not fit is the first
// or the last instant that does.
func instant(t time.Time) int64 {
	const most = math.MaxInt64 / int64(time.Second)
	sec := t.Unix()
	if -most < sec && sec < most {
		return t.UnixNano()
	}
	switch {
	case t.IsZero():
		return unknown
	case sec < 0:
		return unknown + 1
	}
	return math.MaxInt64
}

// saturated is now less age, or the first instant.
func saturated(now int64, age time.Duration) int64 {
	if now < unknown+int64(age) {
		return unknown
	}
	return now - int64(age)
}

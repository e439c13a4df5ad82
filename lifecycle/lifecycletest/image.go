package lifecycletest

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

// Now is the instant that ages are counted from: noon of the first day of 2026,
// in UTC.
func Now() time.Time { return noon }

// DaysLater is so many days after Now.
func DaysLater(days int) time.Time { return noon.AddDate(0, 0, days) }

// Option says something about an image.
type Option func(*lifecycle.Image)

// Image makes an image with a tag, pushed [Now] unless an option says otherwise.
// Its digest is that of the tag, [Digest].
func Image(tag string, options ...Option) lifecycle.Image {
	return apply(lifecycle.Image{Digest: Digest(tag), Tags: []string{tag}, PushedAt: noon}, options)
}

// Untagged makes an image without a tag; name is what tests call it.
func Untagged(name string, options ...Option) lifecycle.Image {
	return apply(lifecycle.Image{Digest: Digest(name), PushedAt: noon}, options)
}

func apply(im lifecycle.Image, options []Option) lifecycle.Image {
	for _, o := range options {
		o(&im)
	}
	return im
}

// Digest is the digest of the image of a name.
func Digest(name string) digest.Digest { return digest.SHA256.FromString(name) }

// Tags adds further tags.
func Tags(tags ...string) Option {
	return func(im *lifecycle.Image) { im.Tags = append(im.Tags, tags...) }
}

// PushedDaysAgo is when the image was pushed first. Ages of rules are more than
// so many days: an image of exactly 14 days is not older than 14 days.
func PushedDaysAgo(days int) Option { return PushedAgo(time.Duration(days) * 24 * time.Hour) }

// PushedAgo is when the image was pushed first.
func PushedAgo(d time.Duration) Option {
	return func(im *lifecycle.Image) { im.PushedAt = noon.Add(-d) }
}

// NoPushTime makes an image whose push time is not known.
func NoPushTime() Option { return func(im *lifecycle.Image) { im.PushedAt = time.Time{} } }

// PulledDaysAgo is when the image was pulled last.
func PulledDaysAgo(days int) Option {
	return func(im *lifecycle.Image) { im.PulledAt = noon.AddDate(0, 0, -days) }
}

// ArchivedDaysAgo puts the image into the archive.
func ArchivedDaysAgo(days int) Option {
	return func(im *lifecycle.Image) {
		im.StorageClass, im.ArchivedAt = lifecycle.Archive, noon.AddDate(0, 0, -days)
	}
}

// RestoredDaysAgo brings the image back from the archive.
func RestoredDaysAgo(days int) Option {
	return func(im *lifecycle.Image) {
		im.StorageClass, im.RestoredAt = lifecycle.Standard, noon.AddDate(0, 0, -days)
	}
}

// Lists makes the image an index of others.
func Lists(children ...lifecycle.Image) Option {
	return func(im *lifecycle.Image) {
		for _, c := range children {
			im.Manifests = append(im.Manifests, c.Digest)
		}
	}
}

// RefersTo makes the image a referrer, as signatures and SBOMs are. The subject
// need not be among the images.
func RefersTo(subject lifecycle.Image) Option {
	return func(im *lifecycle.Image) { im.Subject = subject.Digest }
}

// Bytes is the size of the image.
func Bytes(n int64) Option { return func(im *lifecycle.Image) { im.Size = n } }

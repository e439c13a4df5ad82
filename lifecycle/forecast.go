package lifecycle

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
)

// Timeline is what a policy will do to images if nothing else happens.
type Timeline struct {
	Departures []Departure // in order
	Days       []Day       // one for each pass
}

// Departure is an image that expires, is archived or loses tags.
type Departure struct {
	At     time.Time
	Digest digest.Digest
	Tags   []string // those it loses with Untag, else all it had
	Action ActionType
	Via    Via
	Rule   int64 // 0 if it follows a subject or an index
	Bytes  int64
	Why    string
}

// Day is a repository after the pass of one day.
type Day struct {
	At                       time.Time
	Images, Archived         int   // in both classes, in the archive
	Bytes, ArchivedBytes     int64 // of these
	Expired, Moved, Untagged int   // in this pass
	Freed                    int64 // bytes of what expired in this pass
}

// Forecast carries out one pass a day, from and to included, as if nothing were
// pushed, pulled or deleted otherwise. So it says when each image goes at the
// earliest that the policy alone would let it. Sums of bytes count what images
// share once for each.
func Forecast(policy *Policy, images []Image, from, to time.Time) *Timeline {
	t := &Timeline{}
	now := Day{Images: len(images)}
	for i := range images {
		now.Bytes += images[i].Size
		if images[i].StorageClass == Archive {
			now.Archived++
			now.ArchivedBytes += images[i].Size
		}
	}
	for at := from; !at.After(to); at = at.Add(24 * time.Hour) {
		plan := Evaluate(policy, images, at)
		now.At, now.Expired, now.Moved, now.Untagged, now.Freed = at, 0, 0, 0, 0
		order := plan.Order()
		for _, i := range order {
			v := plan.Verdict(i)
			d := Departure{at, v.Image.Digest, v.Image.Tags, v.Action, v.Via, v.Rule, v.Image.Size, v.String()}
			switch v.Action {
			case Expire:
				now.Expired++
				now.Images--
				now.Bytes -= d.Bytes
				now.Freed += d.Bytes
				if v.Image.StorageClass == Archive {
					now.Archived--
					now.ArchivedBytes -= d.Bytes
				}
			case Transition:
				now.Moved++
				now.Archived++
				now.ArchivedBytes += d.Bytes
			case Untag:
				now.Untagged++
				d.Tags = v.Tags
			}
			t.Departures = append(t.Departures, d)
		}
		if len(order) > 0 {
			images = plan.Outcome()
		}
		t.Days = append(t.Days, now)
	}
	return t
}

// Of returns what happens to an image, in order.
func (t *Timeline) Of(dgst digest.Digest) (out []Departure) {
	for _, d := range t.Departures {
		if d.Digest == dgst {
			out = append(out, d)
		}
	}
	return out
}

// String is a table of the days on which something happens, and the last.
func (t *Timeline) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "day\texpired\tarchived\tuntagged\tfreed bytes\timages left\tbytes left\t")
	for i, d := range t.Days {
		if d.Expired+d.Moved+d.Untagged > 0 || i == len(t.Days)-1 {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", d.At.UTC().Format(time.DateOnly), d.Expired, d.Moved, d.Untagged, d.Freed, d.Images, d.Bytes)
		}
	}
	_ = w.Flush()
	return b.String()
}

// WriteCSV writes a line for each day, to be plotted: the time, images and bytes
// in both storage classes, images and bytes in the archive, and what the pass did.
func (t *Timeline) WriteCSV(w io.Writer) error {
	if _, err := fmt.Fprintln(w, "time,images,bytes,archived_images,archived_bytes,expired,moved,untagged,freed_bytes"); err != nil {
		return err
	}
	for _, d := range t.Days {
		_, err := fmt.Fprintf(w, "%s,%d,%d,%d,%d,%d,%d,%d,%d\n", stamp(d.At), d.Images, d.Bytes, d.Archived, d.ArchivedBytes, d.Expired, d.Moved, d.Untagged, d.Freed)
		if err != nil {
			return err
		}
	}
	return nil
}

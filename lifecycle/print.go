package lifecycle

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
)

// String returns what WriteText writes.
func (p *Plan) String() string {
	var b strings.Builder
	_ = p.WriteText(&b)
	return b.String()
}

// WriteText writes the plan as a table: first what is to be done, in order, then
// what stays, each image with a sentence.
func (p *Plan) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "At %s: %s\n", stamp(p.now), p.Summary()); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(i int) error {
		v := p.Verdict(i)
		_, err := fmt.Fprintf(t, "%s\t%s\n", v.Image.name(), v)
		return err
	}
	order := p.Order()
	for _, i := range order {
		if err := row(i); err != nil {
			return err
		}
	}
	for i := range p.marks {
		if p.marks[i].action == keep {
			if err := row(i); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

// String says the summary in words.
func (s Summary) String() string {
	out := plural(int64(s.Images), "image")
	add := func(n int, what string) {
		if n > 0 {
			out += ", " + strconv.Itoa(n) + " " + what
		}
	}
	add(s.Expiring, "to expire")
	add(s.Transitioning, "to be archived")
	add(s.Untagging, "to lose tags")
	add(s.Following, "to follow")
	add(s.Blocked, "kept by an index")
	add(s.Unknown, "of unknown age")
	if s.Expiring+s.Transitioning+s.Untagging+s.Following == 0 {
		out += ", nothing to do"
	}
	return out
}

// name is how people know an image: by some tags, and the start of its digest.
func (im *Image) name() string {
	const most = 3
	d := short(im.Digest)
	switch n := len(im.Tags); {
	case n == 0:
		return d
	case n > most:
		return strings.Join(im.Tags[:most], ",") + ",… " + d
	}
	return strings.Join(im.Tags, ",") + " " + d
}

// MarshalJSON returns the instant, the summary and all verdicts, in the order of
// the images.
func (p *Plan) MarshalJSON() ([]byte, error) {
	verdicts := make([]Verdict, 0, len(p.marks))
	for v := range p.Verdicts() {
		verdicts = append(verdicts, v)
	}
	return encode(struct {
		Now     time.Time `json:"now"`
		Policy  *Policy   `json:"policy"`
		Summary Summary   `json:"summary"`
		Images  []Verdict `json:"images"`
	}{p.now.UTC(), p.policy, p.Summary(), verdicts})
}

// MarshalJSON returns the verdict with its sentence and with what names the
// image. Times are in UTC, ages in seconds.
func (v Verdict) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Digest  digest.Digest `json:"digest"`
		Tags    []string      `json:"tags"`
		Action  ActionType    `json:"action"`
		Via     Via           `json:"via,omitempty"`
		Rule    int64         `json:"rule,omitempty"`
		Reason  Reason        `json:"reason"`
		Why     string        `json:"why"`
		Owner   int64         `json:"owner,omitempty"`
		Also    []int64       `json:"also,omitempty"`
		Rank    int           `json:"rank,omitempty"`
		Count   int           `json:"count,omitempty"`
		Since   *time.Time    `json:"since,omitempty"`
		Age     json.Number   `json:"age,omitempty"`
		Blocked *Blocked      `json:"blocked,omitempty"`
		Subject digest.Digest `json:"subject,omitempty"`
		By      string        `json:"by,omitempty"`
		Untag   []string      `json:"untag,omitempty"`
	}{
		v.Image.Digest, append([]string{}, v.Image.Tags...), v.Action, v.Via, v.Rule, v.Reason, v.String(), v.Owner, v.Also, v.Rank, v.Count,
		utc(v.Since), v.seconds(), v.Blocked, v.Subject, v.By, v.Tags,
	})
}

func (v Verdict) seconds() json.Number {
	if v.Since.IsZero() {
		return ""
	}
	return json.Number(strconv.FormatInt(int64(v.Age/time.Second), 10))
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

package lifecycletest

import (
	"slices"
	"strings"
	"time"

	"github.com/wharfage/wharfage/lifecycle"
)

// Repository lives under a policy, with a clock of its own: tests push, pull,
// and let days go by.
type Repository struct {
	Policy *lifecycle.Policy
	Images []lifecycle.Image
	Now    time.Time // zero is [Now]
}

func (r *Repository) now() time.Time {
	if r.Now.IsZero() {
		r.Now = noon
	}
	return r.Now
}

// Push adds images, pushed at the repository's time. A tag that another image has
// moves; an image that is there already keeps its times, and is restored if it
// is in the archive.
func (r *Repository) Push(images ...lifecycle.Image) {
	for _, im := range images {
		im.PushedAt = r.now()
		at := slices.IndexFunc(r.Images, func(have lifecycle.Image) bool { return have.Digest == im.Digest })
		for i := range r.Images {
			if i != at {
				r.Images[i].Tags = slices.DeleteFunc(slices.Clone(r.Images[i].Tags), func(tag string) bool { return slices.Contains(im.Tags, tag) })
			}
		}
		if at < 0 {
			r.Images = append(r.Images, im)
			continue
		}
		have := &r.Images[at]
		for _, tag := range im.Tags {
			if !slices.Contains(have.Tags, tag) {
				have.Tags = append(slices.Clone(have.Tags), tag)
			}
		}
		if have.StorageClass == lifecycle.Archive {
			have.StorageClass, have.RestoredAt = lifecycle.Standard, r.Now
		}
	}
}

// Pull records a pull of the image of a name. It tells whether there is one, in
// the standard class.
func (r *Repository) Pull(name string) bool {
	for i := range r.Images {
		im := &r.Images[i]
		if (im.Digest == Digest(name) || slices.Contains(im.Tags, name)) && im.StorageClass != lifecycle.Archive {
			im.PulledAt = r.now()
			return true
		}
	}
	return false
}

// Pass applies the policy once, and returns what it did.
func (r *Repository) Pass() *lifecycle.Plan {
	plan := lifecycle.Evaluate(r.Policy, r.Images, r.now())
	r.Images = plan.Outcome()
	return plan
}

// Wait lets days go by, with a pass at the end of each.
func (r *Repository) Wait(days int) {
	for range days {
		r.Now = r.now().Add(24 * time.Hour)
		r.Pass()
	}
}

// Names lists what is there, sorted: the tags of each image joined by commas, or
// its digest.
func (r *Repository) Names() []string {
	var out []string
	for i := range r.Images {
		if tags := r.Images[i].Tags; len(tags) > 0 {
			out = append(out, strings.Join(tags, ","))
		} else {
			out = append(out, string(r.Images[i].Digest))
		}
	}
	slices.Sort(out)
	return out
}

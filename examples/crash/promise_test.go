//go:build linux

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// promises are what a process has said, folded: what each object may be.
type promises struct {
	may     map[string][]string // by object; one that is not here is not there, or an upload
	touched map[string]time.Time
	bytes   map[string]int
	raw     map[string]string
	under   map[int]begun // operations that have begun and not ended
	last    string        // what began last
	acked   int           // successes
}

// begun is an operation under way, and what was promised before it.
type begun struct {
	said
	before map[string][]string
}

func newPromises() *promises {
	return &promises{map[string][]string{}, map[string]time.Time{}, map[string]int{}, map[string]string{}, map[int]begun{}, "", 0}
}

func (p *promises) fold(s said) {
	if s.What != "" {
		b := begun{s, map[string][]string{}}
		for o, values := range s.After {
			before, ok := p.may[o]
			if !ok {
				before = []string{""}
			}
			if !ok && strings.HasPrefix(o, "upload ") {
				before = []string{"", "0"}
			}
			b.before[o] = before
			p.may[o] = append(slices.Clone(values), before...)
		}
		p.under[s.Op] = b
		p.last = fmt.Sprintf("operation %d, %s", s.Op, s.What)
		maps.Copy(p.bytes, s.Bytes)
		maps.Copy(p.raw, s.Raw)
		return
	}
	b := p.under[s.Op]
	delete(p.under, s.Op)
	if !s.Done {
		maps.Copy(p.may, b.before)
		return
	}
	p.acked++
	maps.Copy(p.may, b.After)
	for _, o := range b.Touch {
		p.touched[o] = b.At
	}
}

func (p *promises) repos() []string {
	set := map[string]bool{}
	for o := range p.may {
		set[strings.Fields(o)[1]] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// check reads all of s, and compares.
func (p *promises) check(ctx context.Context, s *store) error {
	have := map[string]string{}
	for _, repo := range p.repos() {
		if err := p.readBlobs(ctx, s, repo, have); err != nil {
			return err
		}
		if s.manifests != nil {
			if err := p.readManifests(ctx, s.manifests, repo, have); err != nil {
				return err
			}
		}
	}
	for o := range p.may {
		kind, rest, _ := strings.Cut(o, " ")
		repo, id, _ := strings.Cut(rest, " ")
		if kind == "upload" {
			if err := p.readUpload(ctx, s.blobs, repo, id, o, have); err != nil {
				return err
			}
		}
	}
	for o, values := range p.may {
		if !slices.Contains(values, have[o]) {
			return fmt.Errorf("%s is %q, and may be %q", o, have[o], values)
		}
	}
	for o, value := range have {
		if _, ok := p.may[o]; !ok {
			return fmt.Errorf("%s is %q, and nobody made it", o, value)
		}
	}
	return nil
}

func (p *promises) readBlobs(ctx context.Context, s *store, repo string, have map[string]string) error {
	var listed []digest.Digest
	for info, err := range s.blobs.Blobs(ctx, repo, "") {
		if err != nil {
			return err
		}
		listed = append(listed, info.Digest)
		o := object("blob", repo, string(info.Digest))
		have[o] = strconv.FormatInt(info.Size, 10)
		i, ok := p.bytes[o]
		if !ok {
			return fmt.Errorf("%s is listed, and nobody made it", o)
		}
		if err := same(bytesOf(i), func() (io.ReadCloser, error) {
			r, _, err := s.blobs.Open(ctx, repo, info.Digest, 0, -1)
			return r, err
		}); err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
		// Times of files are those of the kernel's ticks.
		const tick = 20 * time.Millisecond
		if at := p.touched[o]; len(p.may[o]) == 1 && info.TouchedAt.Before(at.Add(-lease/2-tick)) {
			return fmt.Errorf("%s was touched at %v, and is of %v", o, at, info.TouchedAt)
		}
	}
	infos, err := s.blobs.Stat(ctx, repo, listed)
	if err != nil {
		return err
	}
	for i, info := range infos {
		if info.Digest != listed[i] {
			return fmt.Errorf("blob %s of %s is listed, and not found", listed[i], repo)
		}
	}
	return nil
}

func same(want []byte, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes, and not the %d that are right", len(got), len(want))
	}
	return err
}

func (p *promises) readUpload(ctx context.Context, s blob.Store, repo, id, o string, have map[string]string) error {
	u, err := s.Lookup(ctx, repo, id)
	if err == nil && u.Size > 0 {
		content := bytesOf(p.bytes[o])
		if u.Size > int64(len(content)) {
			return fmt.Errorf("%s has %d bytes, which is too many", o, u.Size)
		}
		err = same(content[:u.Size], func() (io.ReadCloser, error) { return s.(blob.Rereader).Reread(ctx, u) })
	}
	switch {
	case errors.Is(err, blob.ErrUploadNotFound):
		have[o] = ""
	case err != nil:
		return fmt.Errorf("%s: %w", o, err)
	default:
		have[o] = strconv.FormatInt(u.Size, 10)
	}
	return nil
}

// readManifests also sees to it that what is listed can be pulled.
func (p *promises) readManifests(ctx context.Context, s manifest.Store, repo string, have map[string]string) error {
	for rec, err := range s.Manifests(ctx, repo, "") {
		if err != nil {
			return err
		}
		o := object("manifest", repo, string(rec.Desc.Digest))
		full, err := s.Get(ctx, repo, rec.Desc.Digest)
		if err != nil {
			return fmt.Errorf("%s is listed: %w", o, err)
		}
		if string(full.Raw) != p.raw[string(rec.Desc.Digest)] {
			return fmt.Errorf("%s has wrong bytes", o)
		}
		have[o] = strconv.Itoa(len(full.Raw))
		for _, d := range full.Blobs {
			if have[object("blob", repo, string(d))] == "" {
				return fmt.Errorf("%s needs %s, which is not there", o, d)
			}
		}
	}
	for tag, err := range s.Tags(ctx, repo, "") {
		if err != nil {
			return err
		}
		o := object("tag", repo, tag.Name)
		have[o] = string(tag.Digest)
		again, err := s.Resolve(ctx, repo, tag.Name)
		if err == nil && again != tag {
			err = fmt.Errorf("is listed as %v, and resolves to %v", tag, again)
		}
		if err == nil {
			_, err = s.Get(ctx, repo, tag.Digest)
		}
		if err != nil {
			return fmt.Errorf("%s is listed: %w", o, err)
		}
	}
	return nil
}

package histories

import (
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

func drawPut(d draws) op {
	repo, c, size := drawRepo(d), drawContent(d), int64(-1)
	if drawBool(d) {
		size = int64(len(c.text))
	}
	return opf(func(r *run) {
		err := blob.Put(r.ctx, r.sys.blobs, repo, ocispec.Descriptor{Digest: c.dgst, Size: size}, readerOf(c.text, false))
		r.same(r.answer(err), r.model.put(repo, c.dgst, c.text))
	}, "put(%s, %s)", repo, c.name)
}

func drawPutBad(d draws) op {
	repo, c, broken := drawRepo(d), drawContent(d), drawBool(d)
	text, want, what := c.text+"!", blobDigest, "other bytes"
	if broken {
		text, want, what = c.text, readerFailed, "a reader that fails"
	}
	return opf(func(r *run) {
		err := blob.Put(r.ctx, r.sys.blobs, repo, ocispec.Descriptor{Digest: c.dgst, Size: -1}, readerOf(text, broken))
		r.same(r.answer(err), want)
	}, "put(%s, %s, %s)", repo, c.name, what)
}

func drawStat(d draws) op {
	repo := drawRepo(d)
	var dgsts []digest.Digest
	for _, c := range some(d, drawContent, func(c content) string { return c.name }) {
		dgsts = append(dgsts, c.dgst)
	}
	return opf(func(r *run) { r.stat(repo, dgsts) }, "stat(%s, %s)", repo, showSet(dgsts))
}

func (r *run) stat(repo string, dgsts []digest.Digest) string {
	infos, err := r.sys.blobs.Stat(r.ctx, repo, dgsts)
	var got list
	for _, info := range infos {
		got.add(showInfo(info))
	}
	if err != nil {
		got.add(r.answer(err))
	}
	r.same(got.String(), r.model.stat(repo, dgsts))
	for _, info := range infos {
		if info.Digest != "" {
			r.touched(repo, info)
		}
	}
	return got.String()
}

func showInfo(info blob.Info) string {
	if info == (blob.Info{}) {
		return "-"
	}
	return blobInfo(info.Digest, info.Size)
}

func drawOpen(d draws) op {
	repo, c := drawRepo(d), drawContent(d)
	off, n := int64(drawNumber(d)), int64(drawNumber(d))
	if n == 100 {
		n = -1
	}
	return opf(func(r *run) {
		r.same(r.open(repo, c.dgst, off, n), r.model.open(repo, c.dgst, off, n))
	}, "open(%s, %s, %d, %d)", repo, c.name, off, n)
}

func (r *run) open(repo string, dgst digest.Digest, off, n int64) string {
	content, info, err := r.sys.blobs.Open(r.ctx, repo, dgst, off, n)
	if err != nil {
		return r.answer(err)
	}
	text, err := io.ReadAll(content)
	if err = errors.Join(err, content.Close()); err != nil {
		return r.answer(err)
	}
	if r.model.repo(repo).blobs[dgst] != nil {
		r.touched(repo, info)
	}
	return opened(showInfo(info), string(text))
}

func drawMount(d draws) op {
	from, repo, c := drawRepo(d), drawRepo(d), drawContent(d)
	return opf(func(r *run) {
		r.same(r.answer(blob.Mount(r.ctx, r.sys.blobs, from, repo, c.dgst)), r.model.mount(from, repo, c.dgst))
	}, "mount(%s→%s, %s)", from, repo, c.name)
}

func drawDeleteBlob(d draws) op {
	repo, c := drawRepo(d), drawContent(d)
	after, say := time.Duration(0), "when it was touched"
	switch drawNumber(d) {
	case 0, 1:
		return opf(func(r *run) {
			r.same(r.answer(r.sys.blobs.Delete(r.ctx, repo, c.dgst, time.Time{})), r.model.deleteBlob(repo, c.dgst, false)...)
		}, "delete(%s, %s)", repo, c.name)
	case 2:
		after, say = -time.Second, "1s before it was touched"
	case 5:
		after, say = time.Hour, "1h after it was touched"
	}
	return opf(func(r *run) {
		cutoff := r.now
		for info, err := range r.sys.blobs.Blobs(r.ctx, repo, "") {
			if err == nil && info.Digest == c.dgst {
				cutoff = info.TouchedAt.Add(after)
			}
		}
		r.same(r.answer(r.sys.blobs.Delete(r.ctx, repo, c.dgst, cutoff)), r.model.deleteBlob(repo, c.dgst, after < 0)...)
	}, "delete(%s, %s, cutoff %s)", repo, c.name, say)
}

func drawBlobs(d draws) op {
	repo, last := drawRepo(d), drawAfter(d)
	return opf(func(r *run) {
		r.same(r.blobs(repo, last), r.model.blobs(repo, last))
	}, "blobs(%s, after %s)", repo, name(last))
}

func (r *run) blobs(repo string, last digest.Digest) string {
	return rendered(r, r.sys.blobs.Blobs(r.ctx, repo, last), func(info blob.Info) string {
		if r.model.repo(repo).blobs[info.Digest] != nil {
			r.touched(repo, info)
		}
		return showInfo(info)
	})
}

func drawLocate(d draws) op {
	c := drawContent(d)
	return opf(func(r *run) {
		if s, is := blob.As[blob.Locator](r.sys.blobs); is {
			r.same(rendered(r, s.Locate(r.ctx, c.dgst), showString), r.model.locate(c.dgst))
		}
	}, "locate(%s)", c.name)
}

func drawBlobRepos(d draws) op {
	last := drawName(d)
	return opf(func(r *run) {
		if s, is := blob.As[blob.Catalog](r.sys.blobs); is {
			r.same(rendered(r, s.Repos(r.ctx, last), showString), r.model.blobRepos(last))
		}
	}, "blobRepos(after %q)", last)
}

func drawRedirect(d draws) op {
	repo, c := drawRepo(d), drawContent(d)
	return opf(func(r *run) {
		if s, is := blob.As[blob.Redirector](r.sys.blobs); is {
			url, err := s.Redirect(r.ctx, repo, c.dgst)
			switch {
			case r.model.repo(repo).blobs[c.dgst] != nil:
				r.model.mayTouch(repo, c.dgst)
				r.same(r.answer(err), ok)
			case url != "" || err != nil: // else Open will say it
				r.same(r.answer(err), blobNotFound)
			}
		}
	}, "redirect(%s, %s)", repo, c.name)
}

func blobDescriptor(c content) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: c.dgst, Size: int64(len(c.text))}
}

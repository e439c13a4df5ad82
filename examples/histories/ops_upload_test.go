package histories

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// Uploads are values in variables of the history: u0, u1 … An operation on a
// variable that has none does nothing, and so does one for which it makes no
// sense: what Append made and nobody saved can be saved, committed and reread.

func (v *variable) plain() bool      { return v.upload != nil && v.base == nil }
func (v *variable) unsaved() bool    { return v.upload != nil && v.base != nil }
func (v *variable) clear()           { *v = variable{} }
func digestOf(v value) digest.Digest { return v.alg.FromString(v.content) }

func drawBegin(d draws) op {
	i, repo, alg := drawVariable(d), drawRepo(d), drawAlgorithm(d)
	return opf(func(r *run) {
		u, err := r.sys.blobs.Begin(r.ctx, repo, alg)
		r.same(r.answer(err), ok)
		if r.ids[u.ID] != nil {
			r.same("an ID that was there before", "a new one")
		}
		r.vars[i] = variable{value: r.model.begin(repo, alg), real: u}
		r.ids[u.ID] = r.vars[i].upload
		r.sameUpload(u, r.vars[i].value)
	}, "u%d = begin(%s, %s)", i, repo, alg)
}

// sameUpload compares what the store says of a session, when it was last saved
// included.
func (r *run) sameUpload(u blob.Upload, v value) {
	show := func(repo, id string, size int64, alg digest.Algorithm, at string) string {
		return fmt.Sprintf("upload in %s, %d bytes, %s, updated %s", repo, size, alg, at)
	}
	r.same(show(u.Repo, u.ID, u.Size, u.Algorithm, showTime(u.UpdatedAt)),
		show(v.repo, u.ID, int64(len(v.content)), v.alg, showTime(v.updated)))
	if len(v.content) > 0 && !bytes.Equal(u.Hash, hashOf(v)) {
		r.same("another Hash", "the Hash that was saved")
	}
}

// hashOf is the state of the hash of what v has.
func hashOf(v value) []byte {
	h := sha256.New()
	if v.alg == digest.SHA512 {
		h = sha512.New()
	}
	io.WriteString(h, v.content)
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // they can
	}
	return state
}

func drawLookup(d draws) op {
	i, j, repo := drawVariable(d), drawVariable(d), ""
	what := ""
	if drawSeldom(d) {
		repo = drawRepo(d)
		what = " from " + repo
	}
	return opf(func(r *run) {
		v := r.vars[j]
		if v.upload == nil {
			return
		}
		at := repo
		if at == "" {
			at = v.repo
		}
		u, err := r.sys.blobs.Lookup(r.ctx, at, v.real.ID)
		next, want := r.model.lookup(v.value, at)
		r.same(r.answer(err), want)
		if want == ok {
			r.sameUpload(u, next)
			r.vars[i] = variable{value: next, real: u}
		}
	}, "u%d = lookup(u%d%s)", i, j, what)
}

func drawAppend(d draws) op {
	i, j, chunk := drawVariable(d), drawVariable(d), drawChunk(d)
	start, broken, what := int64(0), false, ""
	switch {
	case drawSeldom(d):
		start, what = 1, " at one byte too far"
	case drawSeldom(d):
		broken, what = true, " of a reader that fails"
	}
	return opf(func(r *run) {
		v := r.vars[j]
		if !v.plain() {
			return
		}
		u, err := blob.Append(r.ctx, r.sys.blobs, v.real, v.real.Size+start, readerOf(chunk, broken))
		if broken {
			want := []string{readerFailed}
			if answer := v.check(); answer != ok {
				want = append(want, answer)
			}
			r.same(r.answer(err), want...)
			return
		}
		next, want := r.model.append(v.value, start == 0, chunk)
		r.same(r.answer(err), want)
		if want == ok {
			r.vars[i] = variable{value: next, real: u}
		}
	}, "u%d = append(u%d, %q%s)", i, j, chunk, what)
}

func drawStage(d draws) op {
	i, j, chunk := drawVariable(d), drawVariable(d), drawChunk(d)
	return opf(func(r *run) {
		v := r.vars[j]
		if !v.plain() {
			return
		}
		next, want := r.model.stage(v.value, chunk), v.check()
		u, err := r.sys.blobs.Append(r.ctx, v.real, strings.NewReader(chunk))
		if want == blobConflict { // which Save would find out at the latest
			r.same(r.answer(err), want, ok)
			return
		}
		r.same(r.answer(err), want)
		if want == ok {
			u.Hash = hashOf(next)
			r.same(fmt.Sprint(u.Size, " bytes"), fmt.Sprint(len(next.content), " bytes"))
			r.vars[i] = variable{value: next, real: u, old: v.real}
		}
	}, "u%d = append(u%d, %q) without save", i, j, chunk)
}

func drawSave(d draws) op {
	i := drawVariable(d)
	return opf(func(r *run) {
		v := &r.vars[i]
		if !v.unsaved() {
			return
		}
		want := r.model.save(v.value)
		r.same(r.answer(r.sys.blobs.Save(r.ctx, v.old, v.real)), want)
		if want == ok {
			*v = variable{value: v.current(), real: v.real}
		} else {
			v.clear() // who loses loses the bytes too
		}
	}, "save(u%d)", i)
}

func drawCommit(d draws) op {
	i := drawVariable(d)
	return opf(func(r *run) {
		v := r.vars[i]
		if v.upload == nil {
			return
		}
		old := v.real
		if v.unsaved() {
			old = v.old
		}
		err := r.sys.blobs.Commit(r.ctx, old, v.real, digestOf(v.value))
		r.same(r.answer(err), r.model.commit(v.value, digestOf(v.value)))
		if v.unsaved() {
			r.vars[i].clear()
		}
	}, "commit(u%d)", i)
}

func drawFinish(d draws) op {
	i, more, other := drawVariable(d), drawBool(d), drawSeldom(d)
	wrong := !other && drawSeldom(d)
	chunk, what := "", ""
	if more {
		chunk = drawChunk(d)
		what = fmt.Sprintf(", %q", chunk)
	}
	if other {
		what += ", digest of the other algorithm"
	}
	if wrong {
		what += ", wrong digest"
	}
	return opf(func(r *run) {
		v := r.vars[i]
		if !v.plain() || wrong && v.check() != ok {
			return
		}
		last := r.model.stage(v.value, chunk)
		alg := v.alg
		if other {
			if alg = digest.SHA512; v.alg == alg {
				alg = digest.SHA256
			}
		}
		dgst := alg.FromString(last.content)
		if wrong {
			dgst = alg.FromString(last.content + "!")
		}
		var reader io.Reader
		if more {
			reader = strings.NewReader(chunk)
		}
		err := blob.Finish(r.ctx, r.sys.blobs, v.real, -1, reader, dgst)
		if wrong {
			r.same(r.answer(err), blobDigest)
			return
		}
		r.same(r.answer(err), r.model.commit(last, dgst))
	}, "finish(u%d%s)", i, what)
}

func drawAbort(d draws) op {
	i := drawVariable(d)
	return opf(func(r *run) {
		v := r.vars[i]
		if v.plain() {
			r.same(r.answer(r.sys.blobs.Abort(r.ctx, v.real)), r.model.abort(v.value))
		}
	}, "abort(u%d)", i)
}

func drawReread(d draws) op {
	i := drawVariable(d)
	return opf(func(r *run) {
		v := r.vars[i]
		s, is := blob.As[blob.Rereader](r.sys.blobs)
		if v.upload == nil || !is {
			return
		}
		r.same(r.reread(s, v.real), r.model.reread(v.value)...)
	}, "reread(u%d)", i)
}

func (r *run) reread(s blob.Rereader, u blob.Upload) string {
	content, err := s.Reread(r.ctx, u)
	if err != nil {
		return r.answer(err)
	}
	text, err := io.ReadAll(content)
	if err = errors.Join(err, content.Close()); err != nil {
		return r.answer(err)
	}
	return quote(string(text))
}

func drawSessions(d draws) op {
	i := drawVariable(d)
	return opf(func(r *run) { r.sessions(&r.vars[i]) }, "sessions(after u%d)", i)
}

// sessions compares the listing of all sessions, or of those after one.
func (r *run) sessions(v *variable) {
	s, is := blob.As[blob.SessionLister](r.sys.blobs)
	if !is {
		return
	}
	last := ""
	if v != nil && v.upload != nil {
		last = v.real.ID
	}
	listed, prev := map[*upload]bool{}, last
	for u, err := range s.Sessions(r.ctx, last) {
		r.same(r.answer(err), ok)
		if u.ID <= prev {
			r.same("sessions out of order", "ascending IDs")
		}
		prev = u.ID
		known := r.ids[u.ID]
		if known == nil || known.ended {
			r.same("a session that is not there", "those that are")
		}
		r.sameUpload(u, known.current())
		listed[known] = true
	}
	for id, u := range r.ids {
		if u.saved && !u.ended && id > last && !listed[u] {
			r.same("a session is not listed", "all that were saved")
		}
	}
}

// settle makes an end of what Append made and nobody saved, where it is lost or
// not as the store likes: a sweep may have come before the Save, or the end of
// the process. If it can be saved, its bytes must be there; if not, the session
// must be as it was.
func (r *run) settle(lost func(*variable) bool) {
	for i := range r.vars {
		v := &r.vars[i]
		if !v.unsaved() || !lost(v) {
			continue
		}
		if v.check() == ok && v.saved {
			if r.sys.blobs.Save(r.ctx, v.old, v.real) == nil {
				r.model.save(v.value)
			}
			u, err := r.sys.blobs.Lookup(r.ctx, v.repo, v.real.ID)
			r.same(r.answer(err), ok)
			r.sameUpload(u, v.current())
			if s, is := blob.As[blob.Rereader](r.sys.blobs); is {
				r.same(r.reread(s, u), quote(v.upload.content))
			}
			r.same(r.answer(r.sys.blobs.Abort(r.ctx, u)), r.model.abort(v.current()))
		}
		v.clear()
	}
}

// endUnsaved makes an end of sessions that a restart may have ended, or not.
func (r *run) endUnsaved() {
	for id, u := range r.ids {
		if u.ended || u.saved {
			continue
		}
		left, err := r.sys.blobs.Lookup(r.ctx, u.repo, id)
		r.same(r.answer(err), ok, uploadNotFound)
		if err == nil {
			r.same(r.answer(r.sys.blobs.Abort(r.ctx, left)), ok)
		}
		u.ended = true
	}
}

//go:build linux

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// plan is what the traced process is told.
type plan struct {
	Store    string
	Dir      string
	Said     string // the file that it says things to
	Seed     uint64
	Ops      int
	Workers  int
	Unsynced bool // a mutant: the store does not sync
	Early    bool // a mutant: success is told before the operation
}

// said is a line of the traced process: an operation begins, or has ended.
type said struct {
	Op   int    `json:"op"`
	What string `json:"what,omitempty"` // it begins
	// By object, what it may be after a success: "" is absent. Until the end it
	// may also be what it was before.
	After  map[string][]string `json:"after,omitempty"`
	Touch  []string            `json:"touch,omitempty"` // the blobs that a success touches,
	At     time.Time           `json:"at,omitzero"`     // now
	Bytes  map[string]int      `json:"bytes,omitempty"` // by object, which content
	Raw    map[string]string   `json:"raw,omitempty"`   // manifests by digest
	Done   bool                `json:"done,omitempty"`  // it has ended, with success
	Failed string              `json:"failed,omitempty"`
}

var sizes = []int{0, 1, 100, 511, 3000, 4096, 5001, 20_000, 70_000, 256 << 10, 256<<10 + 1, 300, 900_000, 1<<20 + 3, 64, 1000}

const contents = 64

var content [contents]struct {
	once   sync.Once
	bytes  []byte
	digest digest.Digest
}

// bytesOf returns one of a fixed set of contents.
func bytesOf(i int) []byte {
	c := &content[i]
	c.once.Do(func() {
		c.bytes = make([]byte, sizes[i%len(sizes)]+i/len(sizes))
		rand.NewChaCha8([32]byte{byte(i)}).Read(c.bytes)
		c.digest = digest.FromBytes(c.bytes)
	})
	return c.bytes
}

func digestOf(i int) digest.Digest {
	bytesOf(i)
	return content[i].digest
}

// object names what is promised something.
func object(kind, repo, name string) string { return kind + " " + repo + " " + name }

func there(size int) []string { return []string{strconv.Itoa(size)} }

// history is what the traced process does.
type history struct {
	plan
	*store
	mu   sync.Mutex
	said *os.File
	op   int
}

func runHistory(p plan) error {
	said, err := os.OpenFile(p.Said, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	h := &history{plan: p, said: said}
	if h.store, err = stores[p.Store](p.Dir, lease, p.Unsynced); err != nil {
		return err
	}
	failed := make(chan error, p.Workers)
	for i := range p.Workers {
		go func() { failed <- newWorker(h, i).run() }()
	}
	for range p.Workers {
		err = errors.Join(err, <-failed)
	}
	return errors.Join(err, h.close())
}

func (h *history) say(s said) error {
	line, err := json.Marshal(s)
	if err == nil {
		_, err = h.said.Write(append(line, '\n'))
	}
	return err
}

// do says that an operation begins, does it, and says how it has ended.
func (h *history) do(s said, do func() error) (done bool, err error) {
	h.mu.Lock()
	h.op++
	s.Op, s.At = h.op, time.Now()
	err = h.say(s)
	h.mu.Unlock()
	end := said{Op: s.Op, Done: true}
	if err == nil && h.Early {
		err = h.say(end)
	}
	if err != nil {
		return false, err
	}
	if err = do(); err != nil {
		end.Done, end.Failed = false, err.Error()
		if !errors.Is(err, blob.ErrConflict) && !errors.Is(err, manifest.ErrConflict) {
			return false, fmt.Errorf("operation %d, %s: %w", s.Op, s.What, err)
		}
	}
	if h.Early {
		return end.Done, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return end.Done, h.say(end)
}

// worker has repositories of its own, and so knows what is in them.
type worker struct {
	*history
	ctx     context.Context
	rand    *rand.Rand
	repos   []string
	in      map[string]*repository
	uploads []*upload
}

type repository struct {
	blobs     map[int]bool
	manifests map[digest.Digest]ocispec.Descriptor
	tags      map[string]digest.Digest
}

type upload struct {
	blob.Upload
	content int
	saved   bool // before, it may end with the process
}

func newWorker(h *history, i int) *worker {
	w := &worker{history: h, ctx: context.Background(), rand: rand.New(rand.NewPCG(h.Seed, uint64(i))), in: map[string]*repository{}}
	for _, name := range []string{"app", "team/app", "team/" + strings.Repeat("long/", 40) + "app"} {
		repo := fmt.Sprintf("w%d/%s", i, name)
		w.repos = append(w.repos, repo)
		w.in[repo] = &repository{map[int]bool{}, map[digest.Digest]ocispec.Descriptor{}, map[string]digest.Digest{}}
	}
	return w
}

func (w *worker) run() error {
	blobOps := []func(string) error{w.put, w.put, w.put, w.mount, w.begin, w.begin, w.chunk, w.chunk, w.chunk, w.finish, w.abort, w.touch, w.deleteBlob, w.sweepAll, w.reopen}
	manifestOps := []func(string) error{w.pushImage, w.pushImage, w.pushImage, w.pushIndex, w.moveTag, w.moveTag, w.deleteTag, w.deleteManifest}
	for range w.Ops {
		ops := blobOps
		if w.manifests != nil && w.rand.IntN(2) == 0 {
			ops = manifestOps
		}
		if err := ops[w.rand.IntN(len(ops))](pick(w, w.repos)); err != nil {
			return err
		}
	}
	return nil
}

func pick[T any](w *worker, from []T) T { return from[w.rand.IntN(len(from))] }

// pickKey is deterministic, as far as keys are.
func pickKey[K ~string | ~int, V any](w *worker, from map[K]V) (k K, ok bool) {
	if len(from) == 0 {
		return k, false
	}
	return pick(w, slices.Sorted(maps.Keys(from))), true
}

func (w *worker) blobSaid(what, repo string, i int) said {
	o := object("blob", repo, string(digestOf(i)))
	return said{What: what + " " + o, After: map[string][]string{o: there(len(bytesOf(i)))}, Touch: []string{o}, Bytes: map[string]int{o: i}}
}

func (w *worker) put(repo string) error {
	i := w.rand.IntN(contents)
	done, err := w.do(w.blobSaid("put", repo, i), func() error {
		return blob.Put(w.ctx, w.blobs, repo, ocispec.Descriptor{Digest: digestOf(i), Size: int64(len(bytesOf(i)))}, bytes.NewReader(bytesOf(i)))
	})
	if done {
		w.in[repo].blobs[i] = true
	}
	return err
}

func (w *worker) mount(repo string) error {
	from := pick(w, w.repos)
	i, ok := pickKey(w, w.in[from].blobs)
	if !ok {
		return w.put(repo)
	}
	done, err := w.do(w.blobSaid("mount", repo, i), func() error { return blob.Mount(w.ctx, w.blobs, from, repo, digestOf(i)) })
	if done {
		w.in[repo].blobs[i] = true
	}
	return err
}

func (w *worker) touch(repo string) error {
	i, ok := pickKey(w, w.in[repo].blobs)
	if !ok {
		return w.put(repo)
	}
	_, err := w.do(w.blobSaid("touch", repo, i), func() error {
		infos, err := w.blobs.Stat(w.ctx, repo, []digest.Digest{digestOf(i)})
		if err == nil && infos[0].Digest == "" {
			err = errors.New("is not there")
		}
		return err
	})
	return err
}

func (w *worker) deleteBlob(repo string) error {
	i, ok := pickKey(w, w.in[repo].blobs)
	if !ok {
		return w.put(repo)
	}
	s := w.blobSaid("delete", repo, i)
	s.After[s.Touch[0]], s.Touch = []string{""}, nil
	done, err := w.do(s, func() error { return w.blobs.Delete(w.ctx, repo, digestOf(i), time.Time{}) })
	if done {
		delete(w.in[repo].blobs, i)
	}
	return err
}

func (w *worker) begin(repo string) error {
	u := &upload{content: w.rand.IntN(contents)}
	_, err := w.do(said{What: "begin in " + repo}, func() (err error) {
		u.Upload, err = w.blobs.Begin(w.ctx, repo, digest.SHA256)
		return err
	})
	w.uploads = append(w.uploads, u)
	return err
}

// upload takes one out of the list.
func (w *worker) upload() *upload {
	i := w.rand.IntN(len(w.uploads))
	u := w.uploads[i]
	w.uploads = slices.Delete(w.uploads, i, i+1)
	return u
}

func (u *upload) said(what string, after ...string) said {
	o := object("upload", u.Repo, u.ID)
	return said{What: what + " " + o, After: map[string][]string{o: after}, Bytes: map[string]int{o: u.content}}
}

func (w *worker) chunk(repo string) error {
	if len(w.uploads) == 0 {
		return w.begin(repo)
	}
	u := w.upload()
	rest := bytesOf(u.content)[u.Size:]
	chunk := rest[:w.rand.IntN(len(rest)+1)]
	_, err := w.do(u.said("append", there(int(u.Size)+len(chunk))...), func() (err error) {
		u.Upload, err = blob.Append(w.ctx, w.blobs, u.Upload, u.Size, bytes.NewReader(chunk))
		return err
	})
	u.saved = true
	w.uploads = append(w.uploads, u)
	return err
}

func (w *worker) finish(repo string) error {
	if len(w.uploads) == 0 {
		return w.begin(repo)
	}
	u := w.upload()
	s := w.blobSaid("finish", u.Repo, u.content)
	maps.Copy(s.After, u.said("", "", strconv.FormatInt(u.Size, 10)).After)
	var rest io.Reader = bytes.NewReader(bytesOf(u.content)[u.Size:])
	if u.Size == int64(len(bytesOf(u.content))) && w.rand.IntN(2) == 0 {
		rest = nil
	}
	done, err := w.do(s, func() error { return blob.Finish(w.ctx, w.blobs, u.Upload, u.Size, rest, digestOf(u.content)) })
	if done {
		w.in[u.Repo].blobs[u.content] = true
	}
	return err
}

func (w *worker) abort(repo string) error {
	if len(w.uploads) == 0 {
		return w.begin(repo)
	}
	u := w.upload()
	_, err := w.do(u.said("abort", "", strconv.FormatInt(u.Size, 10)), func() error { return w.blobs.Abort(w.ctx, u.Upload) })
	return err
}

func (w *worker) sweepAll(string) error {
	cutoff := time.Now().Add(-time.Hour)
	if w.Workers == 1 { // nothing is under way
		cutoff = time.Now().Add(time.Hour)
	}
	_, err := w.do(said{What: "sweep"}, func() error {
		_, err := w.sweep(w.ctx, cutoff)
		return err
	})
	return err
}

func (w *worker) reopen(repo string) error {
	if w.Workers > 1 {
		return w.put(repo)
	}
	w.uploads = slices.DeleteFunc(w.uploads, func(u *upload) bool { return !u.saved })
	_, err := w.do(said{What: "close and open"}, func() error {
		err := w.close()
		if err == nil {
			w.store, err = stores[w.Store](w.Dir, lease, w.Unsynced)
		}
		return err
	})
	return err
}

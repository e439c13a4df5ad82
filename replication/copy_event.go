package replication

import (
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Event is a step of a copy.
type Event struct {
	Kind  EventKind
	Repo  string             // at the target
	Desc  ocispec.Descriptor // of a manifest or blob
	Bytes int64              // how many of Desc have been read so far, for EventBytes; fewer than before after a failure
	Total Total              // of the whole call, this event included
}

// EventKind is what has happened to a manifest or blob.
type EventKind string

// The kinds. Each manifest and blob is found once, and has one of the last four
// at its end, unless the copy fails.
const (
	EventFound   EventKind = "found"
	EventBegan   EventKind = "began" // to be transferred
	EventBytes   EventKind = "bytes"
	EventSent    EventKind = "sent"
	EventMounted EventKind = "mounted"
	EventPresent EventKind = "present"
	EventSkipped EventKind = "skipped"
)

// Total is how far a copy is. Objects and Bytes grow while there is more found.
type Total struct {
	Objects, Done    int   // manifests and blobs
	Bytes, DoneBytes int64 // of those whose size is known
}

// bar is the Total of a call, and who is told.
type bar struct {
	mu    sync.Mutex
	total Total
	on    func(Event)
}

// add changes the Total and tells of it.
func (b *bar) add(e Event, change func(*Total)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.total)
	if b.on != nil {
		e.Total = b.total
		b.on(e)
	}
}

// state is what a run knows of an object.
type state struct {
	size, got int64
	ended     bool
}

// visit finds an object, and tells whether it was new to this run.
func (r *run) visit(desc ocispec.Descriptor, isManifest bool) (first bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := object{dgst: desc.Digest, manifest: isManifest}
	if r.objects[o] != nil {
		return false, nil
	}
	if len(r.objects) >= r.maxObjects() {
		return false, r.overBudget("objects", len(r.objects))
	}
	r.objects[o] = &state{size: max(desc.Size, 0)}
	r.bar.add(r.event(EventFound, desc), func(t *Total) {
		t.Objects++
		t.Bytes += max(desc.Size, 0)
	})
	return true, nil
}

func (r *run) event(kind EventKind, desc ocispec.Descriptor) Event {
	return Event{Kind: kind, Repo: r.to, Desc: desc}
}

// began and progress tell how far an object is.
func (r *run) began(desc ocispec.Descriptor, isManifest bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	unknown := int64(0)
	if s := r.objects[object{dgst: desc.Digest, manifest: isManifest}]; s != nil && s.size == 0 && !s.ended {
		unknown, s.size = max(desc.Size, 0), max(desc.Size, 0)
	}
	r.bar.add(r.event(EventBegan, desc), func(t *Total) { t.Bytes += unknown })
}

func (r *run) progress(desc ocispec.Descriptor, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.objects[object{dgst: desc.Digest}]
	if s == nil || s.ended {
		return
	}
	more := min(bytes, s.size) - min(s.got, s.size)
	s.got = bytes
	e := r.event(EventBytes, desc)
	e.Bytes = bytes
	r.bar.add(e, func(t *Total) { t.DoneBytes += more })
}

// settle ends an object, once, and tells whether this was the time.
func (r *run) settle(desc ocispec.Descriptor, isManifest bool, how EventKind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.objects[object{dgst: desc.Digest, manifest: isManifest}]
	if s == nil || s.ended {
		return false
	}
	s.ended = true
	tally := &r.result.Blobs
	if isManifest {
		tally = &r.result.Manifests
	}
	tally.add(Received(how), desc.Size)
	r.bar.add(r.event(how, desc), func(t *Total) {
		t.Done++
		t.DoneBytes += s.size - min(s.got, s.size)
	})
	return true
}

func (r *run) skip(desc ocispec.Descriptor, isManifest bool, why error) {
	if r.settle(desc, isManifest, EventSkipped) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.result.Skipped = append(r.result.Skipped, Skipped{desc, why})
	}
}

package replication

import (
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
	r.total.Objects++
	r.total.Bytes += max(desc.Size, 0)
	r.emit(EventFound, desc, 0)
	return true, nil
}

// began and progress tell how far an object is.
func (r *run) began(desc ocispec.Descriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.emit(EventBegan, desc, 0)
}

func (r *run) progress(desc ocispec.Descriptor, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.objects[object{dgst: desc.Digest}]
	if s == nil || s.ended {
		return
	}
	r.total.DoneBytes += min(bytes, s.size) - min(s.got, s.size)
	s.got = bytes
	r.emit(EventBytes, desc, bytes)
}

// settle ends an object, once, and tells whether this was the time. A size that was not known before is added.
func (r *run) settle(desc ocispec.Descriptor, isManifest bool, how EventKind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.objects[object{dgst: desc.Digest, manifest: isManifest}]
	if s == nil || s.ended {
		return false
	}
	s.ended = true
	if s.size == 0 && desc.Size > 0 {
		s.size = desc.Size
		r.total.Bytes += s.size
	}
	r.total.Done++
	r.total.DoneBytes += s.size - min(s.got, s.size)
	tally := &r.result.Blobs
	if isManifest {
		tally = &r.result.Manifests
	}
	tally.add(Received(how), desc.Size)
	r.emit(how, desc, 0)
	return true
}

func (r *run) skip(desc ocispec.Descriptor, isManifest bool, why error) {
	if r.settle(desc, isManifest, EventSkipped) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.result.Skipped = append(r.result.Skipped, Skipped{desc, why})
	}
}

func (r *run) emit(kind EventKind, desc ocispec.Descriptor, bytes int64) {
	if r.o.OnEvent != nil {
		r.o.OnEvent(Event{Kind: kind, Repo: r.to, Desc: desc, Bytes: bytes, Total: r.total})
	}
}

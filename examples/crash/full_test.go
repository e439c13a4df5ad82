//go:build linux

package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mount makes dir a file system in memory of so many MiB. It is false if that
// needs rights that the test does not have, and it has run again in a process
// that has them.
func mount(t *testing.T, dir string, size int) bool {
	t.Helper()
	const variable = "WHARFAGE_CRASH_NAMESPACE"
	err := syscall.Mount("crash", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size))
	if err == nil {
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		return true
	}
	if os.Getenv(variable) != "" || exec.Command("unshare", "-rm", "true").Run() != nil {
		lack(t, "mount: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-rm", self, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"=1")
	text, err := cmd.CombinedOutput()
	t.Logf("in a namespace of its own:\n%s", text)
	if err != nil {
		t.Error(err)
	}
	return false
}

// TestFullDisk: a registry without space refuses in good order, loses nothing, starts,
// and goes on when there is space again.
func TestFullDisk(t *testing.T) {
	ctx, disk := t.Context(), t.TempDir()
	if !mount(t, disk, 16) {
		return
	}
	filler, data := filepath.Join(disk, "filler"), filepath.Join(disk, "data")
	if err := os.WriteFile(filler, make([]byte, 4<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	l := newLedger()
	p := newPusher(l, "w0/app", *firstSeed)
	s := start(t, "-data", data)

	refused := map[int]int{} // by status
	put := func(content []byte) bool {
		t.Helper()
		return !full(t, refused, p.put(ctx, s, content, 0))
	}
	push := func(tag, note string) bool {
		t.Helper()
		raw, dgst, err := image([][]byte{shared}, note)
		if err != nil {
			t.Fatal(err)
		}
		after := map[string][]string{object("manifest", p.repo, string(dgst)): there(len(raw)), object("tag", p.repo, tag): {string(dgst)}}
		return !full(t, refused, l.do("push", after, func() error { return s.putManifest(ctx, p.repo, tag, raw) }))
	}
	if !put(shared) || !push("old", "first") {
		t.Fatal("nothing can be pushed")
	}
	was, dgst, err := s.get(ctx, p.repo, "manifests", "old")
	if err != nil || was == nil {
		t.Fatal(err)
	}
	n := 0
	for size := 300_000; size > 0; size /= 4 {
		for put(append(make([]byte, size), fmt.Sprint(n)...)) {
			n++
		}
	}
	for push(fmt.Sprintf("v%d", n), fmt.Sprint(n)) {
		n++
	}
	moved := 0
	for i := range 50 {
		if push("old", fmt.Sprint("overwritten ", i)) {
			moved++
		}
		_, have, err := s.get(ctx, p.repo, "manifests", "old")
		if err != nil || have == "" || moved == 0 && have != dgst {
			t.Fatalf("overwritten %d times, of which %d were acknowledged, the tag is at %q: %v", i+1, moved, have, err)
		}
	}
	// A refusal says that nothing happened.
	l.mu.Lock()
	for op := range l.under {
		l.fold(said{Op: op})
	}
	l.mu.Unlock()
	if err := l.check(ctx, s, true); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("stopped while the disk is full: %v", err)
	}
	s = start(t, "-data", data)
	if err := l.check(ctx, s, true); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	before := len(refused)
	put([]byte("still full"))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 1<<20)
	if !put(content) || !push("new", "after") || !push("old", "after all") {
		t.Errorf("space is back, and pushes are refused: %v, %d", refused, before)
	}
	if err := l.check(ctx, s, true); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v; of 50 tag moves on a full disk %d were acknowledged; refused, by status: %v", l, moved, refused)
	noStrayFiles(t, data)
}

// full tells whether err is an answer that there is no space.
func full(t *testing.T, refused map[int]int, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	var e *statusError
	if !errors.As(err, &e) {
		t.Fatalf("not an answer: %v", err)
	}
	refused[e.status]++
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if e.status != http.StatusInsufficientStorage && e.status != http.StatusInternalServerError ||
		!strings.HasPrefix(e.header.Get("Content-Type"), "application/json") ||
		json.Unmarshal(e.body, &body) != nil || len(body.Errors) == 0 || body.Errors[0].Code == "" {
		t.Errorf("not an answer for a full disk: %v", e)
	}
	return true
}

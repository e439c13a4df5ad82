//go:build linux

package crash

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var large = flag.Int64("large", 64, "size of large blobs in MiB")

// TestDrain: a registry that is asked to stop finishes the uploads and
// downloads under way, and takes no new ones.
func TestDrain(t *testing.T) {
	ctx, data := t.Context(), filepath.Join(t.TempDir(), "data")
	s := start(t, "-data", data)
	down := make([]byte, 16<<20) // more than sockets hold
	rand.NewChaCha8([32]byte{1}).Read(down)
	up := down[1 : 1<<20]
	if err := s.putBlob(ctx, "app", down, 0); err != nil {
		t.Fatal(err)
	}

	resp, err := s.client.Get("http://" + s.addr + "/v2/app/blobs/" + string(digest.FromBytes(down)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		t.Fatal(err)
	}

	h, _, err := s.do(ctx, http.StatusAccepted, "POST", "/v2/app/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	body, rest := io.Pipe()
	reading := make(chan struct{})
	trace := &httptrace.ClientTrace{Got100Continue: func() { close(reading) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), "PUT", s.locate(h)+"digest="+string(digest.FromBytes(up)), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	req.ContentLength = int64(len(up))
	s.client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	answer := make(chan error, 1)
	go func() {
		resp, err := s.client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				err = errors.New(resp.Status)
			}
		}
		answer <- err
	}()
	<-reading
	if _, err := rest.Write(up[:1000]); err != nil {
		t.Fatal(err)
	}

	s.cmd.Process.Signal(syscall.SIGTERM)
	for { // until the listener is closed
		conn, err := net.Dial("tcp", s.addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			conn.Close()
		}
	}
	if _, err := rest.Write(up[1000:]); err != nil {
		t.Fatal(err)
	}
	rest.Close()
	if err := <-answer; err != nil {
		t.Errorf("the upload under way: %v", err)
	}
	others, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(append(got, others...), down) {
		t.Errorf("the download under way: %d of %d bytes, %v", len(got)+len(others), len(down), err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("stopped with %v\n%s", err, s.text())
	}
	s = start(t, "-data", data)
	if have, _, err := s.get(ctx, "app", "blobs", string(digest.FromBytes(up))); err != nil || !bytes.Equal(have, up) {
		t.Errorf("what was uploaded last: %d bytes, %v", len(have), err)
	}
}

// TestLargeBlobs: a blob of any size passes through a registry in little
// memory, up and down, several at once.
func TestLargeBlobs(t *testing.T) {
	const streams = 8
	const most = 64 + streams // MiB
	ctx := t.Context()
	s := start(t, "-data", filepath.Join(t.TempDir(), "data"))
	size := *large << 20
	var all sync.WaitGroup
	for i := range streams {
		all.Go(func() {
			if err := s.large(ctx, byte(i), size); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	all.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmHWM: %d kB", &kib)
	}
	if t.Logf("%d blobs of %d MiB, up and down at once: %d KiB resident at most", streams, *large, kib); kib == 0 || kib > most<<10 {
		t.Errorf("%d KiB resident, more than %d MiB", kib, most)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// large pushes a blob in one request or two, and pulls it.
func (s *server) large(ctx context.Context, seed byte, size int64) error {
	content := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size) }
	dgst, err := digest.FromReader(content())
	if err != nil {
		return err
	}
	h, _, err := s.do(ctx, http.StatusAccepted, "POST", "/v2/app/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	body, rest := content(), size
	if seed%2 == 1 {
		if h, _, err = s.send(ctx, http.StatusAccepted, "PATCH", s.locate(h), "", io.LimitReader(body, size/2), size/2); err != nil {
			return err
		}
		rest = size - size/2
	}
	if _, _, err = s.send(ctx, http.StatusCreated, "PUT", s.locate(h)+"digest="+string(dgst), "", body, rest); err != nil {
		return err
	}
	resp, err := s.client.Get("http://" + s.addr + "/v2/app/blobs/" + string(dgst))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := digest.FromReader(resp.Body)
	if err == nil && got != dgst {
		err = fmt.Errorf("%s: pulled %s, pushed %s", resp.Status, got, dgst)
	}
	return err
}

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trickle yields n bytes, one at a time, with a pause before each. It is on a
// real connection, whose deadlines no bubble of synctest covers.
type trickle struct {
	n     int
	pause time.Duration
}

func (s *trickle) Read(p []byte) (int, error) {
	if s.n--; s.n < 0 {
		return 0, io.EOF
	}
	<-time.After(s.pause)
	p[0] = 'x'
	return 1, nil
}

// TestIdleEndsOnlyWhatStandsStill: a body that takes several times the timeout
// gets its answer, and one that stops is ended.
func TestIdleEndsOnlyWhatStandsStill(t *testing.T) {
	const timeout = 3 * time.Second // long beside what a busy machine adds to a pause
	server := httptest.NewServer(idle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Length", strings.Repeat("x", int(n)))
		w.WriteHeader(http.StatusAccepted)
	}), timeout))
	defer server.Close()
	resp, err := http.Post(server.URL, "", &trickle{n: 40, pause: timeout / 30})
	if err != nil || resp.StatusCode != http.StatusAccepted || len(resp.Header.Get("X-Length")) != 40 {
		t.Errorf("a slow body: %v, %v", resp, err)
	}

	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\npart")
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("a body that stops: %q, %v", answer, err)
	}
}

// TestIdleLetsSlowReadersRead: a client that never stands still gets all of a file, and of
// one long write, that it takes longer for than the timeout, as its line is slow.
func TestIdleLetsSlowReadersRead(t *testing.T) {
	t.Run("file", func(t *testing.T) { slowReader(t, io.Copy) })
	t.Run("write", func(t *testing.T) {
		slowReader(t, func(w io.Writer, r io.Reader) (int64, error) {
			b, err := io.ReadAll(r)
			if err == nil {
				_, err = w.Write(b)
			}
			return int64(len(b)), err
		})
	})
}

func slowReader(t *testing.T, send func(io.Writer, io.Reader) (int64, error)) {
	t.Parallel()
	const timeout, size, atOnce = 3 * time.Second, 9 << 20, 64 << 10
	name := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(idle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(name)
		if err == nil {
			defer f.Close()
			_, err = send(w, f)
		}
		if err != nil {
			t.Log(err)
		}
	}), timeout))
	// Else most of the file would wait in the buffers of the connection.
	small := func(c net.Conn) {
		c.(*net.TCPConn).SetWriteBuffer(atOnce)
		c.(*net.TCPConn).SetReadBuffer(atOnce)
	}
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			small(c)
		}
	}
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	small(conn)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n")
	var got int64
	for err == nil {
		<-time.After(time.Second / 32) // 2 MiB a second
		var n int64
		n, err = io.CopyN(io.Discard, conn, atOnce)
		got += n
	}
	if err != io.EOF || got < size {
		t.Errorf("%d bytes of %d, %v", got, size, err)
	}
}

//go:build linux

package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// client is one connection. It costs a fraction of what net/http's client does,
// and so takes little from a server on the same cores.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(addr string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(5 * time.Minute)) // a server that hangs ends the benchmark
	return &client{conn, bufio.NewReaderSize(conn, 256<<10)}, nil
}

const host = "registry.example"

// do sends a request and returns the head of the answer, having read all of it.
// An answer other than want is an error.
func (c *client) do(want int, method, uri, contentType string, body net.Buffers) (*http.Response, error) {
	switch {
	case contentType != "":
		contentType = "Content-Type: " + contentType + "\r\n"
	case method == "GET": // distribution has no OCI manifest for who does not ask for it
		contentType = "Accept: " + manifest.MediaTypeImage + ", */*\r\n"
	}
	head := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: "+host+"\r\n%sContent-Length: %d\r\n\r\n", method, uri, contentType, length(body))
	request := append(net.Buffers{head}, body...)
	if _, err := request.WriteTo(c.conn); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want || resp.ContentLength < 0 {
		return nil, fmt.Errorf("%s %s: %s, length %d", method, uri, resp.Status, resp.ContentLength)
	}
	_, err = c.r.Discard(int(resp.ContentLength)) // unlike a read, without a copy
	return resp, err
}

func length(b net.Buffers) (n int) {
	for _, p := range b {
		n += len(p)
	}
	return n
}

// put pushes a blob in two requests.
func (c *client) put(repo string, dgst digest.Digest, body net.Buffers) error {
	resp, err := c.do(http.StatusAccepted, "POST", repo+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	uri, query := resp.Header.Get("Location"), "?"
	uri = strings.TrimPrefix(uri, "http://"+host)
	if strings.Contains(uri, "?") {
		query = "&"
	}
	_, err = c.do(http.StatusCreated, "PUT", uri+query+"digest="+string(dgst), "application/octet-stream", body)
	return err
}

// get pulls.
func (c *client) get(uri string, want int) error {
	resp, err := c.do(http.StatusOK, "GET", uri, "", nil)
	if err == nil && resp.ContentLength != int64(want) {
		err = fmt.Errorf("GET %s: %d bytes, not %d", uri, resp.ContentLength, want)
	}
	return err
}

// filler stands in for layers, which do not compress either.
var filler = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// layer makes up content of size bytes, with little memory, so that no other id
// has the same.
func layer(id uint64, size int) net.Buffers {
	b := net.Buffers{binary.LittleEndian.AppendUint64(nil, id)}
	for left := size - 8; left > 0; left -= len(filler) {
		b = append(b, filler[:min(left, len(filler))])
	}
	return b
}

func digestOfLayer(b net.Buffers) digest.Digest {
	d := digest.SHA256.Digester()
	for _, p := range b {
		d.Hash().Write(p)
	}
	return d.Digest()
}

// load calls job with 0 to n-1, from as many goroutines as there are
// connections, and returns how long that took.
func load(tb testing.TB, addr string, conns, n int, job func(c *client, i int) error) time.Duration {
	tb.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range conns {
		all.Go(func() {
			c, err := dial(addr)
			if err != nil {
				tb.Error(err)
				return
			}
			defer c.conn.Close()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := job(c, i); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	if tb.Failed() {
		tb.FailNow()
	}
	return took
}

package s3test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Kind is what goes wrong with a request.
type Kind string

// The kinds of faults.
const (
	Drop       Kind = "drop"        // it never arrives; the connection breaks
	CutRequest Kind = "cut request" // half of its body arrives, and both connections break
	Lose       Kind = "lose answer" // it is done, and the connection breaks
	CutAnswer  Kind = "cut answer"  // it is done, and half of the answer's body arrives
	SlowDown   Kind = "slow down"   // it is answered with 503
	Hold       Kind = "hold"        // it waits until it is released, also when the client has gone
)

// Fault is something that goes wrong once.
type Fault struct {
	Kind Kind
	Op   string // of S3: "PutObject", "UploadPart" …; "" means any
	Call int    // which request of Op, from 1

	Held    chan<- struct{} // closed when a request is held; may be nil
	Release <-chan struct{} // closed to let it go on
}

// Proxy stands before a Server: use it in place of its Endpoint. Requests reach
// the server as they were signed.
type Proxy struct {
	Endpoint string

	server    string // host and port
	transport *http.Transport

	mu     sync.Mutex
	faults []Fault
	counts map[string]int
	struck int
	active sync.WaitGroup
}

// NewProxy returns a proxy until the test ends.
func NewProxy(t testing.TB, s Server) *Proxy {
	p := &Proxy{
		server:    strings.TrimPrefix(s.Endpoint, "http://"),
		transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		counts:    map[string]int{},
	}
	server := httptest.NewServer(p)
	p.Endpoint = server.URL
	t.Cleanup(func() {
		server.Close()
		p.transport.CloseIdleConnections()
	})
	return p
}

// Plan sets what is to go wrong, and starts to count anew.
func (p *Proxy) Plan(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.counts, p.struck = faults, map[string]int{}, 0
}

// Counts returns how many requests of each kind there were since Plan, and the
// sum under "".
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Struck returns how many faults have come about since Plan. A test whose fault
// never did has tested nothing.
func (p *Proxy) Struck() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck
}

func (p *Proxy) next(op string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[op]++
	p.counts[""]++
	for _, f := range p.faults {
		if (f.Op == "" || f.Op == op) && f.Call == p.counts[f.Op] {
			p.struck++
			return f
		}
	}
	return Fault{}
}

// operation names what S3 calls a request.
func operation(r *http.Request) string {
	q := r.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch r.Method {
	case "PUT":
		switch {
		case q.Has("partNumber"):
			return "UploadPart"
		case key == "":
			return "CreateBucket"
		}
		return "PutObject"
	case "POST":
		if q.Has("uploads") {
			return "CreateMultipartUpload"
		}
		return "CompleteMultipartUpload"
	case "DELETE":
		if q.Has("uploadId") {
			return "AbortMultipartUpload"
		}
		return "DeleteObject"
	case "HEAD":
		return "HeadObject"
	}
	switch {
	case q.Has("uploads"):
		return "ListMultipartUploads"
	case q.Has("list-type"):
		return "ListObjectsV2"
	}
	return "GetObject"
}

// Wait returns when no request is under way. No new one may come meanwhile.
func (p *Proxy) Wait() { p.active.Wait() }

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.active.Add(1)
	defer p.active.Done()
	fault := p.next(operation(r))
	out := r.Clone(r.Context()) // with its Host, which is signed
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", p.server, ""
	out.Header.Del("Expect") // answered here; not signed
	switch fault.Kind {
	case Drop:
		panic(http.ErrAbortHandler)
	case CutRequest:
		out.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), broken{}))
	case SlowDown:
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
		return
	case Hold:
		content, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		out = out.WithContext(context.WithoutCancel(r.Context()))
		out.Body = io.NopCloser(bytes.NewReader(content))
		if fault.Held != nil {
			close(fault.Held)
		}
		<-fault.Release
	}
	if out.ContentLength == 0 {
		out.Body = nil
	}
	answer, err := p.transport.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer answer.Body.Close()
	body := io.Reader(answer.Body)
	switch fault.Kind {
	case Lose, CutRequest:
		io.Copy(io.Discard, body)
		panic(http.ErrAbortHandler)
	case CutAnswer:
		content, err := io.ReadAll(body)
		if err != nil || len(content) < 2 {
			panic(http.ErrAbortHandler)
		}
		body = io.MultiReader(bytes.NewReader(content[:len(content)/2]), broken{})
	}
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	if _, err := io.Copy(w, body); err != nil {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// broken is a connection's end.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

package main

import (
	"io"
	"net/http"
	"time"
)

// idle ends requests whose client has stopped to send or to read for so long.
// There is no limit on the whole, since layers are large and lines are slow.
func idle(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &clock{http.NewResponseController(w), timeout}
		if r.Body != http.NoBody {
			r.Body = &idleBody{r.Body, c}
		}
		c.write()
		next.ServeHTTP(&idleWriter{w, c}, r)
	})
}

// clock puts off the deadlines of a connection.
type clock struct {
	*http.ResponseController
	timeout time.Duration
}

func (c *clock) read()  { c.SetReadDeadline(time.Now().Add(c.timeout)) }
func (c *clock) write() { c.SetWriteDeadline(time.Now().Add(c.timeout)) }

type idleBody struct {
	io.ReadCloser
	c *clock
}

func (b *idleBody) Read(p []byte) (int, error) {
	b.c.read()
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.c.SetReadDeadline(time.Time{}) // what is done with the body now may take its time
	}
	return n, err
}

type idleWriter struct {
	http.ResponseWriter
	c *clock
}

func (w *idleWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *idleWriter) WriteHeader(status int) {
	w.c.write()
	w.ResponseWriter.WriteHeader(status)
}

// piece crosses a slow line within the timeout: in a minute one of 70 kbit/s.
const piece = 512 << 10

func (w *idleWriter) Write(p []byte) (sent int, err error) {
	for {
		w.c.write()
		n, err := w.ResponseWriter.Write(p[:min(len(p), piece)])
		sent, p = sent+n, p[n:]
		if err != nil || len(p) == 0 {
			return sent, err
		}
	}
}

// ReadFrom hands on what the server can send without copying it, a part of a
// file, in pieces too.
func (w *idleWriter) ReadFrom(r io.Reader) (sent int64, err error) {
	part, ok := r.(*io.LimitedReader)
	if !ok {
		part = &io.LimitedReader{R: r, N: 1<<63 - 1}
	}
	for part.N > 0 {
		w.c.write()
		// Not nested in part: sendfile knows one LimitedReader, not two.
		next := &io.LimitedReader{R: part.R, N: min(part.N, piece)}
		n, err := io.Copy(w.ResponseWriter, next)
		sent += n
		part.N -= n
		if err != nil || next.N > 0 {
			return sent, err
		}
	}
	return sent, nil
}

package main

import (
	"io"
	"net/http"
	"time"
)

// idleTimeout is how long a connection may stand still while a body crosses it.
// There is no limit on the whole, since layers are large and lines are slow.
const idleTimeout = time.Minute

// idle ends requests whose client has stopped to send or to read.
func idle(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if r.Body != http.NoBody {
			r.Body = &idleBody{r.Body, c}
		}
		c.SetWriteDeadline(time.Now().Add(idleTimeout))
		next.ServeHTTP(&idleWriter{w, c}, r)
	})
}

type idleBody struct {
	io.ReadCloser
	c *http.ResponseController
}

func (b *idleBody) Read(p []byte) (int, error) {
	b.c.SetReadDeadline(time.Now().Add(idleTimeout))
	return b.ReadCloser.Read(p)
}

type idleWriter struct {
	http.ResponseWriter
	c *http.ResponseController
}

func (w *idleWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *idleWriter) Write(p []byte) (int, error) {
	w.c.SetWriteDeadline(time.Now().Add(idleTimeout))
	return w.ResponseWriter.Write(p)
}

// ReadFrom hands on what the server can send without copying it, a part of a
// file, in pieces that cross within the timeout.
func (w *idleWriter) ReadFrom(r io.Reader) (sent int64, err error) {
	const piece = 8 << 20
	part, ok := r.(*io.LimitedReader)
	if !ok {
		part = &io.LimitedReader{R: r, N: 1<<63 - 1}
	}
	for part.N > 0 {
		w.c.SetWriteDeadline(time.Now().Add(idleTimeout))
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

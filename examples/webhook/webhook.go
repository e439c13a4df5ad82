// Package webhook delivers events to a URL, as CloudEvents 1.0 in structured mode,
// signed as the Standard Webhooks specification (version 1) has it.
//
// A [Sender] tries again, waiting longer each time, and puts what nobody takes aside.
// Beside events.Drain it loses nothing:
//
//	n, err := events.Drain(ctx, outbox, origin, sender.Send)
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wharfage/wharfage/events"
)

// Sender posts events to a URL. URL is required. Its methods may be called from
// many goroutines at once.
type Sender struct {
	URL    string // from who runs the registry, never out of content
	Secret []byte // of the signature; without one it is left out

	// Client is used without following redirects. nil means http.DefaultClient.
	Client *http.Client

	Attempts int           // for each event; 0 means 8
	Backoff  time.Duration // before the second attempt; twice as much each time, and up to a half less, by chance; 0 means a second
	Longest  time.Duration // Backoff, or what the receiver asks for with Retry-After; 0 means a minute
	Timeout  time.Duration // of an attempt; 0 means 10 seconds

	// DeadLetter is given what was refused for good, or too often, and why. When it
	// returns nil, Send does too. nil lets Send return the error.
	DeadLetter func(ctx context.Context, e events.Event, why error) error
}

// StatusError is an answer other than 2xx.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("webhook: the answer is %d %s", e.Status, http.StatusText(e.Status))
}

// forGood tells whether another attempt is in vain.
func (e *StatusError) forGood() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.Status < 500
}

// Send delivers an event, and returns when it is taken, or put aside. Its error is
// that of the last attempt, of the DeadLetter, or of ctx, and then the event may have
// been delivered or not.
func (s *Sender) Send(ctx context.Context, e events.Event) error {
	c, err := e.CloudEvent()
	if err != nil {
		return err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	wait := orElse(s.Backoff, time.Second)
	longest := orElse(s.Longest, time.Minute)
	for attempt := 1; ; attempt++ {
		asked, err := s.attempt(ctx, e.ID, body)
		if err == nil || ctx.Err() != nil {
			return err
		}
		status, _ := errors.AsType[*StatusError](err)
		if status != nil && status.forGood() || attempt >= orElse(s.Attempts, 8) {
			if s.DeadLetter == nil {
				return err
			}
			return s.DeadLetter(ctx, e, err)
		}
		pause := min(wait, longest)
		pause = min(max(pause-rand.N(pause/2+1), asked), longest)
		wait = 2 * min(wait, longest)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

func orElse[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// attempt posts once. asked is how long the receiver wants to be left alone.
func (s *Sender) attempt(ctx context.Context, id string, body []byte) (asked time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, orElse(s.Timeout, 10*time.Second))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	now := time.Now()
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if len(s.Secret) > 0 {
		req.Header.Set("Webhook-Signature", sign(s.Secret, id, now.Unix(), body))
	}
	client := http.Client{}
	if s.Client != nil {
		client = *s.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	if resp.StatusCode/100 == 2 {
		return 0, nil
	}
	return retryAfter(resp.Header.Get("Retry-After"), time.Now()), &StatusError{resp.StatusCode}
}

// retryAfter reads seconds, or a date (RFC 9110 section 10.2.3). What is neither asks
// for nothing.
func retryAfter(v string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(v, 10, 32); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return at.Sub(now)
	}
	return 0
}

func sign(secret []byte, id string, at int64, body []byte) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s.%d.", id, at)
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// ErrSignature is a request that was not sent by who has the secret, or too long ago.
var ErrSignature = errors.New("webhook: wrong signature")

// Verify checks the signature of a request that was received, whose body is body,
// and that it was sent less than tolerance from now. Its error matches ErrSignature. The
// ID tells a delivery that comes a second time. Without a secret nothing passes.
func Verify(secret []byte, header http.Header, body []byte, now time.Time, tolerance time.Duration) (id string, err error) {
	if len(secret) == 0 {
		return "", fmt.Errorf("%w: there is no secret to check it with", ErrSignature)
	}
	id = header.Get("Webhook-Id")
	at, err := strconv.ParseInt(header.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || id == "" {
		return "", fmt.Errorf("%w: no ID, or no time", ErrSignature)
	}
	if age := now.Sub(time.Unix(at, 0)); age.Abs() > tolerance {
		return "", fmt.Errorf("%w: sent %v ago", ErrSignature, age)
	}
	want := []byte(sign(secret, id, at, body))
	for _, got := range strings.Fields(header.Get("Webhook-Signature")) { // several while a secret is being changed
		if hmac.Equal([]byte(got), want) {
			return id, nil
		}
	}
	return "", ErrSignature
}

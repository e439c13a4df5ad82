package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wharfage/wharfage/events"
)

var event = events.Origin{Account: "111122223333", Region: "eu-west-1"}.New(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
	events.Image{About: events.About{Repository: "team/app", Digest: "sha256:aa"}, Action: events.Push, Tag: "v1"})

// TestSend: what a server receives is a CloudEvent, and signed.
func TestSend(t *testing.T) {
	secret := []byte("secret")
	var got events.CloudEvent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id, err := Verify(secret, r.Header, body, time.Now(), time.Minute)
		if err != nil || id != event.ID || r.Header.Get("Content-Type") != "application/cloudevents+json" {
			t.Errorf("%q: %v", r.Header, err)
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{
			"another secret": verify([]byte("other"), r.Header, body, time.Now()),
			"another body":   verify(secret, r.Header, append(body, ' '), time.Now()),
			"an old request": verify(secret, r.Header, body, time.Now().Add(time.Hour)),
			"no header":      verify(secret, nil, body, time.Now()),
		} {
			if !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}))
	defer server.Close()
	s := &Sender{URL: server.URL, Secret: secret, Client: server.Client()}
	if err := s.Send(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	if got.ID != event.ID || got.Subject != "team/app:v1" {
		t.Errorf("received %+v", got)
	}
}

func verify(secret []byte, h http.Header, body []byte, now time.Time) error {
	_, err := Verify(secret, h, body, now, time.Minute)
	return err
}

// answers is a receiver that says when it was asked.
type answers struct {
	give  []string // a status, or a status and Retry-After; "" is a broken connection
	began time.Time
	at    []time.Duration
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	n := len(a.at)
	a.at = append(a.at, time.Since(a.began))
	give := a.give[min(n, len(a.give)-1)]
	if give == "" {
		return nil, errors.New("broken connection")
	}
	resp := &http.Response{Header: http.Header{"Location": {"http://elsewhere/"}}, Body: http.NoBody, Request: r}
	after := ""
	fmt.Sscan(give, &resp.StatusCode, &after)
	if seconds, ok := strings.CutPrefix(after, "date:"); ok {
		n, _ := strconv.Atoi(seconds)
		after = time.Now().Add(time.Duration(n) * time.Second).UTC().Format(http.TimeFormat)
	}
	resp.Header.Set("Retry-After", after)
	return resp, nil
}

// TestRetries in the time of a bubble.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		give     string
		attempts int    // made
		status   int    // of the error; 0 is none, 1 another one
		pauses   []int  // at least so many seconds between attempts, and at most twice as many
		dead     string // put aside
	}{
		{"200", 1, 0, nil, ""},
		{"204", 1, 0, nil, ""},
		{"500,503,,429,200", 5, 0, []int{1, 2, 4, 8}, ""},
		{"500", 6, 0, []int{1, 2, 4, 8, 10}, "500"},
		{"404", 1, 0, nil, "404"},
		{"301", 1, 0, nil, "301"},
		{"429 7,200", 2, 0, []int{7}, ""},
		{"503 3600,200", 2, 0, []int{10}, ""},
		{"503 1048577,200", 2, 0, []int{10}, ""},
		{"503 99999999999999999999,200", 2, 0, []int{10}, ""},
		{"503 -1,200", 2, 0, []int{0}, ""},
		{"503 date:7,200", 2, 0, []int{7}, ""},
		{"503 date:-7,200", 2, 0, []int{0}, ""},
	} {
		t.Run(c.give, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{give: strings.Split(c.give, ","), began: time.Now()}
				var dead []string
				s := &Sender{URL: "http://receiver/", Client: &http.Client{Transport: a}, Attempts: 6, Backoff: 2 * time.Second, Longest: 20 * time.Second}
				if strings.Contains(c.give, " ") {
					s.Backoff, s.Longest = time.Millisecond, 10*time.Second
				}
				s.DeadLetter = func(_ context.Context, e events.Event, why error) error {
					status, _ := errors.AsType[*StatusError](why)
					dead = append(dead, fmt.Sprint(status.Status))
					return nil
				}
				if err := s.Send(t.Context(), event); err != nil {
					t.Error(err)
				}
				if len(a.at) != c.attempts || strings.Join(dead, "") != c.dead {
					t.Errorf("%d attempts, put aside %q", len(a.at), dead)
				}
				for i, least := range c.pauses {
					pause := a.at[i+1] - a.at[i]
					if pause < time.Duration(least)*time.Second || pause > max(2*time.Duration(least)*time.Second, time.Second) {
						t.Errorf("pause %d is %v", i, pause)
					}
				}
				s.DeadLetter = nil
				a.at = nil
				if err := s.Send(t.Context(), event); (err != nil) != (c.dead != "") {
					t.Errorf("without a dead letter: %v", err)
				}
			})
		})
	}
}

// TestSendEndsWithItsContext, also while it waits.
func TestSendEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		a := &answers{give: []string{"500"}, began: time.Now()}
		s := &Sender{URL: "http://receiver/", Client: &http.Client{Transport: a}, Backoff: time.Hour, Longest: time.Hour, DeadLetter: func(context.Context, events.Event, error) error {
			t.Error("put aside")
			return nil
		}}
		if err := s.Send(ctx, event); !errors.Is(err, context.DeadlineExceeded) || time.Since(a.began) != 3*time.Second || len(a.at) != 1 {
			t.Errorf("after %v and %d attempts: %v", time.Since(a.began), len(a.at), err)
		}
	})
}

// TestAttemptsEnd when a receiver does not answer.
func TestAttemptsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sender{URL: "http://receiver/", Attempts: 2, Backoff: time.Second, Client: &http.Client{Transport: silent{}}}
		began := time.Now()
		if err := s.Send(t.Context(), event); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) < 20*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestOneSignatureIsEnough, while a secret is being changed.
func TestOneSignatureIsEnough(t *testing.T) {
	h := http.Header{}
	h.Set("Webhook-Id", "msg_1")
	h.Set("Webhook-Timestamp", "1000")
	h.Set("Webhook-Signature", "v1,wrong "+sign([]byte("k"), "msg_1", 1000, []byte("{}")))
	if id, err := Verify([]byte("k"), h, []byte("{}"), time.Unix(1030, 0), time.Minute); id != "msg_1" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
}

// TestNoSecretSignsNothing: what an empty one has signed, anybody may have.
func TestNoSecretSignsNothing(t *testing.T) {
	for _, none := range [][]byte{nil, {}} {
		h := http.Header{}
		h.Set("Webhook-Id", "msg_1")
		h.Set("Webhook-Timestamp", "1000")
		h.Set("Webhook-Signature", sign(none, "msg_1", 1000, []byte("{}")))
		if _, err := Verify(none, h, []byte("{}"), time.Unix(1000, 0), time.Minute); !errors.Is(err, ErrSignature) {
			t.Errorf("Verify without a secret: %v", err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if s := r.Header.Get("Webhook-Signature"); s != "" {
				t.Errorf("signed without a secret: %s", s)
			}
		}))
		s := &Sender{URL: server.URL, Secret: none, Client: server.Client()}
		if err := s.Send(t.Context(), event); err != nil {
			t.Error(err)
		}
		server.Close()
	}
}

func ExampleSender() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, err := Verify([]byte("secret"), r.Header, body, time.Now(), 5*time.Minute)
		var e events.CloudEvent
		fmt.Println(json.Unmarshal(body, &e), err, e.Type, e.Subject)
	}))
	defer server.Close()
	s := &Sender{URL: server.URL, Secret: []byte("secret"), Client: server.Client()}
	fmt.Println(s.Send(context.Background(), event))
	// Output:
	// <nil> <nil> com.amazonaws.ecr.image.push team/app:v1
	// <nil>
}

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"
)

// free returns an address that nobody listens on. Systems give none of its ports to
// connections, of which other tests make thousands.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.N(15_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// status is 0 when nobody answers.
func status(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func TestStoppingIsToldBeforeListeningEnds(t *testing.T) {
	const delay = 2 * time.Second
	for name, admin := range map[string]string{"one address": "", "two": free(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			addr := free(t)
			about := addr
			args := []string{"-addr", addr, "-drain-delay", delay.String(), "-collect-every", "0"}
			if admin != "" {
				about, args = admin, append(args, "-admin", admin)
			}
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, args) }()
			for status(t, "http://"+about+"/readyz") != http.StatusOK || status(t, "http://"+addr+"/v2/") != http.StatusOK {
				select {
				case err := <-ended:
					t.Fatal(err)
				default:
				}
			}
			began := time.Now()
			cancel()
			ready := http.StatusOK
			for ready == http.StatusOK {
				ready = status(t, "http://"+about+"/readyz")
			}
			if ready != http.StatusServiceUnavailable {
				t.Errorf("/readyz = %d, want 503 while others are still sent here", ready)
			}
			if got := status(t, "http://"+addr+"/v2/"); got != http.StatusOK {
				t.Errorf("/v2/ = %d, want it to be served on", got)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < delay {
				t.Errorf("it listened for %v, want %v", took, delay)
			}
			if got := status(t, "http://"+addr+"/v2/"); got != 0 {
				t.Errorf("/v2/ = %d after the end", got)
			}
		})
	}
}

// A listener that fails is not waited for.
func TestAnAddressInUseEndsAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := serve(t.Context(), []string{"-addr", l.Addr().String(), "-drain-delay", "1h"}); err == nil {
		t.Error("no error")
	}
}

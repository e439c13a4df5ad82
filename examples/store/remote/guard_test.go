package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/wharfage/wharfage/internal/vectors"
)

// names returns a resolver that answers every name with the addresses in turn, the last
// for ever.
func names(addrs ...string) *net.Resolver {
	var asked atomic.Int64
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe() // no packets: with lengths, as over TCP
		go func() {
			defer server.Close()
			for {
				var n uint16
				if binary.Read(server, binary.BigEndian, &n) != nil {
					return
				}
				buf := make([]byte, n)
				if _, err := io.ReadFull(server, buf); err != nil {
					return
				}
				var m dnsmessage.Message
				if m.Unpack(buf) != nil {
					return
				}
				m.Response = true
				m.Additionals = nil
				q := m.Questions[0]
				if q.Type == dnsmessage.TypeA {
					a := netip.MustParseAddr(addrs[min(int(asked.Add(1)), len(addrs))-1]).As4()
					m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a}}}
				}
				out, _ := m.Pack()
				binary.Write(server, binary.BigEndian, uint16(len(out)))
				server.Write(out)
			}
		}()
		return client, nil
	}}
}

var errApproved = errors.New("the guard lets this through; the test does not")

// approving is g's transport, which counts what g lets through and connects to nothing.
func approving(g *Guard, approved *atomic.Int64) *http.Transport {
	t := g.Transport()
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := g.dialer(address)
		check := d.Control
		d.Control = func(network, address string, c syscall.RawConn) error {
			if check != nil {
				if err := check(network, address, c); err != nil {
					return err
				}
			}
			approved.Add(1)
			return errApproved
		}
		return d.DialContext(ctx, network, address)
	}
	return t
}

const public = "93.184.215.14"

// A URL that a registry redirects to is fetched only if it is an https one, of nobody
// in particular, that leads to a public address.
func TestGuardOnTheCorpus(t *testing.T) {
	cases, err := vectors.Hostile(*vectorsDir, "fetch-url")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range cases {
		t.Run(v.ID, func(t *testing.T) {
			var approved atomic.Int64
			away := approving(&Guard{Resolver: names(public)}, &approved)
			r := &Registry{Host: "registry.example.com", Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.URL.Host == "registry.example.com" && req.URL.Scheme == "https" && strings.HasPrefix(req.URL.Path, "/v2/") {
					resp := status(307, "Location", string(v.Input))
					resp.Body, resp.Request = http.NoBody, req
					return resp, nil
				}
				return away.RoundTrip(req)
			})}
			_, _, err := r.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("x"), 0, -1)
			if err == nil || (approved.Load() > 0) != v.Accept() || errors.Is(err, errApproved) != v.Accept() {
				t.Errorf("let through %d times: %v: %s", approved.Load(), err, v.Why)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestPublicAddresses(t *testing.T) {
	for s := range strings.FieldsSeq(`0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.8.8.8 169.254.169.254 172.16.0.1 172.31.255.255
		192.0.0.192 192.168.1.1 198.18.0.1 224.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:a00:1
		64:ff9b::a9fe:a9fe 64:ff9b:1::1 2001:0:1::1 2002:a9fe:a9fe:: 2002:7f00:1::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 febf::1 ff02::1`) {
		if isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s passes", s)
		}
	}
	for s := range strings.FieldsSeq("1.1.1.1 93.184.215.14 100.63.255.255 100.128.0.1 172.32.0.1 192.169.0.1 223.255.255.255 2606:4700::1111 2a00:1450:4001::1 ::ffff:1.1.1.1") {
		if !isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	for host, odd := range map[string]bool{"2130706433": true, "0x7f000001": true, "0177.0.0.1": true, "127.1": true, "127.0.0.1.": true, "a.09": true, "99999999999999999999": true,
		"127.0.0.1": false, "::1": false, "example.com": false, "1.example": false, "a.b1": false} {
		if isOddAddress(net.JoinHostPort(host, "443")) != odd {
			t.Errorf("%s: not %v", host, odd)
		}
	}
	if isPublic(netip.Addr{}) {
		t.Error("no address passes")
	}
}

// listen counts the connections to an address on loopback.
func listen(t *testing.T) (port string, accepted *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = new(atomic.Int64)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, accepted
}

// Nothing connects to a private address, whatever its name was resolved to before, unless
// the operator has allowed that host and port.
func TestGuardLooksAtEachConnection(t *testing.T) {
	port, accepted := listen(t)
	var approved atomic.Int64
	rebinding := approving(&Guard{Resolver: names(public, "127.0.0.1")}, &approved)
	for i := range 5 {
		_, err := rebinding.DialContext(t.Context(), "tcp", "rebind.test:"+port)
		if want := map[bool]error{true: errApproved, false: ErrAddress}[i == 0]; !errors.Is(err, want) {
			t.Errorf("attempt %d: %v, want %v", i, err, want)
		}
	}
	if approved.Load() != 1 {
		t.Errorf("let through %d times, want once", approved.Load())
	}
	g := &Guard{Resolver: names("127.0.0.1"), Allow: []string{"Allowed.test:" + port}}
	for _, address := range []string{"inside.test:" + port, "127.0.0.1:" + port, "localhost:" + port, "[::ffff:127.0.0.1]:" + port, "allowed.test.:" + port, "0.0.0.0:" + port} {
		conn, err := g.DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", address, err)
		}
	}
	if accepted.Load() != 0 {
		t.Errorf("%d connections to refused addresses", accepted.Load())
	}
	conn, err := g.DialContext(t.Context(), "tcp", "allowed.test:"+port)
	if err != nil {
		t.Fatal("what the operator allows is refused:", err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	conn.Read(make([]byte, 1)) // ends when the other side has accepted and closed
	conn.Close()
	if accepted.Load() != 1 {
		t.Errorf("%d connections, want 1", accepted.Load())
	}
}

// A registry may be in a private network; what it redirects to may not, unless it is
// allowed.
func TestGuardOfARegistry(t *testing.T) {
	port, accepted := listen(t)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:"+port+"/x", http.StatusTemporaryRedirect)
	})
	r := serve(t, answer)
	_, _, err := r.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("x"), 0, -1)
	if !errors.Is(err, ErrAddress) || accepted.Load() != 0 {
		t.Errorf("%v, and %d connections", err, accepted.Load())
	}
	r = serve(t, answer)
	r.Allow = []string{"127.0.0.1:" + port}
	if _, _, err = r.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("x"), 0, -1); errors.Is(err, ErrAddress) || accepted.Load() == 0 {
		t.Errorf("%v, and %d connections", err, accepted.Load())
	}
}

// A proxy may be in a private network, and is the only one that is connected to.
func TestProxy(t *testing.T) {
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.String())
		w.Header().Set("Docker-Content-Digest", string(emptyDigest))
	}))
	defer proxy.Close()
	r := &Registry{Host: "registry.test", Scheme: "http", Proxy: http.ProxyURL(mustParse(proxy.URL))}
	if err := resolve(t.Context(), r); err != nil || asked.Load() != "http://registry.test/v2/a/b/manifests/v1" {
		t.Errorf("asked for %v: %v", asked.Load(), err)
	}
}

package pgstore

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// proxy stands between a store and its server, to break what is between.
type proxy struct {
	server string

	mu       sync.Mutex
	conns    map[net.Conn]bool
	dead     bool
	deaf     bool // what clients send is lost
	sent     int  // chunks from clients, each of which is a round trip when little is sent
	swallow  int  // if positive, after so many more chunks the answer is lost and the connection breaks
	listener net.Listener
}

// between returns dsn through a proxy.
func between(t testing.TB, dsn string) (string, *proxy) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(dsn, "@")
	address, _, _ = strings.Cut(address, "/")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{server: address, conns: map[net.Conn]bool{}, listener: listener}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.kill(true)
		serving.Wait()
	})
	if config.Host != "127.0.0.1" {
		t.Fatalf("the server is at %s", config.Host)
	}
	return strings.Replace(dsn, address, listener.Addr().String(), 1), p
}

// kill breaks all connections, and refuses new ones if dead.
func (p *proxy) kill(dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = dead
	for c := range p.conns {
		c.Close()
	}
}

// cutOff lets connections be, and nothing through.
func (p *proxy) cutOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}

// loseAnswer breaks the connection in place of the answer to the n-th chunk
// from now.
func (p *proxy) loseAnswer(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = n
}

func (p *proxy) roundTrips() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return
	}
	p.conns[client] = true
	p.mu.Unlock()
	var lost sync.WaitGroup
	defer lost.Wait()
	var mu sync.Mutex
	losing := false
	lost.Go(func() {
		defer client.Close()
		b := make([]byte, 1<<16)
		for {
			n, err := server.Read(b)
			mu.Lock()
			if losing || err != nil {
				mu.Unlock()
				return
			}
			mu.Unlock()
			client.Write(b[:n])
		}
	})
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			break
		}
		p.mu.Lock()
		p.sent++
		if p.swallow > 0 {
			if p.swallow--; p.swallow == 0 {
				mu.Lock()
				losing = true
				mu.Unlock()
			}
		}
		deaf := p.deaf
		p.mu.Unlock()
		if !deaf {
			server.Write(b[:n])
		}
	}
	server.Close()
	p.mu.Lock()
	delete(p.conns, client)
	p.mu.Unlock()
}

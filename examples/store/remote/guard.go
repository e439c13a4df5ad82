package remote

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrAddress is a connection that a [Guard] refuses.
var ErrAddress = errors.New("address of a private network, which is not allowed")

// Guard makes connections, but none into private networks: loopback, link-local,
// unique local, shared (100.64.0.0/10), "this" network, multicast and reserved addresses,
// and IPv6 forms that carry an IPv4 address or are no longer used. It looks at
// the address that is connected to, so that no second answer of a name server gets around it.
type Guard struct {
	// Allow are the only exceptions: "host:port" as they are asked for, not
	// resolved. A proxy is one.
	Allow []string
	// Resolver resolves names; nil means net.DefaultResolver.
	Resolver *net.Resolver
}

// Transport returns a new transport whose connections g makes. It uses no proxy: a
// proxy resolves names itself, and g would see its address only.
func (g *Guard) Transport() *http.Transport {
	return &http.Transport{
		DialContext:            g.DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // a digest is that of the bytes as they are sent
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64, // the two of net/http would make a connection for most requests
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// DialContext connects to address, "host:port". [ErrAddress].
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return g.dialer(address).DialContext(ctx, network, address)
}

func (g *Guard) dialer(address string) *net.Dialer {
	d := &net.Dialer{Timeout: 30 * time.Second, Resolver: g.Resolver}
	if !slices.ContainsFunc(g.Allow, func(a string) bool { return strings.EqualFold(a, address) }) {
		d.Control = func(_, resolved string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(resolved)
			if err == nil && isPublic(a.Addr()) && !isOddAddress(address) {
				return nil
			}
			return ErrAddress
		}
	}
	return d
}

// isOddAddress tells whether a host looks like a name and is taken for an address by some, as
// 2130706433 and 0x7f.1 are for 127.0.0.1.
func isOddAddress(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	_, err := netip.ParseAddr(host)
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	_, notNumber := strconv.ParseUint(last, 0, 64)
	return err != nil && (notNumber == nil || strings.Trim(last, "0123456789") == "")
}

// notPublic are the blocks that are no global unicast, by the registries of IANA for
// special purposes, and those that hide an IPv4 address.
var notPublic = func() (blocks []netip.Prefix) {
	for s := range strings.FieldsSeq(`
		0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
		192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
		::/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20
		5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8`) {
		blocks = append(blocks, netip.MustParsePrefix(s))
	}
	return blocks
}()

func isPublic(a netip.Addr) bool {
	a = a.Unmap().WithZone("") // an IPv4-mapped address reaches what the IPv4 one does; a block has no zone
	return a.IsValid() && !slices.ContainsFunc(notPublic, func(b netip.Prefix) bool { return b.Contains(a) })
}

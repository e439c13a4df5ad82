// Package ocidigest holds the digest grammar of image-spec descriptor.md, which
// packages blob and manifest share.
package ocidigest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"github.com/opencontainers/go-digest"
)

// MaxLen bounds a digest before it is used as a key, a path or a log line. The
// specification has no limit.
const MaxLen = 1024

var (
	errLong      = fmt.Errorf("longer than %d characters", MaxLen)
	errGrammar   = errors.New(`not of the form algorithm ":" encoded`)
	errSHA256    = errors.New("sha256 takes exactly 64 lower case hexadecimal digits")
	errSHA512    = errors.New("sha512 takes exactly 128 lower case hexadecimal digits")
	errBlake3    = errors.New("blake3 takes exactly 64 lower case hexadecimal digits")
	errSupported = errors.New("only sha256 and sha512 can be computed here")
)

const (
	algorithm uint8 = 1 << iota
	separator
	encoded
)

var class = func() (t [256]uint8) {
	set := func(chars string, bit uint8) {
		for _, c := range []byte(chars) {
			t[c] |= bit
		}
	}
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	set(digits+lower, algorithm)
	set("+._-", separator)
	set(digits+lower+upper+"=_-", encoded)
	return
}()

// Check says why s is no digest: it must be of the grammar, and well-formed
// where its algorithm is registered (sha256, sha512, blake3). Other algorithms
// pass by the grammar alone, as the specification asks.
func Check(s string) error {
	if len(s) == 71 && s[:7] == "sha256:" { // nearly always
		if allHex(s[7:]) {
			return nil
		}
		return errSHA256
	}
	if len(s) > MaxLen {
		return errLong
	}
	colon, last := -1, uint8(separator)
	for i := range len(s) {
		c := class[s[i]]
		if s[i] == ':' && last&algorithm != 0 {
			colon = i
			break
		}
		if c&(algorithm|separator) == 0 || c&separator != 0 && last&separator != 0 {
			return errGrammar
		}
		last = c
	}
	if colon < 0 || colon == len(s)-1 {
		return errGrammar
	}
	rest := s[colon+1:]
	for i := range len(rest) {
		if class[rest[i]]&encoded == 0 {
			return errGrammar
		}
	}
	switch s[:colon] {
	case "sha256":
		return errSHA256 // the good ones left above
	case "sha512":
		if len(rest) != 128 || !allHex(rest) {
			return errSHA512
		}
	case "blake3":
		if len(rest) != 64 || !allHex(rest) {
			return errBlake3
		}
	}
	return nil
}

// allHex looks at eight characters at a time. s has a multiple of eight.
func allHex(s string) bool {
	const lsb, msb = 0x0101010101010101, 0x8080808080808080
	good := uint64(msb)
	for ; len(s) >= 8; s = s[8:] {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		// Each sum sets the top bit of a byte that is at least, or above, a limit.
		digit := (w + (0x80-'0')*lsb) &^ (w + (0x7f-'9')*lsb)
		letter := (w + (0x80-'a')*lsb) &^ (w + (0x7f-'f')*lsb)
		good &= (digit | letter) &^ w
	}
	return good == msb
}

// CheckSupported is Check for digests that content is to be stored or verified
// under.
func CheckSupported(s string) error {
	if err := Check(s); err != nil {
		return err
	}
	if Supported(digest.Digest(s)) {
		return nil
	}
	return errSupported
}

// Supported tells whether a digest that passed Check can be computed here.
func Supported(d digest.Digest) bool {
	return len(d) == 71 && d[:7] == "sha256:" || len(d) == 135 && d[:7] == "sha512:"
}

// NewHash returns the hash of an algorithm, nil if it is not supported.
func NewHash(alg digest.Algorithm) hash.Hash {
	switch alg {
	case digest.SHA256:
		return sha256.New()
	case digest.SHA512:
		return sha512.New()
	}
	return nil
}

// Of returns the digest of content under alg, which must be supported.
func Of(alg digest.Algorithm, content []byte) digest.Digest {
	var text [len("sha512:") + 2*sha512.Size]byte
	b := append(append(text[:0], alg...), ':')
	if alg == digest.SHA512 {
		sum := sha512.Sum512(content)
		return digest.Digest(hex.AppendEncode(b, sum[:]))
	}
	sum := sha256.Sum256(content)
	return digest.Digest(hex.AppendEncode(b, sum[:]))
}

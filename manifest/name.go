package manifest

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/ocidigest"
)

// Longest names, in characters.
const (
	MaxRepositoryLen = 255 // many clients bound host "/" name to this
	MaxTagLen        = 128 // distribution-spec, "Pulling manifests"
)

// CheckRepository says why s is no repository name: components of lower case
// letters and digits, which may be joined by ".", "_", "__" or dashes, with "/"
// between them (distribution-spec, "Pulling manifests"). It unwraps to ErrName.
func CheckRepository(s string) error {
	if s == "" || len(s) > MaxRepositoryLen {
		return fmt.Errorf("repository: %w: has %d characters, takes 1 to %d", ErrName, len(s), MaxRepositoryLen)
	}
	alnum := false // whether the last character ends a run of letters and digits
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			alnum = true
			continue
		case !alnum:
			return badRepository(s)
		case c == '_' && i+1 < len(s) && s[i+1] == '_':
			i++
		case c == '-':
			for i+1 < len(s) && s[i+1] == '-' {
				i++
			}
		case c != '.' && c != '_' && c != '/':
			return badRepository(s)
		}
		alnum = false
	}
	if !alnum {
		return badRepository(s)
	}
	return nil
}

func badRepository(s string) error {
	return fmt.Errorf("repository %s: %w: takes lower case letters and digits, joined by . _ __ or dashes, with / between components", shorten(s), ErrName)
}

// CheckTag says why s is no tag. It unwraps to ErrName.
func CheckTag(s string) error {
	if s == "" || len(s) > MaxTagLen {
		return fmt.Errorf("tag: %w: has %d characters, takes 1 to %d", ErrName, len(s), MaxTagLen)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case i > 0 && (c == '.' || c == '-'):
		default:
			return fmt.Errorf("tag %s: %w: takes letters, digits and _, after the first character also . and -", shorten(s), ErrName)
		}
	}
	return nil
}

// CheckDigest says why s is no digest: it must fit the grammar of image-spec
// descriptor.md, be at most 1024 characters long, and be well-formed if its
// algorithm is registered (sha256, sha512, blake3). Digests of other algorithms
// may stand in a document, and cannot be verified.
func CheckDigest(s string) error { return ocidigest.Check(s) }

// CheckContentDigest is CheckDigest for what content is stored under: sha256
// and sha512 only.
func CheckContentDigest(s string) error { return ocidigest.CheckSupported(s) }

// Digest returns the digest of content under sha256 or sha512.
func Digest(alg digest.Algorithm, content []byte) digest.Digest {
	return ocidigest.Of(alg, content)
}

// shorten quotes what somebody sent for an error message.
func shorten(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}

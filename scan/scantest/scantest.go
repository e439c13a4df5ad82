// Package scantest has a scanner for tests, which finds what it is told.
package scantest

import (
	"context"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/scan"
)

// Scanner implements [scan.Scanner]. It must not be copied after its first use.
type Scanner struct {
	// Report says what is found in an image. nil finds nothing in any.
	Report func(ctx context.Context, repo string, image ocispec.Descriptor) (scan.Report, error)

	mu    sync.Mutex
	calls []string
}

// Scan implements [scan.Scanner].
func (s *Scanner) Scan(ctx context.Context, repo string, image ocispec.Descriptor) (scan.Report, error) {
	s.mu.Lock()
	s.calls = append(s.calls, repo+"@"+string(image.Digest))
	s.mu.Unlock()
	if s.Report == nil {
		return scan.Report{}, ctx.Err()
	}
	return s.Report(ctx, repo, image)
}

// Calls returns what was scanned, as repository@digest, in order.
func (s *Scanner) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

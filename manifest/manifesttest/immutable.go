package manifesttest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// TestImmutableTags checks that immutable tags do not move in s, which is to be
// empty: in each round 16 writers push documents of their own under one tag, at once,
// and another one puts the tag of the round before elsewhere. Exactly one of the 16
// is to win, and at the end no tag has moved.
func TestImmutableTags(t *testing.T, s manifest.Store, rounds int) {
	const writers = 16
	var docs [writers + 1][]byte
	for i := range docs {
		raw, _, err := manifest.IndexDraft{Annotations: map[string]string{"writer": fmt.Sprint(i)}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		docs[i] = raw
	}
	p := &manifest.Pusher{Store: s, MoveTag: manifest.TagMutability{Mode: manifest.Immutable}.MoveTag}
	push := func(i int, tag string) (digest.Digest, error) {
		done, err := p.Push(t.Context(), repo, manifest.PushRequest{Raw: docs[i], Tags: []string{tag}})
		if err != nil && !errors.Is(err, manifest.ErrTagImmutable) {
			t.Errorf("push %s: %v", tag, err)
		}
		return done.Record.Desc.Digest, err
	}
	name := func(round int) string { return fmt.Sprintf("t%d", round) }
	won := make([]digest.Digest, rounds)
	for round := range rounds {
		var all sync.WaitGroup
		start, winners := make(chan struct{}), make(chan digest.Digest, writers)
		for i := range writers {
			all.Go(func() {
				<-start
				if d, err := push(i, name(round)); err == nil {
					winners <- d
				}
			})
		}
		if round > 0 {
			all.Go(func() {
				<-start
				if _, err := push(writers, name(round-1)); err == nil {
					t.Errorf("round %d: the tag of the round before was moved", round)
				}
			})
		}
		close(start)
		all.Wait()
		if len(winners) != 1 {
			t.Fatalf("round %d: %d of %d writers win", round, len(winners), writers)
		}
		won[round] = <-winners
	}
	for round, want := range won {
		if at, err := s.Resolve(t.Context(), repo, name(round)); err != nil || at.Digest != want {
			t.Errorf("%s, won by %s, is at %s: %v", name(round), want, at.Digest, err)
		}
	}
}

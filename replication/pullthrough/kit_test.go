package pullthrough_test

import (
	"testing"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/referrers/referrerstest"
	"github.com/wharfage/wharfage/replication/pullthrough"
)

// over returns a Cache over new stores in memory, whose only rule covers no repository of
// the kits.
func over(t testing.TB) *pullthrough.Cache {
	h := wharfage.NewMemory()
	rules, err := pullthrough.NewRules([]pullthrough.Rule{{Prefix: "quay", UpstreamURL: "quay.io"}}, pullthrough.RuleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := &pullthrough.Cache{Blobs: h.Blobs, Manifests: h.Manifests, Rules: rules}
	t.Cleanup(c.Close)
	return c
}

// TestKits: without a rule a Cache is what it stands before.
func TestKits(t *testing.T) {
	t.Run("blobs", func(t *testing.T) {
		blobtest.TestStore(t, blobtest.Options{New: func(t testing.TB) blob.Store { return over(t).CachedBlobs() }})
	})
	t.Run("manifests", func(t *testing.T) {
		manifesttest.TestStore(t, manifesttest.Options{NoBlobs: "they are checked by the store below",
			New: func(t testing.TB) manifest.Store { return over(t).CachedManifests() }})
	})
	t.Run("referrers", func(t *testing.T) {
		referrerstest.TestIndex(t, func(t testing.TB) (manifest.Store, referrers.Index) {
			c := over(t)
			return c.CachedManifests(), c.CachedReferrers()
		})
	})
	t.Run("abilities", func(t *testing.T) {
		s := over(t).CachedBlobs()
		_, mounts := blob.As[blob.Mounter](s)
		_, lists := blob.As[blob.Catalog](s)
		guarded, ok := blob.As[blob.Guarded](s)
		if !mounts || !lists || !ok || !guarded.Guarded() {
			t.Error("an ability is lost")
		}
	})
}

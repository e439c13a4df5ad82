package replication_test

import (
	"testing"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/replicationtest"
)

func stores() (*memblob.Store, *memmanifest.Store) {
	blobs, manifests := new(memblob.Store), new(memmanifest.Store)
	manifests.MissingBlobs = blob.Missing(blobs)
	return blobs, manifests
}

func TestLocalSource(t *testing.T) {
	replicationtest.TestSource(t, func(testing.TB) (replication.Source, replicationtest.Backing) {
		blobs, manifests := stores()
		return replication.LocalSource(blobs, manifests), replicationtest.Backing{Blobs: blobs, Manifests: manifests}
	})
}

func TestLocalTarget(t *testing.T) {
	replicationtest.TestTarget(t, func(testing.TB) (replication.Target, replicationtest.Backing) {
		blobs, manifests := stores()
		return replication.LocalTarget(blobs, manifests), replicationtest.Backing{Blobs: blobs, Manifests: manifests}
	})
}

package replication_test

import (
	"testing"

	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/replicationtest"
)

func TestLocalSource(t *testing.T) {
	replicationtest.TestSource(t, func(testing.TB) (replication.Source, replicationtest.Backing) {
		blobs, manifests := empty()
		return replication.LocalSource(blobs, manifests), replicationtest.Backing{Blobs: blobs, Manifests: manifests}
	})
}

func TestLocalTarget(t *testing.T) {
	replicationtest.TestTarget(t, func(testing.TB) (replication.Target, replicationtest.Backing) {
		blobs, manifests := empty()
		return replication.LocalTarget(blobs, manifests), replicationtest.Backing{Blobs: blobs, Manifests: manifests}
	})
}

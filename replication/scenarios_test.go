package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

type scenarioCase struct {
	ID, Why string
	Setup   struct {
		Repositories []scenarioRepository
		Policies     map[string][]scenarioGrant  `json:"registry_policies"`
		Templates    map[string]json.RawMessage  `json:"creation_templates"`
		Settings     []scenarioRepository        `json:"expect_settings"`
	}
	Steps []struct {
		Op, Registry, Repository  string
		Config                    json.RawMessage
		Digest, Subject           digest.Digest
		Tag                       *string
		ImageDigest               digest.Digest
		ImageTag                  string
	}
	Expect []struct {
		Registry, Repository string
		Exists               *bool
		Images               map[digest.Digest][]string
		ImageStatus          map[digest.Digest]string
	}
	Status []struct {
		Registry, Repository string
		Digest               digest.Digest
		Statuses             []DestinationStatus
	} `json:"expect_replication_status"`
}

type scenarioGrant struct {
	Principal string
	Actions   []AccessAction
	Resource  string
}

type scenarioRepository struct {
	Registry, Repository string
	repository.Settings
}

// world is some registries, each of which may replicate to any other.
type world struct {
	t          testing.TB
	registries map[string]*registry
	grants     map[string][]scenarioGrant
}

type registry struct {
	Registry
	w             *world
	blobs         *memblob.Store
	manifests     *memmanifest.Store
	repositories  *repository.Registry
	configuration Configuration
	r             *Replicator
	told          []events.Replication
	names         map[digest.Digest]digest.Digest // of the vectors to real ones
}

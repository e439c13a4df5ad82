package pgstore

import (
	"flag"
	"testing"

	"github.com/wharfage/wharfage/manifest/manifesttest"
)

// raceRounds is long with -race-rounds 1000.
var raceRounds = flag.Int("race-rounds", 20, "rounds of racing writers")

func TestImmutableTagsDoNotMoveUnderRace(t *testing.T) {
	manifesttest.TestImmutableTags(t, open(t, Options{}).Manifests(), *raceRounds)
}

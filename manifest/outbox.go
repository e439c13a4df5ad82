package manifest

import (
	"context"
	"iter"
)

// Outbox is implemented by stores that keep the event of each committed Change
// until it is forgotten. It is written in the step that commits the change: no
// event is lost, and none tells of what was not committed.
//
// A store may have a switch for that, since events that nobody forgets pile up.
// While it is off, changes leave no event, and an empty listing says nothing of
// what was committed: who needs events turns it on first.
type Outbox interface {
	// Events lists what was committed, after the position after; "" is before the
	// first. Of two changes of one repository the one that committed later comes
	// later. An event never turns up before a position that has been listed. The
	// records in an event have no Raw. The listing ends at its first error, and holds
	// no lock and no connection while the loop body runs.
	Events(ctx context.Context, after string) iter.Seq2[Committed, error]

	// Forget drops the events up to and including the position through, which
	// Events has listed.
	Forget(ctx context.Context, through string) error
}

// Committed is an [Event] and its place in the order of an [Outbox].
type Committed struct {
	Position string // opaque
	Event
}

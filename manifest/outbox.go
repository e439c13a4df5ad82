package manifest

import (
	"context"
	"iter"
	"time"
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

// forgetEvery is how many changes are delivered before the outbox is told.
const forgetEvery = 100

// Drain delivers what is in an outbox, oldest first, and makes it forget what was
// delivered. It ends when there is no more, or at the first error: of deliver, after
// which the change is still there, or of the outbox. Call it again and again, in one
// place at a time: all who are to know of changes are told by one deliver. A change
// may be delivered twice, if the process ends between a delivery and the outbox's knowing
// of it, or if ctx ends and the outbox does not answer within 10 s.
func Drain(ctx context.Context, box Outbox, deliver func(context.Context, Committed) error) (err error) {
	done, changes := "", 0
	forget := func(ctx context.Context) error {
		if changes == 0 {
			return nil
		}
		changes = 0
		return box.Forget(ctx, done)
	}
	// What was delivered is forgotten also when ctx has ended.
	defer func() {
		const patience = 10 * time.Second // with an outbox that does not answer
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if failed := forget(last); err == nil {
			err = failed
		}
	}()
	for c, err := range box.Events(ctx, "") {
		if err != nil {
			return err
		}
		if err := deliver(ctx, c); err != nil {
			return err
		}
		done = c.Position
		if changes++; changes == forgetEvery {
			if err := forget(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

package parts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/wharfage/wharfage/blob"
)

// ErrForeign is what errors of [Claim] match that say whose Objects are. Sweeps
// of one database take what another has there for strays.
var ErrForeign = errors.New("the objects are not those of this database")

// ForeignError is why Objects are not those of a database. It unwraps to
// [ErrForeign].
type ForeignError struct {
	Database string // its ID
	Owner    string // the ID of the one that has claimed the objects; "" if none has
	Lost     bool   // if none has: what the database refers to is not there; else there is what it does not refer to
}

func (e *ForeignError) Error() string {
	var why string
	switch {
	case e.Owner != "":
		why = "they belong to database " + e.Owner
	case e.Lost:
		why = "those that it refers to are not there"
	default:
		why = "they are not empty, and nothing says whose they are"
	}
	return fmt.Sprintf("%v, which is %s: %s; an object %s/%s/ANYTHING, beside no other of %s, says that they are its own", ErrForeign, e.Database, why, owner, e.Database, owner)
}

func (e *ForeignError) Unwrap() error { return ErrForeign }

// owner is the folder of markers. One has the ID of a database as its folder,
// since no two calls may put the same key, and is found by a List. Sweeps leave
// alone what NewKey has not made.
const owner = "owner"

// Claim makes o the Objects of the database id, with a marker among them, or
// returns an error that matches [ErrForeign]. id is what can be in a key. refers are
// some of the keys that the database refers to, none if there are none: where nothing is
// marked, o is its own if it has one of them, or if it is empty and so is refers.
// For a claimed o it costs one List.
//
// Of two databases that claim empty Objects at once, one at least is refused,
// and both from then on.
func Claim(ctx context.Context, o blob.Objects, id string, refers []string) error {
	claimed, err := isClaimed(ctx, o, id)
	if claimed || err != nil {
		return err
	}
	if err := isFree(ctx, o, id, refers); err != nil {
		// Another process of this database may have claimed o, and put something.
		if claimed, e := isClaimed(ctx, o, id); claimed && e == nil {
			return nil
		}
		return err
	}
	if _, err := o.Put(ctx, owner+"/"+id+"/"+rand.Text(), strings.NewReader("These objects are those of the database "+id+".\n")); err != nil {
		return err
	}
	// Others put their markers before they look, too.
	_, err = isClaimed(ctx, o, id)
	return err
}

// Claimed is Claim for who only reads: it marks nothing, and finds nothing wrong
// with Objects that nobody has claimed.
func Claimed(ctx context.Context, o blob.Objects, id string) error {
	_, err := isClaimed(ctx, o, id)
	return err
}

func isClaimed(ctx context.Context, o blob.Objects, id string) (claimed bool, err error) {
	for object, err := range o.List(ctx, owner, "") {
		if err != nil {
			return false, err
		}
		who, _, _ := strings.Cut(strings.TrimPrefix(object.Key, owner+"/"), "/")
		if who != id {
			return false, &ForeignError{Database: id, Owner: who}
		}
		claimed = true
	}
	return claimed, nil
}

// isFree tells whether what nobody has claimed may be claimed.
func isFree(ctx context.Context, o blob.Objects, id string, refers []string) error {
	for _, key := range refers {
		r, _, err := o.Open(ctx, key, 0, 0)
		if err == nil {
			return r.Close()
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return err
		}
	}
	if len(refers) > 0 {
		return &ForeignError{Database: id, Lost: true}
	}
	for object, err := range o.List(ctx, "", "") {
		if err != nil {
			return err
		}
		if _, ok := Era(object.Key); ok {
			return &ForeignError{Database: id}
		}
	}
	return nil
}

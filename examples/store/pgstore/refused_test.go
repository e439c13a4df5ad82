package pgstore

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestOnlyAnErrorIsARefusal: after anything else a commit may have happened, and
// the bytes it refers to must stay.
func TestOnlyAnErrorIsARefusal(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "40001"}, true},
		{fmt.Errorf("commit: %w", &pgconn.PgError{Severity: "ERROR", Code: "23503"}), true},
		{&pgconn.PgError{SeverityUnlocalized: "PANIC", Code: "58030"}, false},
		{&pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "57P01"}, false},
		{&pgconn.PgError{SeverityUnlocalized: "ERROR", Code: "08P01"}, false},
		{errors.New("unexpected EOF"), false},
	} {
		if got := refused(c.err); got != c.want {
			t.Errorf("refused(%v) = %t", c.err, got)
		}
	}
}

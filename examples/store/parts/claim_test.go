package parts

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

func TestObjectsHaveOneDatabase(t *testing.T) {
	key, other := NewKey(1, time.Unix(1e9, 0)), NewKey(1, time.Unix(1e9, 0))
	for _, c := range []struct {
		name    string
		objects []string
		refers  []string
		want    *ForeignError // nil: they are claimed
	}{
		{"empty", nil, nil, nil},
		{"its own", []string{"owner/me/1"}, nil, nil},
		{"its own, marked twice, and in use", []string{"owner/me/1", "owner/me/2", key}, []string{key}, nil},
		{"its own, damaged", []string{"owner/me/1", other}, []string{key}, nil},
		{"what only others know", []string{"lost+found", "owner.txt", "00/x"}, nil, nil},
		{"of before there were markers", []string{key, other}, []string{NewKey(1, time.Now()), key}, nil},
		{"another's", []string{"owner/other/1"}, nil, &ForeignError{Database: "me", Owner: "other"}},
		{"another's of a similar name", []string{"owner/me-too/1"}, nil, &ForeignError{Database: "me", Owner: "me-too"}},
		{"both", []string{"owner/me/1", "owner/other/1"}, nil, &ForeignError{Database: "me", Owner: "other"}},
		{"another's, who has our bytes", []string{"owner/other/1", key}, []string{key}, &ForeignError{Database: "me", Owner: "other"}},
		{"not empty", []string{key}, nil, &ForeignError{Database: "me"}},
		{"not what it refers to", []string{other}, []string{key}, &ForeignError{Database: "me", Lost: true}},
		{"nothing of what it refers to", nil, []string{key}, &ForeignError{Database: "me", Lost: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}
			for _, key := range c.objects {
				if _, err := o.Put(t.Context(), key, strings.NewReader("x")); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time it is marked, or refused as before
				err := Claim(t.Context(), o, "me", c.refers)
				foreign := (*ForeignError)(nil)
				switch errors.As(err, &foreign); {
				case c.want == nil && err != nil, c.want != nil && (foreign == nil || *foreign != *c.want || !errors.Is(err, ErrForeign)):
					t.Fatalf("Claim = %v, want %v", err, c.want)
				case c.want != nil && c.want.Owner != "" && !strings.Contains(err.Error(), "database "+c.want.Owner):
					t.Errorf("%v does not say whose they are", err)
				}
			}
			if c.want == nil {
				if err := Claimed(t.Context(), o, "me"); err != nil {
					t.Errorf("Claimed = %v", err)
				}
				if err := Claim(t.Context(), o, "other", c.refers); !errors.Is(err, ErrForeign) || errors.Is(err, blob.ErrNotFound) {
					t.Errorf("Claim by another = %v, want ErrForeign", err)
				}
			}
		})
	}
}

func TestOfDatabasesThatClaimAtOnceOneAtMostIsLet(t *testing.T) {
	for range 50 {
		dir := t.TempDir()
		var begin, end sync.WaitGroup
		begin.Add(1)
		errs := make([]error, 4)
		for i := range errs {
			end.Go(func() {
				o := &dirblob.Objects{Dir: dir, Unsynced: true}
				begin.Wait()
				errs[i] = Claim(t.Context(), o, []string{"a", "b"}[i%2], nil)
			})
		}
		begin.Done()
		end.Wait()
		if (errs[0] == nil || errs[2] == nil) && (errs[1] == nil || errs[3] == nil) {
			t.Fatalf("both are let: %v", errs)
		}
		for _, err := range errs {
			if err != nil && !errors.Is(err, ErrForeign) {
				t.Error(err)
			}
		}
	}
}

// broken fails one operation.
type broken struct {
	blob.Objects
	op string
}

var errBroken = errors.New("broken")

func (o *broken) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	if o.op == "open" {
		return nil, blob.Object{}, errBroken
	}
	return o.Objects.Open(ctx, key, off, n)
}

func (o *broken) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if o.op == "put" {
		return 0, errBroken
	}
	return o.Objects.Put(ctx, key, r)
}

func TestAFailureIsNoClaim(t *testing.T) {
	key := NewKey(1, time.Now())
	for op, refers := range map[string][]string{"open": {key}, "put": nil} {
		o := &broken{&dirblob.Objects{Dir: t.TempDir(), Unsynced: true}, op}
		if err := Claim(t.Context(), o, "me", refers); !errors.Is(err, errBroken) || errors.Is(err, ErrForeign) {
			t.Errorf("%s fails: Claim = %v", op, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Claim(ctx, &dirblob.Objects{Dir: t.TempDir()}, "me", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Claim with an ended ctx = %v", err)
	}
}

package s3bytes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/s3bytes/s3test"
)

const threeParts = 2*minPart + 1000

var kinds = []s3test.Kind{s3test.Drop, s3test.CutRequest, s3test.Lose, s3test.CutAnswer, s3test.SlowDown}

// try is one fault, and Objects that it strikes.
type try struct {
	*testing.T
	o      *Objects
	proxy  *s3test.Proxy
	fault  s3test.Fault
	key    string // that nobody else uses
	again  bool   // requests are made again when they fail
	struck bool
}

// strike calls do while the fault lies in wait.
func (t *try) strike(do func()) {
	t.Helper()
	t.proxy.Plan(t.fault)
	do()
	t.struck = t.proxy.Struck() > 0
	t.proxy.Plan()
}

// eachFault calls do with each kind of fault at each request that is made in
// strike, for a client that makes one attempt for each and for one that makes
// more.
func eachFault(t *testing.T, do func(t *try)) {
	s := s3test.Start(t)
	proxy := s3test.NewProxy(t, s)
	for _, n := range []int{1, 4} {
		o := over(t, s, proxy.Endpoint, attempts(n))
		for _, kind := range kinds {
			struck := true
			for call := 1; struck && !t.Failed(); call++ {
				t.Run(fmt.Sprintf("%s at request %d of %d attempts", kind, call, n), func(t *testing.T) {
					key := fmt.Sprintf("%d/%s-%d", n, strings.ReplaceAll(string(kind), " ", "-"), call)
					try := &try{T: t, o: o, proxy: proxy, fault: s3test.Fault{Kind: kind, Call: call}, key: key, again: n > 1}
					do(try)
					clean(t, o)
					if struck = try.struck; !struck && call == 1 {
						t.Error("no fault has struck")
					}
				})
			}
		}
	}
}

// clean fails the test unless Sweep leaves no upload in parts, nor a file.
func clean(t testing.TB, o *Objects) {
	t.Helper()
	if _, err := o.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if n := uploads(t, o); n != 0 {
		t.Errorf("Sweep has left %d uploads", n)
	}
	if left := temporary(t, o); len(left) != 0 {
		t.Errorf("%v are left in TempDir", left)
	}
}

func TestPutUnderFaultsIsAllOrNothing(t *testing.T) {
	for _, size := range []int64{1000, threeParts} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			eachFault(t, func(t *try) {
				var n int64
				var err error
				t.strike(func() { n, err = t.o.Put(t.Context(), t.key, bytesOf(t.key, size)) })
				if t.again && err != nil && t.fault.Kind != s3test.CutAnswer {
					t.Errorf("Put with attempts to spare: %v", err)
				}
				if err == nil && n != size || err != nil && n != 0 || errors.Is(err, blob.ErrNotFound) {
					t.Errorf("Put = %d, %v", n, err)
				}
				switch seen := compare(t.Context(), t.o, t.key, 0, -1, size); {
				case seen == nil:
					if err != nil && t.fault.Kind != s3test.Lose && t.fault.Kind != s3test.CutAnswer {
						t.Errorf("Put = %v, and yet there is an object", err)
					}
				case err == nil || !errors.Is(seen, blob.ErrNotFound):
					t.Errorf("Put = %v, and then Open says: %v", err, seen)
				}
				if err != nil {
					mustPut(t, t.o, t.key+"-again", size)
				}
			})
		})
	}
}

func TestReadUnderFaultsIsTrueOrFails(t *testing.T) {
	s := s3test.Start(t)
	filled := over(t, s, s.Endpoint)
	for _, size := range []int64{0, 1000, threeParts} {
		key := fmt.Sprint("a/", size)
		mustPut(t, filled, key, size)
		for _, from := range slices.Compact([]int64{0, size / 2, size}) {
			t.Run(fmt.Sprint(size, " from ", from), func(t *testing.T) {
				eachFault(t, func(t *try) {
					t.o.Bucket = filled.Bucket
					var err error
					t.strike(func() { err = compare(t.Context(), t.o, key, from, -1, size) })
					var lie *wrong
					if errors.As(err, &lie) || errors.Is(err, blob.ErrNotFound) || t.again && err != nil {
						t.Errorf("Open and Read: %v", err)
					}
					if err := compare(t.Context(), t.o, key, from, -1, size); err != nil {
						t.Errorf("Open and Read again: %v", err)
					}
				})
			})
		}
	}
}

func TestDeleteUnderFaults(t *testing.T) {
	eachFault(t, func(t *try) {
		mustPut(t, t.o, t.key, 1000)
		mustPut(t, t.o, t.key+"-other", 1000)
		var err error
		t.strike(func() { err = t.o.Delete(t.Context(), t.key) })
		if errors.Is(err, blob.ErrNotFound) || t.again && err != nil {
			t.Errorf("Delete = %v", err)
		}
		seen := compare(t.Context(), t.o, t.key, 0, -1, 1000)
		if err == nil && seen == nil || seen != nil && !errors.Is(seen, blob.ErrNotFound) {
			t.Errorf("Delete = %v, and then Open says: %v", err, seen)
		}
		if err := t.o.Delete(t.Context(), t.key); err != nil {
			t.Errorf("Delete again: %v", err)
		}
		if err := compare(t.Context(), t.o, t.key+"-other", 0, -1, 1000); err != nil {
			t.Error(err)
		}
	})
}

func TestListUnderFaultsIsWholeOrFails(t *testing.T) {
	s := s3test.Start(t)
	filled := over(t, s, s.Endpoint)
	for i := range 20 {
		mustPut(t, filled, fmt.Sprintf("listed/%02d", i), 10)
	}
	eachFault(t, func(t *try) {
		t.o.Bucket = filled.Bucket
		list := func() (n int, last error) {
			for object, err := range t.o.List(t.Context(), "listed", "") {
				if last != nil {
					t.Errorf("List goes on after %v", last)
				}
				if last = err; err == nil {
					if object.Key != fmt.Sprintf("listed/%02d", n) {
						t.Errorf("%s is number %d", object.Key, n)
					}
					n++
				}
			}
			return n, last
		}
		t.strike(func() {
			if n, err := list(); err == nil && n != 20 || t.again && err != nil && t.fault.Kind != s3test.CutAnswer {
				t.Errorf("List shows %d objects, %v", n, err)
			}
		})
		if n, err := list(); n != 20 || err != nil {
			t.Errorf("List again shows %d objects, %v", n, err)
		}
	})
}

func TestSweepUnderFaults(t *testing.T) {
	eachFault(t, func(t *try) {
		mustPut(t, t.o, t.key, 10)
		strand(t, t.o, 5)
		var n int
		var err error
		t.strike(func() { n, err = t.o.Sweep(t.Context(), time.Now().Add(time.Hour)) })
		if errors.Is(err, blob.ErrNotFound) || n > 5 || !t.struck && n != 5 {
			t.Errorf("Sweep = %d, %v", n, err)
		}
		if t.again && err != nil && t.fault.Kind != s3test.CutAnswer {
			t.Errorf("Sweep with attempts to spare: %v", err)
		}
		if left := uploads(t, t.o); err == nil && left != 0 {
			t.Errorf("Sweep = %d, and it has left %d uploads", n, left)
		}
		clean(t, t.o)
		if err := compare(t.Context(), t.o, t.key, 0, -1, 10); err != nil {
			t.Error(err)
		}
	})
}

// A body that breaks off again and again is read to its end as long as there is
// some of it each time, and the object is still the same.
func TestReaderResumes(t *testing.T) {
	s := s3test.Start(t)
	proxy := s3test.NewProxy(t, s)
	o := over(t, s, proxy.Endpoint, attempts(1))
	cuts := func(n int, kind s3test.Kind) (faults []s3test.Fault) {
		for call := range n {
			faults = append(faults, s3test.Fault{Kind: kind, Op: "GetObject", Call: call + 1})
		}
		return faults
	}
	const size = minPart + 1000
	mustPut(t, o, "a/key", size)
	proxy.Plan(cuts(10, s3test.CutAnswer)...)
	if err := compare(t.Context(), o, "a/key", 0, -1, size); err != nil {
		t.Error(err)
	}
	if got := proxy.Counts()["GetObject"]; got != 11 {
		t.Errorf("%d requests, want 11", got)
	}
	proxy.Plan(cuts(100, s3test.CutAnswer)...)
	if err := compare(t.Context(), o, "a/key", 100, 1000, size); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("what always breaks off: %v, want io.ErrUnexpectedEOF", err)
	}
	// While the first half is on its way, the object becomes another. Nobody
	// does that to a key, but if it happens, nobody must get a mixture.
	for _, change := range []string{"deleted", "another"} {
		proxy.Plan(cuts(1, s3test.CutAnswer)...)
		r, _, err := o.Open(t.Context(), "a/key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Delete(t.Context(), "a/key"); err != nil {
			t.Fatal(err)
		}
		if change == "another" {
			if _, err := o.Put(t.Context(), "a/key", bytesOf("another", size)); err != nil {
				t.Fatal(err)
			}
		}
		_, err = io.Copy(io.Discard, r)
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("reading what is %s: %v, want io.ErrUnexpectedEOF", change, err)
		}
		r.Close()
		if err := o.Delete(t.Context(), "a/key"); err != nil {
			t.Fatal(err)
		}
		mustPut(t, o, "a/key", size)
	}
}

// A request that arrives when its Put has long failed replaces nothing.
func TestLateRequestReplacesNothing(t *testing.T) {
	for _, op := range []string{"PutObject", "CompleteMultipartUpload"} {
		t.Run(op, func(t *testing.T) {
			s := s3test.Start(t)
			proxy := s3test.NewProxy(t, s)
			o := over(t, s, proxy.Endpoint)
			size := int64(1000)
			if op != "PutObject" {
				size = threeParts
			}
			held, release := make(chan struct{}), make(chan struct{})
			proxy.Plan(s3test.Fault{Kind: s3test.Hold, Op: op, Call: 1, Held: held, Release: release})
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error)
			go func() {
				_, err := o.Put(ctx, "a/key", bytesOf("late", size))
				failed <- err
			}()
			<-held
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("Put = %v, want context.Canceled", err)
			}
			if n := uploads(t, o); n != 0 {
				t.Errorf("%d uploads are left: an upload is aborted, though ctx has ended", n)
			}
			mustPut(t, o, "a/key", 2000)
			close(release)
			proxy.Wait()
			if err := compare(t.Context(), o, "a/key", 0, -1, 2000); err != nil {
				t.Error(err)
			}
		})
	}
}

// The answer that says "there is one already" is a success for whose it is, and
// for nobody else.
func TestLostAnswerIsNoLicence(t *testing.T) {
	s := s3test.Start(t)
	proxy := s3test.NewProxy(t, s)
	o := over(t, s, proxy.Endpoint, attempts(4))
	for op, size := range map[string]int64{"PutObject": 1000, "CompleteMultipartUpload": threeParts} {
		key := "a/" + op
		proxy.Plan(s3test.Fault{Kind: s3test.Lose, Op: op, Call: 1})
		mustPut(t, o, key, size)
		// A server may say to the second CompleteMultipartUpload what it said to
		// the first.
		if got := proxy.Counts(); got[op] != 2 || got["HeadObject"] != 1 && op == "PutObject" {
			t.Errorf("%v, want two attempts and a look", got)
		}
		// The same bytes, by another call, whose first answer is lost too.
		proxy.Plan(s3test.Fault{Kind: s3test.Lose, Op: op, Call: 1})
		if n, err := o.Put(t.Context(), key, bytesOf(key, size)); err == nil || n != 0 {
			t.Errorf("Put of a key that is taken = %d, %v", n, err)
		}
		proxy.Plan()
		if n, err := o.Put(t.Context(), key, bytesOf(key, size)); status(err) != http.StatusPreconditionFailed || n != 0 {
			t.Errorf("Put of a key that is taken = %d, %v", n, err)
		}
	}
	if n := uploads(t, o); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// oblivious does what completes an upload, and then knows nothing of either.
type oblivious struct{ t *testing.T }

func (o oblivious) Do(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultClient.Do(r)
	if err != nil || r.Method != "POST" || !r.URL.Query().Has("uploadId") {
		return answer, err
	}
	defer answer.Body.Close()
	if b, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		o.t.Errorf("%s, %s, %v", answer.Status, b, err)
	}
	answer.StatusCode = http.StatusNotFound
	answer.Body = io.NopCloser(strings.NewReader("<Error><Code>NoSuchUpload</Code></Error>"))
	return answer, nil
}

func TestUploadThatIsGoneMayBeComplete(t *testing.T) {
	s := s3test.Start(t)
	o := over(t, s, s.Endpoint, func(o *s3.Options) { o.HTTPClient = oblivious{t} })
	mustPut(t, o, "a/key", threeParts)
	if err := compare(t.Context(), o, "a/key", 0, -1, threeParts); err != nil {
		t.Error(err)
	}
}

// busy answers to the first try to make an object that another is under way, as a server
// does that is still at a request whose answer was given up.
type busy struct {
	op   func(*http.Request) bool
	left int
}

func (b *busy) Do(r *http.Request) (*http.Response, error) {
	if !b.op(r) || b.left == 0 {
		return http.DefaultClient.Do(r)
	}
	b.left--
	answer := "<Error><Code>ConditionalRequestConflict</Code></Error>"
	return &http.Response{StatusCode: http.StatusConflict, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

func TestWhatIsUnderWayIsWaitedFor(t *testing.T) {
	s := s3test.Start(t)
	for size, op := range map[int64]func(*http.Request) bool{
		1000:       func(r *http.Request) bool { return r.Method == "PUT" },
		threeParts: func(r *http.Request) bool { return r.Method == "POST" && r.URL.Query().Has("uploadId") },
	} {
		server := &busy{op, 2}
		o := over(t, s, s.Endpoint, attempts(3), func(o *s3.Options) { o.HTTPClient = server })
		key := fmt.Sprint("a/", size)
		mustPut(t, o, key, size)
		if err := compare(t.Context(), o, key, 0, -1, size); err != nil {
			t.Error(err)
		}
		server.left = 3
		if n, err := o.Put(t.Context(), "a/other", bytesOf("a/other", size)); status(err) != http.StatusConflict || n != 0 {
			t.Errorf("Put = %d, %v, want the last answer", n, err)
		}
		if n := uploads(t, o); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
	}
}

// What fails while a part is on its way does not wait for that.
func TestPutFailsAtOnce(t *testing.T) {
	s := s3test.Start(t)
	proxy := s3test.NewProxy(t, s)
	o := over(t, s, proxy.Endpoint, func(o *s3.Options) { o.HTTPClient = http.DefaultClient }) // which would wait for ever
	held, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	proxy.Plan(s3test.Fault{Kind: s3test.Hold, Op: "UploadPart", Call: 1, Held: held, Release: release})
	cause := errors.New("the reader's own")
	r := io.MultiReader(bytesOf("a/key", minPart+1), readFunc(func([]byte) (int, error) {
		<-held
		return 0, cause
	}))
	if n, err := o.Put(t.Context(), "a/key", r); !errors.Is(err, cause) || n != 0 {
		t.Errorf("Put = %d, %v, want the reader's error", n, err)
	}
	if n := uploads(t, o); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// Answers that no good server gives end in an error, and after a few requests.
func TestOddAnswersAreNoContent(t *testing.T) {
	s := s3test.Start(t)
	for _, c := range []struct {
		what     string
		off, n   int64
		status   int
		header   http.Header
		body     string
		requests int32
		want     error
	}{
		{"all, without a length", 0, -1, 200, nil, "0123456789", 1, nil},
		{"all, in place of a range", 2, 8, 200, nil, "0123456789", 1, nil},
		{"another range", 2, 8, 206, http.Header{"Content-Range": {"bytes 1-9/10"}}, "123456789", 1, nil},
		{"a shorter range", 2, 8, 206, http.Header{"Content-Range": {"bytes 2-8/10"}}, "2345678", 1, nil},
		{"a range of unknown content", 2, 8, 206, http.Header{"Content-Range": {"bytes 2-9/*"}}, "23456789", 1, nil},
		{"never a byte", 2, 8, 206, http.Header{"Content-Range": {"bytes 2-9/10"}, "Etag": {`"tag"`}}, "", 1 + maxResumes, io.ErrUnexpectedEOF},
		{"never a byte, of nothing in particular", 2, 8, 206, http.Header{"Content-Range": {"bytes 2-9/10"}}, "", 1, io.ErrUnexpectedEOF},
	} {
		var requests atomic.Int32
		fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			maps.Copy(w.Header(), c.header)
			w.WriteHeader(c.status)
			http.NewResponseController(w).Flush() // without a length
			io.WriteString(w, c.body)
		}))
		r, _, err := over(t, s, fake.URL, attempts(1)).Open(t.Context(), "a/key", c.off, c.n)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		fake.Close()
		if n := requests.Load(); err == nil || errors.Is(err, blob.ErrNotFound) || c.want != nil && !errors.Is(err, c.want) || n != c.requests {
			t.Errorf("%s: %v after %d requests, want %v after %d", c.what, err, n, c.want, c.requests)
		}
	}
}

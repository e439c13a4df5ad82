package s3bytes

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/examples/store/s3bytes/s3test"
)

// attempts makes that many for each request, with no pause between them.
func attempts(n int) func(*s3.Options) {
	return func(o *s3.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = n
			o.RateLimiter = ratelimit.None
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	}
}

// over returns Objects in the bucket of s, reached by endpoint.
func over(t testing.TB, s s3test.Server, endpoint string, options ...func(*s3.Options)) *Objects {
	c := Config{Endpoint: endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey, PathStyle: true}
	return &Objects{Client: NewClient(c, options...), Bucket: s.Bucket, Prefix: "below/this", TempDir: t.TempDir(), page: 7}
}

// uploads returns how many uploads in parts are under way.
func uploads(t testing.TB, o *Objects) int {
	t.Helper()
	out, err := o.Client.ListMultipartUploads(context.WithoutCancel(t.Context()), &s3.ListMultipartUploadsInput{Bucket: &o.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

// strand leaves n uploads in parts.
func strand(t testing.TB, o *Objects, n int) int {
	t.Helper()
	for i := range n {
		key := o.name(fmt.Sprintf("stranded/%d", i/2)) // some have more than one
		u, err := o.Client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &o.Bucket, Key: key})
		if err == nil {
			_, err = o.Client.UploadPart(t.Context(), &s3.UploadPartInput{
				Bucket: &o.Bucket, Key: key, UploadId: u.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("part"),
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestObjects(t *testing.T) {
	s3test.Start(t) // one server for all clauses
	blobtest.TestObjects(t, blobtest.ObjectsOptions{
		New: func(t testing.TB) blob.Objects {
			s := s3test.Start(t)
			return over(t, s, s3test.NewProxy(t, s).Endpoint, attempts(4))
		},
		Reopen: func(t testing.TB, o blob.Objects) blob.Objects {
			old := o.(*Objects)
			return &Objects{Client: old.Client, Bucket: old.Bucket, Prefix: old.Prefix, TempDir: old.TempDir, PartSize: 1 << 30}
		},
		Things: func(t testing.TB, o blob.Objects) int {
			n := uploads(t, o.(*Objects)) + len(temporary(t, o.(*Objects)))
			for _, err := range o.List(t.Context(), "", "") {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			return n
		},
		Strand: func(t testing.TB, o blob.Objects) int { return strand(t, o.(*Objects), 17) },
		Sizes:  []int{bufferSize - 1, bufferSize, bufferSize + 1, minPart, minPart + 1},
	})
}

// temporary returns the names of files that wait.
func temporary(t testing.TB, o *Objects) []os.DirEntry {
	t.Helper()
	names, err := os.ReadDir(o.TempDir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func mustPut(t testing.TB, o *Objects, key string, size int64) {
	t.Helper()
	if n, err := o.Put(t.Context(), key, bytesOf(key, size)); err != nil || n != size {
		t.Fatalf("Put = %d, %v, want %d", n, err, size)
	}
}

// bytesOf returns size bytes that are like no others.
func bytesOf(key string, size int64) io.Reader {
	return io.LimitReader(&noise{seed: key}, size)
}

type noise struct {
	seed string
	x    uint64
	left []byte
}

func (n *noise) Read(p []byte) (int, error) {
	if n.left == nil {
		for _, c := range []byte(n.seed) {
			n.x = n.x*31 + uint64(c)
		}
		n.left = make([]byte, 0, 8)
	}
	done := copy(p, n.left)
	n.left = n.left[done:]
	for done < len(p) {
		n.x = n.x*6364136223846793005 + 1442695040888963407
		if len(p)-done >= 8 {
			binary.LittleEndian.PutUint64(p[done:], n.x)
			done += 8
			continue
		}
		b := binary.LittleEndian.AppendUint64(nil, n.x)
		k := copy(p[done:], b)
		n.left, done = b[k:], done+k
	}
	return done, nil
}

// compare reads what mustPut has put, and fails unless it is that.
func compare(ctx context.Context, o *Objects, key string, off, n, size int64) error {
	r, object, err := o.Open(ctx, key, off, n)
	if err != nil {
		return err
	}
	defer r.Close()
	if object.Size != size {
		return fmt.Errorf("size %d, want %d", object.Size, size)
	}
	want := bytesOf(key, size)
	if _, err := io.CopyN(io.Discard, want, off); err != nil {
		return err
	}
	if n >= 0 {
		want = io.LimitReader(want, n)
	}
	return same(r, want)
}

func same(got, want io.Reader) error {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := 0; ; at += len(a) {
		n, err := io.ReadFull(got, a)
		m, _ := io.ReadFull(want, b)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if string(a[:n]) != string(b[:m]) {
			return &wrong{fmt.Sprintf("the %d bytes at %d are not the %d that were put there", n, at, m)}
		}
		if err != nil {
			if _, e := got.Read(a[:1]); e != io.EOF { // ReadFull hides a reader's own
				return e
			}
			return nil
		}
	}
}

// wrong is an answer that is no error, and not true.
type wrong struct{ what string }

func (w *wrong) Error() string { return w.what }

func TestRequestsAreFew(t *testing.T) {
	s := s3test.Start(t)
	proxy := s3test.NewProxy(t, s)
	o := over(t, s, proxy.Endpoint)
	o.page = 0
	expect := func(what string, want string, do func()) {
		t.Helper()
		proxy.Plan()
		do()
		counts := proxy.Counts()
		delete(counts, "")
		if got := fmt.Sprint(counts); got != want {
			t.Errorf("%s makes requests %s, want %s", what, got, want)
		}
	}
	opens := func(key string, off, n, size int64) func() {
		return func() {
			t.Helper()
			if err := compare(t.Context(), o, key, off, n, size); err != nil {
				t.Errorf("Open(%q, %d, %d): %v", key, off, n, err)
			}
		}
	}
	const large = 100 << 20
	expect("Put of nothing", "map[PutObject:1]", func() { mustPut(t, o, "a/empty", 0) })
	expect("Put of 1 KiB", "map[PutObject:1]", func() { mustPut(t, o, "a/small", 1<<10) })
	expect("Put of a part", "map[PutObject:1]", func() { mustPut(t, o, "a/part", minPart) })
	expect("Put of a part and a byte", "map[CompleteMultipartUpload:1 CreateMultipartUpload:1 UploadPart:2]", func() { mustPut(t, o, "a/parts", minPart+1) })
	expect("Put of 100 MiB", "map[CompleteMultipartUpload:1 CreateMultipartUpload:1 UploadPart:20]", func() { mustPut(t, o, "a/large", large) })
	expect("Open of all", "map[GetObject:1]", opens("a/large", 0, -1, large))
	expect("Open of a range", "map[GetObject:1]", opens("a/large", large/2, 1000, large))
	expect("Open of no bytes", "map[GetObject:1]", opens("a/large", 10, 0, large))
	expect("Open of all of nothing", "map[GetObject:1]", opens("a/empty", 0, -1, 0))
	expect("Open at the end", "map[GetObject:1 HeadObject:1]", opens("a/small", 1<<10, -1, 1<<10))
	expect("Open of what is not there", "map[GetObject:1]", func() {
		if _, _, err := o.Open(t.Context(), "a/none", 5, 10); !errors.Is(err, blob.ErrNotFound) {
			t.Error(err)
		}
	})
	expect("List", "map[ListObjectsV2:1]", func() {
		for _, err := range o.List(t.Context(), "", "") {
			if err != nil {
				t.Error(err)
			}
		}
	})
	expect("Link", "map[]", func() {
		if _, err := o.Link(t.Context(), "a/small", time.Minute); err != nil {
			t.Error(err)
		}
	})
	expect("Delete", "map[DeleteObject:1]", func() {
		if err := o.Delete(t.Context(), "a/large"); err != nil {
			t.Error(err)
		}
	})
	expect("Sweep of nothing", "map[ListMultipartUploads:1]", func() {
		if _, err := o.Sweep(t.Context(), time.Now()); err != nil {
			t.Error(err)
		}
	})
}

func TestOneOfManyPutsToAKeyWins(t *testing.T) {
	s := s3test.Start(t)
	o := over(t, s, s.Endpoint)
	for _, size := range []int64{1000, minPart + 1} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		key := fmt.Sprint("race/", size)
		for range 16 {
			wg.Go(func() {
				// The same bytes: what tells them apart is the call alone.
				_, err := o.Put(t.Context(), key, bytesOf(key, size))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if status := status(err); status != http.StatusPreconditionFailed && status != http.StatusConflict {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d of 16 puts of %d bytes have won, want 1", won, size)
		}
		if err := compare(t.Context(), o, key, 0, -1, size); err != nil {
			t.Error(err)
		}
		if n := uploads(t, o); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
	}
}

// flip changes a byte of each body that it sends.
type flip struct{ calls int }

func (f *flip) Do(r *http.Request) (*http.Response, error) {
	if r.Method == "PUT" {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		b[len(b)/2] ^= 1
		r.Body = io.NopCloser(strings.NewReader(string(b)))
		f.calls++
	}
	return http.DefaultClient.Do(r)
}

func TestTheServerRefusesBytesThatChangedOnTheWay(t *testing.T) {
	s := s3test.Start(t)
	f := &flip{}
	o := over(t, s, s.Endpoint, attempts(2), func(o *s3.Options) {
		o.HTTPClient = f
		// As over TLS, where the signature leaves the body out.
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			if stack.ID() != "PutObject" && stack.ID() != "UploadPart" {
				return nil
			}
			return v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware(stack)
		})
	})
	for _, size := range []int64{1000, minPart + 1} {
		f.calls = 0
		key := fmt.Sprint("changed/", size)
		if n, err := o.Put(t.Context(), key, bytesOf(key, size)); status(err) != http.StatusBadRequest || n != 0 || f.calls == 0 {
			t.Errorf("Put of %d bytes = %d, %v after %d changes, want 400 Bad Request", size, n, err, f.calls)
		}
		if _, _, err := o.Open(t.Context(), key, 0, -1); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Open = %v", err)
		}
	}
	if n := uploads(t, o); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

func TestAFailureIsNeverNotFound(t *testing.T) {
	s := s3test.Start(t)
	var code string
	var answer int
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(answer)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}))
	defer fake.Close()
	stranger := s
	stranger.SecretKey = rand.Text()
	nowhere := s
	nowhere.Bucket = "bucket-that-is-nowhere"
	type attempt struct {
		what string
		o    *Objects
	}
	tries := []attempt{{"a wrong secret", over(t, stranger, s.Endpoint, attempts(1))}, {"no bucket", over(t, nowhere, s.Endpoint, attempts(1))}}
	check := func(what string, o *Objects) {
		t.Helper()
		_, _, open := o.Open(t.Context(), "a/key", 5, 10)
		_, put := o.Put(t.Context(), "a/key", strings.NewReader("content"))
		_, sweep := o.Sweep(t.Context(), time.Now())
		var list error
		for _, err := range o.List(t.Context(), "", "") {
			list = err
		}
		for op, err := range map[string]error{"Open": open, "Put": put, "Sweep": sweep, "List": list, "Delete": o.Delete(t.Context(), "a/key")} {
			if err == nil || errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrRange) || errors.Is(err, blob.ErrUnsupported) {
				t.Errorf("%s, %s = %v", what, op, err)
			}
		}
	}
	for _, try := range tries {
		check(try.what, try.o)
	}
	o := over(t, s, fake.URL, attempts(1))
	for _, c := range []struct {
		answer int
		code   string
	}{{404, "NoSuchBucket"}, {404, ""}, {403, "AccessDenied"}, {500, "InternalError"}, {503, "SlowDown"}, {502, "NoSuchUpload"}, {400, "RequestTimeout"}, {409, "Conflict"}} {
		code, answer = c.code, c.answer
		check(fmt.Sprint(c), o)
	}
}

func TestPartsOfAnyLengthSuffice(t *testing.T) {
	for _, c := range []struct{ size, total int64 }{{0, 5_115_000 << 20}, {8 << 20, 8_184_000 << 20}} {
		o, total := &Objects{PartSize: c.size}, int64(0)
		for n := 1; n <= maxParts; n++ {
			if got := o.partSize(n); got < minPart || got > maxPart || n <= 1000 && got != o.partSize(1) {
				t.Fatalf("part %d has %d bytes", n, got)
			}
			total += o.partSize(n)
		}
		if total != c.total {
			t.Errorf("parts from %d up have %d bytes, want %d", c.size, total, c.total)
		}
	}
	if got := (&Objects{PartSize: 4 << 30}).partSize(maxParts); got != maxPart {
		t.Errorf("the last part has %d bytes", got)
	}
}

func TestOptionsOfAClientHaveTheLastWord(t *testing.T) {
	for _, c := range []struct {
		option func(*s3.Options)
		want   int
	}{
		{func(*s3.Options) {}, 4},
		{attempts(1), 1},
		{func(o *s3.Options) { o.RetryMaxAttempts = 2 }, 2},
	} {
		if n := NewClient(Config{}, c.option).Options().Retryer.MaxAttempts(); n != c.want {
			t.Errorf("%d attempts, want %d", n, c.want)
		}
	}
}

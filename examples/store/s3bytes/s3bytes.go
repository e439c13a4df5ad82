// Package s3bytes keeps [blob.Objects] in a bucket of Amazon S3 or of a server
// that speaks its protocol.
//
// # What the server must have
//
// Reads that follow writes, as S3 has since 2020; conditional writes
// (If-None-Match on PutObject and CompleteMultipartUpload), which a few servers
// accept and ignore: see that yours answers 412; SHA-256 checksums of uploads;
// listings in byte order, which directory buckets lack. The bucket is without
// versioning, or what is deleted stays. The credentials allow GetObject,
// PutObject, DeleteObject, AbortMultipartUpload, and of the bucket ListBucket
// and ListBucketMultipartUploads. Without ListBucket, S3 answers 403 for what is
// not there, and that is no [blob.ErrNotFound].
//
// # Requests
//
//	Put, up to PartSize   1   PutObject
//	Put of n parts        n+2 CreateMultipartUpload, n UploadPart, CompleteMultipartUpload
//	Open                  1   GetObject; 1 more, HeadObject, when off is not below Size
//	Delete                1   DeleteObject
//	List                  1   ListObjectsV2 for each 1000 objects
//	Sweep                 1   ListMultipartUploads for each 1000 uploads, 1 AbortMultipartUpload for each it removes
//	Link                  0
//
// Nothing is copied, renamed or asked for first. What fails is tried again as
// the Client's Retryer says.
package s3bytes

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/wharfage/wharfage/blob"
)

// Objects implements [blob.Objects], [blob.ObjectSweeper] and [blob.Linker]. It
// must not be copied after its first use.
type Objects struct {
	Client *s3.Client
	Bucket string
	Prefix string // a key below which all is ours, of 23 characters at most; "" for the whole bucket

	// PartSize is how much one request uploads at most, in bytes; 0 means 5 MiB,
	// the least that S3 allows. What is longer is uploaded in parts. Their size
	// doubles with each 1000 parts, up to 5 GiB, so that the 10,000 that an
	// object may have suffice for 4.8 TiB (5,115,000 MiB; with a larger PartSize
	// in proportion, until the server says no). For a server that wants parts of
	// one size, choose it such that 1000 suffice.
	PartSize int64

	// TempDir is for the files that parts wait in while they are uploaded: at
	// most two for a Put, each of a part. "" means [os.TempDir].
	TempDir string

	// LinkClient signs links, for the address under which clients know the
	// server. Nil means Client.
	LinkClient *s3.Client

	buffers sync.Pool // of *bufio.Reader
	page    int32     // a test's; of listings
}

var _ interface {
	blob.Objects
	blob.ObjectSweeper
	blob.Linker
} = (*Objects)(nil)

// Config is what NewClient needs to know.
type Config struct {
	Endpoint             string // URL of the server; "" for Amazon's own
	Region               string // "" means us-east-1, which most other servers take
	AccessKey, SecretKey string
	PathStyle            bool // the bucket is in the path, not in the host's name: most servers but Amazon's want that
}

// NewClient returns a client with a bounded time to wait for each answer, and at
// most four attempts a request, some seconds apart. Options, if any, have the
// last word. A program that gets its credentials otherwise makes its own client.
func NewClient(c Config, options ...func(*s3.Options)) *s3.Client {
	o := s3.Options{
		Region:       c.Region,
		Credentials:  credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
		UsePathStyle: c.PathStyle,
		Retryer:      retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 4 }), // RetryMaxAttempts would overrule that of an option
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.ResponseHeaderTimeout = time.Minute
			t.MaxIdleConnsPerHost = 64
		}),
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if c.Endpoint != "" {
		o.BaseEndpoint = &c.Endpoint
	}
	return s3.New(o, options...)
}

var errKey = fmt.Errorf("no key for an object: %w", blob.ErrUnsupported)

// check refuses an ended ctx and what is no key.
func check(ctx context.Context, key string) error {
	if !isKey(key) {
		return errKey
	}
	return ctx.Err()
}

func isKey(key string) bool {
	if len(key) > 1000 {
		return false
	}
	for part := range strings.SplitSeq(key, "/") {
		if len(part) == 0 || len(part) > 200 || part[0] == '.' || part[len(part)-1] == '.' {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._+=-", c) >= 0) {
				return false
			}
		}
	}
	return true
}

// name returns what the bucket calls key.
func (o *Objects) name(key string) *string { return aws.String(o.prefix() + key) }

func (o *Objects) prefix() string {
	if o.Prefix == "" {
		return ""
	}
	return o.Prefix + "/"
}

// fail says which operation failed on what. An error of a request that ended
// with ctx is ctx's.
func fail(ctx context.Context, op, key string, err error) error {
	if e := ctx.Err(); e != nil && !errors.Is(err, e) {
		err = errors.Join(e, err)
	}
	return fmt.Errorf("%s object %.100q: %w", op, key, err)
}

// is tells whether the server gave one of these codes for an error.
func is(err error, codes ...string) bool {
	var api smithy.APIError
	if errors.As(err, &api) {
		for _, code := range codes {
			if api.ErrorCode() == code {
				return true
			}
		}
	}
	return false
}

// status returns the HTTP status that an error came with, or 0.
func status(err error) int {
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// Delete implements [blob.Objects]. What is not there is a success.
func (o *Objects) Delete(ctx context.Context, key string) error {
	err := check(ctx, key)
	if err == nil {
		_, err = o.Client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &o.Bucket, Key: o.name(key)})
	}
	if err != nil && !is(err, "NoSuchKey") {
		return fail(ctx, "delete", key, err)
	}
	return nil
}

// List implements [blob.Objects]. It holds a page of objects in memory. What is
// in the bucket under a name that is no key is left out.
func (o *Objects) List(ctx context.Context, under, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		if err := o.list(ctx, under, after, yield); err != nil {
			yield(blob.Object{}, fail(ctx, "list", under, err))
		}
	}
}

func (o *Objects) list(ctx context.Context, under, after string, yield func(blob.Object, error) bool) error {
	folder := o.prefix()
	if under != "" {
		if err := check(ctx, under); err != nil {
			return err
		}
		folder += under + "/"
	}
	in := &s3.ListObjectsV2Input{Bucket: &o.Bucket, Prefix: &folder}
	if o.page > 0 {
		in.MaxKeys = &o.page
	}
	last := o.prefix() + after
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if last >= folder && last != "" {
			in.StartAfter = aws.String(last)
		}
		page, err := o.Client.ListObjectsV2(ctx, in)
		if err != nil {
			return err
		}
		for _, object := range page.Contents {
			name := aws.ToString(object.Key)
			if name <= last {
				return fmt.Errorf("the server lists %.100q after %.100q", name, last)
			}
			last = name
			key, ours := strings.CutPrefix(name, o.prefix())
			if !ours || !isKey(key) {
				continue
			}
			if !yield(blob.Object{Key: key, Size: aws.ToInt64(object.Size), ModTime: aws.ToTime(object.LastModified)}, nil) {
				return nil
			}
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		if len(page.Contents) == 0 {
			return errors.New("the server says that its listing goes on, but not how")
		}
	}
}

// Sweep implements [blob.ObjectSweeper]. What calls leave behind are uploads in
// parts; their age is by the server's clock.
func (o *Objects) Sweep(ctx context.Context, cutoff time.Time) (int, error) {
	n, err := o.sweep(ctx, cutoff)
	if err != nil {
		return n, fail(ctx, "sweep", o.Prefix, err)
	}
	return n, nil
}

func (o *Objects) sweep(ctx context.Context, cutoff time.Time) (int, error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &o.Bucket, Prefix: aws.String(o.prefix())}
	if o.page > 0 {
		in.MaxUploads = &o.page
	}
	for n := 0; ; {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		page, err := o.Client.ListMultipartUploads(ctx, in)
		if err != nil {
			return n, err
		}
		for _, u := range page.Uploads {
			key, ours := strings.CutPrefix(aws.ToString(u.Key), o.prefix())
			if !ours || !isKey(key) || u.Initiated == nil || !u.Initiated.Before(cutoff) {
				continue
			}
			_, err := o.Client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &o.Bucket, Key: u.Key, UploadId: u.UploadId})
			if is(err, "NoSuchUpload") {
				continue // it has ended
			}
			if err != nil {
				return n, err
			}
			n++
		}
		if !aws.ToBool(page.IsTruncated) {
			return n, nil
		}
		if len(page.Uploads) == 0 {
			return n, errors.New("the server says that its listing goes on, but not how")
		}
		in.KeyMarker = lastButOne(page.Uploads)
	}
}

// lastButOne returns the last key but one in a page, to go on after: a key can
// have several uploads, and be on two pages. The server's own marker of an
// upload would do, but not all servers take theirs. If there is only one key, a
// further sweep will see the rest of it.
func lastButOne(uploads []types.MultipartUpload) *string {
	last := uploads[len(uploads)-1].Key
	for _, u := range slices.Backward(uploads) {
		if aws.ToString(u.Key) < aws.ToString(last) {
			return u.Key
		}
	}
	return last
}

// Link implements [blob.Linker]. S3 allows seven days at most; more matches
// [blob.ErrUnsupported].
func (o *Objects) Link(ctx context.Context, key string, ttl time.Duration) (string, error) {
	err := check(ctx, key)
	if err == nil && ttl > 7*24*time.Hour {
		err = fmt.Errorf("a link for %v: %w", ttl, blob.ErrUnsupported)
	}
	if err != nil {
		return "", fail(ctx, "link", key, err)
	}
	client := o.LinkClient
	if client == nil {
		client = o.Client
	}
	req, err := s3.NewPresignClient(client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &o.Bucket, Key: o.name(key)}, s3.WithPresignExpires(ttl))
	if err != nil {
		return "", fail(ctx, "link", key, err)
	}
	return req.URL, nil
}

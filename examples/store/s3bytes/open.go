package s3bytes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/wharfage/wharfage/blob"
)

// maxResumes is how often in a row a reader asks again without getting a byte.
const maxResumes = 3

// Open implements [blob.Objects]. When the server breaks off, the reader asks it
// for the rest of the same object. Its content is not checked against its sum:
// whoever asked for a digest does that.
func (o *Objects) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	r, object, err := o.open(ctx, key, off, n)
	if err != nil {
		return nil, blob.Object{}, fail(ctx, "open", key, err)
	}
	return r, object, nil
}

func (o *Objects) open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	if err := check(ctx, key); err != nil {
		return nil, blob.Object{}, err
	}
	end := off + n
	if n < 0 || end < off {
		end = math.MaxInt64
	}
	r := &body{o: o, ctx: ctx, key: key, at: off, end: max(end, off+1)} // no bytes is no Range
	object, err := r.get("")
	switch {
	case is(err, "NoSuchKey"):
		err = fmt.Errorf("%w: %w", blob.ErrNotFound, err)
	case status(err) == http.StatusRequestedRangeNotSatisfiable: // there are none at off
		return o.openEnd(ctx, key, off)
	}
	if err != nil {
		return nil, blob.Object{}, err
	}
	if n == 0 {
		return none(), object, r.Close()
	}
	return r, object, nil
}

func none() io.ReadCloser { return io.NopCloser(eof{}) }

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// openEnd opens what has an end at or before off, or else is out of range.
func (o *Objects) openEnd(ctx context.Context, key string, off int64) (io.ReadCloser, blob.Object, error) {
	head, err := o.Client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.Bucket, Key: o.name(key)})
	if is(err, "NotFound", "NoSuchKey") { // the key, since the bucket was there a moment ago
		err = fmt.Errorf("%w: %w", blob.ErrNotFound, err)
	}
	if err != nil {
		return nil, blob.Object{}, err
	}
	size := aws.ToInt64(head.ContentLength)
	switch {
	case off > size:
		return nil, blob.Object{}, blob.ErrRange
	case off < size:
		return nil, blob.Object{}, fmt.Errorf("the server has %d bytes, and none from %d on", size, off)
	}
	return none(), blob.Object{Key: key, Size: size, ModTime: aws.ToTime(head.LastModified)}, nil
}

// body reads an object from at up to end.
type body struct {
	o       *Objects
	ctx     context.Context
	key     string
	at, end int64
	etag    string
	rest    io.ReadCloser // what the server has still to send
	resumes int           // since the last byte
	err     error
}

// get asks for the bytes from r.at up to r.end, and cuts r.end at the end of the
// object. If etag is not empty, it is that object's.
func (r *body) get(etag string) (blob.Object, error) {
	in := &s3.GetObjectInput{Bucket: &r.o.Bucket, Key: r.o.name(r.key)}
	ranged := r.at > 0 || r.end < math.MaxInt64 // an empty object has no range
	switch {
	case r.end < math.MaxInt64:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", r.at, r.end-1))
	case ranged:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", r.at))
	}
	if etag != "" {
		in.IfMatch = &etag
	}
	out, err := r.o.Client.GetObject(r.ctx, in, func(o *s3.Options) {
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	if err != nil {
		return blob.Object{}, err
	}
	var from, to, size int64
	switch {
	case ranged:
		_, err = fmt.Sscanf(aws.ToString(out.ContentRange), "bytes %d-%d/%d", &from, &to, &size)
	case out.ContentLength == nil:
		err = errors.New("no Content-Length")
	default:
		size, to = *out.ContentLength, *out.ContentLength-1
	}
	if err != nil {
		out.Body.Close()
		return blob.Object{}, fmt.Errorf("what the server sends for Range %q cannot be told: %w", aws.ToString(in.Range), err)
	}
	if end := min(r.end, size); from != r.at || to+1 != end {
		out.Body.Close()
		return blob.Object{}, fmt.Errorf("the server sends bytes %d to %d of %d, not %d to %d", from, to, size, r.at, end-1)
	}
	r.end, r.rest, r.etag = to+1, out.Body, aws.ToString(out.ETag)
	return blob.Object{Key: r.key, Size: size, ModTime: aws.ToTime(out.LastModified)}, nil
}

func (r *body) Read(p []byte) (int, error) {
	for r.err == nil && r.at < r.end && len(p) > 0 {
		n, err := r.rest.Read(p[:min(int64(len(p)), r.end-r.at)])
		if n > 0 {
			r.at += int64(n)
			r.resumes = 0
			return n, nil // an error comes again
		}
		if err != nil {
			r.resume(err)
		}
	}
	if r.err == nil && r.at == r.end && len(p) > 0 {
		return 0, io.EOF
	}
	return 0, r.err
}

// resume asks for the rest, which broke off with err.
func (r *body) resume(err error) {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	r.rest.Close()
	if r.resumes++; r.resumes > maxResumes || r.etag == "" || r.ctx.Err() != nil {
		r.err = fail(r.ctx, "read", r.key, err)
		return
	}
	if _, e := r.get(r.etag); e != nil {
		r.err = fail(r.ctx, "read", r.key, fmt.Errorf("%w; and then %v", err, e))
	}
}

var errClosed = errors.New("closed")

func (r *body) Close() error {
	if r.err == nil {
		r.err = errClosed
	}
	return r.rest.Close()
}

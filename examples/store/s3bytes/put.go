package s3bytes

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	minPart    = 5 << 20
	maxPart    = 5 << 30
	maxParts   = 10_000
	bufferSize = 256 << 10
)

// callMark is the metadata by which a Put knows the object that it made.
const callMark = "wharfage-put"

// Put implements [blob.Objects]. It refuses a key that has an object.
//
// The server checks each request's bytes by their SHA-256. That must be sent
// ahead of them, and they may have to be sent again, so they wait in a file
// meanwhile; what fits into the buffer of 256 KiB waits there. One part is read
// while the one before is uploaded.
//
// When an answer is lost and the request is made again, the server says that
// there is an object already. It is ours if it carries the random mark of this
// call, and then that is a success. A request that the network delivers long
// after its answer was given up can make an object after Put has failed, or
// after its key was deleted, for a sweep to find; never can it replace one.
func (o *Objects) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if err := check(ctx, key); err != nil {
		return 0, fail(ctx, "put", key, err)
	}
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &put{o: o, name: o.name(key), mark: rand.Text(), cancel: cancel, r: o.buffer(reader{within, r})}
	defer p.end()
	n, err := p.run(within)
	if err != nil {
		return 0, fail(ctx, "put", key, err)
	}
	return n, nil
}

func (o *Objects) buffer(r io.Reader) *bufio.Reader {
	b, ok := o.buffers.Get().(*bufio.Reader)
	if !ok {
		return bufio.NewReaderSize(r, bufferSize)
	}
	b.Reset(r)
	return b
}

// partSize is that of the n-th part, from 1.
func (o *Objects) partSize(n int) int64 {
	size := o.PartSize
	if size == 0 {
		size = minPart
	}
	return min(size<<((n-1)/1000), maxPart)
}

// reader reads r until ctx ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// put is one call under way.
type put struct {
	o      *Objects
	name   *string
	mark   string
	cancel context.CancelCauseFunc // ends r and requests
	r      *bufio.Reader
	files  [2]*os.File // parts take turns
}

func (p *put) end() {
	for _, f := range p.files {
		if f != nil {
			f.Close()
			os.Remove(f.Name()) // again, where an open file could not be removed
		}
	}
	p.r.Reset(nil)
	p.o.buffers.Put(p.r)
}

// part is what one request uploads.
type part struct {
	number int
	body   io.ReadSeeker
	size   int64
	sum    *string // base64 of its SHA-256
}

func (p *put) run(ctx context.Context) (int64, error) {
	first, last, err := p.stage(1)
	if err != nil {
		return 0, err
	}
	if !last {
		return p.runParts(ctx, first)
	}
	_, err = p.o.Client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &p.o.Bucket, Key: p.name, IfNoneMatch: aws.String("*"), Metadata: map[string]string{callMark: p.mark},
		Body: first.body, ContentLength: &first.size, ChecksumSHA256: first.sum,
	}, patient)
	if status(err) == http.StatusPreconditionFailed && p.made(ctx) {
		err = nil
	}
	return first.size, err
}

// patient has what makes an object tried again when the server is still at another
// request for it: ours, whose answer was given up.
func patient(o *s3.Options) {
	o.Retryer = retry.AddWithErrorCodes(o.Retryer, "ConditionalRequestConflict", "OperationAborted")
}

// made tells whether the object is the one that this call has made.
func (p *put) made(ctx context.Context) bool {
	out, err := p.o.Client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.o.Bucket, Key: p.name})
	return err == nil && out.Metadata[callMark] == p.mark
}

// stage reads the n-th part, and tells whether it is the last. It is good until
// the part after the next is staged.
func (p *put) stage(n int) (_ part, last bool, err error) {
	size := p.o.partSize(n)
	sum := sha256.New()
	b, err := p.r.Peek(int(min(bufferSize, size)))
	if err == io.EOF { // Discard comes later: what follows is only the end
		sum.Write(b)
		return part{n, bytes.NewReader(b), int64(len(b)), encode(sum)}, true, nil
	}
	if err != nil {
		return part{}, false, err
	}
	f, err := p.file(n % 2)
	if err != nil {
		return part{}, false, err
	}
	var at int64
	for at < size && err == nil {
		b, err = p.r.Peek(int(min(bufferSize, size-at)))
		sum.Write(b)
		if _, e := f.WriteAt(b, at); e != nil {
			return part{}, false, e
		}
		at += int64(len(b))
		p.r.Discard(len(b))
	}
	if err == nil {
		_, err = p.r.Peek(1)
	}
	if err != nil && err != io.EOF {
		return part{}, false, err
	}
	return part{n, io.NewSectionReader(f, 0, at), at, encode(sum)}, err == io.EOF, nil
}

// file returns one of the two files. It has no name where the system allows
// that, so that no crash leaves it.
func (p *put) file(i int) (*os.File, error) {
	if p.files[i] == nil {
		f, err := os.CreateTemp(p.o.TempDir, "s3bytes-*")
		if err != nil {
			return nil, err
		}
		os.Remove(f.Name())
		p.files[i] = f
	}
	return p.files[i], nil
}

func encode(sum hash.Hash) *string {
	return aws.String(base64.StdEncoding.EncodeToString(sum.Sum(nil)))
}

// runParts uploads what is longer than a part.
func (p *put) runParts(ctx context.Context, first part) (int64, error) {
	created, err := p.o.Client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &p.o.Bucket, Key: p.name, Metadata: map[string]string{callMark: p.mark},
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumType: types.ChecksumTypeComposite,
	})
	if err != nil {
		return 0, err
	}
	total, parts, err := p.uploadParts(ctx, created.UploadId, first)
	if err == nil {
		_, err = p.o.Client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &p.o.Bucket, Key: p.name, UploadId: created.UploadId, IfNoneMatch: aws.String("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}, patient)
		if (status(err) == http.StatusPreconditionFailed || is(err, "NoSuchUpload")) && p.made(ctx) {
			err = nil
		}
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		p.o.Client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &p.o.Bucket, Key: p.name, UploadId: created.UploadId})
	}
	return total, err
}

// uploadParts uploads first and all that follow it.
func (p *put) uploadParts(ctx context.Context, id *string, first part) (total int64, parts []types.CompletedPart, err error) {
	type result struct {
		part types.CompletedPart
		err  error
	}
	results := make(chan result, 1)
	next, last := first, false
	for {
		total += next.size
		go func(part part) {
			out, err := p.o.Client.UploadPart(ctx, &s3.UploadPartInput{
				Bucket: &p.o.Bucket, Key: p.name, UploadId: id, PartNumber: aws.Int32(int32(part.number)),
				Body: part.body, ContentLength: &part.size, ChecksumSHA256: part.sum,
			})
			if err != nil {
				p.cancel(err)
				results <- result{err: err}
				return
			}
			results <- result{part: types.CompletedPart{ETag: out.ETag, ChecksumSHA256: part.sum, PartNumber: aws.Int32(int32(part.number))}}
		}(next)
		ended := last
		if !ended {
			if next.number == maxParts {
				err = fmt.Errorf("content is longer than %d bytes", total)
			} else {
				next, last, err = p.stage(next.number + 1)
			}
			if err != nil {
				p.cancel(err)
			}
		}
		done := <-results
		if err == nil {
			err = done.err
		}
		if err != nil {
			return 0, nil, err
		}
		if parts = append(parts, done.part); ended {
			return total, parts, nil
		}
	}
}

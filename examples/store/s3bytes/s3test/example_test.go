package s3test_test

import (
	"testing"

	"github.com/wharfage/wharfage/examples/store/s3bytes"
	"github.com/wharfage/wharfage/examples/store/s3bytes/s3test"
)

// A store over a real server, whose first write is done and not answered.
func ExampleProxy() {
	var t *testing.T // a test's
	test := func() {
		s := s3test.Start(t)
		proxy := s3test.NewProxy(t, s)
		client := s3bytes.NewClient(s3bytes.Config{Endpoint: proxy.Endpoint, AccessKey: s.AccessKey, SecretKey: s.SecretKey, PathStyle: true})
		objects := &s3bytes.Objects{Client: client, Bucket: s.Bucket}
		proxy.Plan(s3test.Fault{Kind: s3test.Lose, Op: "PutObject", Call: 1})
		_ = objects
	}
	_ = test
	// Output:
}

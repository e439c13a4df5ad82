package s3bytes_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/wharfage/wharfage/examples/store/s3bytes"
)

func ExampleObjects() {
	objects := &s3bytes.Objects{
		Client: s3bytes.NewClient(s3bytes.Config{Region: "eu-central-1", AccessKey: "key", SecretKey: "secret"}),
		Bucket: "registry",
		Prefix: "blobs",
	}
	link, err := objects.Link(context.Background(), "ab/1", time.Minute) // asks nobody
	url, signature, _ := strings.Cut(link, "?")
	fmt.Println(url, strings.Contains(signature, "X-Amz-Expires=60"), err)
	// Output: https://registry.s3.eu-central-1.amazonaws.com/blobs/ab/1 true <nil>
}

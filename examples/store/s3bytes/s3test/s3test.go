// Package s3test gives tests a real S3 server, versitygw over a temporary
// folder, and a [Proxy] that breaks requests on their way to it.
package s3test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const version = "v1.8.0"

// Server is a server, and a bucket on it that nobody else uses.
type Server struct {
	Endpoint             string // URL; the bucket goes into the path
	Region               string
	AccessKey, SecretKey string
	Bucket               string
}

// shared is the one server of a test binary. It lives as long as tests use it.
var shared struct {
	sync.Mutex
	users int
	*gateway
}

// Start returns a server with a fresh bucket until the test ends. Where it
// cannot be had, the test is skipped, or fails if the variable CI is set.
func Start(t testing.TB) Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		g, err := start(find(t))
		if err != nil {
			t.Fatal(err)
		}
		shared.gateway = g
	}
	g := shared.gateway
	shared.users++
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 {
			g.stop(t)
		}
	})
	s := Server{
		Endpoint: "http://" + g.addr, Region: "us-east-1", AccessKey: access, SecretKey: g.secret,
		Bucket: "bucket-" + strings.ToLower(rand.Text()),
	}
	client := s3.New(s3.Options{
		BaseEndpoint: &s.Endpoint, Region: s.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
	})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.Bucket}); err != nil {
		t.Fatalf("create a bucket: %v", err)
	}
	t.Cleanup(func() { // before the server stops
		if err := os.RemoveAll(filepath.Join(g.dir, "data", s.Bucket)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// find returns the path of the server's program.
func find(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path
	}
	path, err := install()
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
	return path
}

// install builds the program, unless an earlier call did.
func install() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "wharfage-tools")
	path := filepath.Join(dir, "versitygw-"+version)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	bin, err := os.MkdirTemp(dir, "install-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(bin)
	cmd := exec.Command("go", "install", "github.com/versity/versitygw/cmd/versitygw@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "GOWORK=off")
	cmd.Dir = bin
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install versitygw %s: %v\n%s", version, err, out)
	}
	built, err := filepath.Glob(filepath.Join(bin, "versitygw*")) // .exe, perhaps
	if err != nil || len(built) != 1 {
		return "", fmt.Errorf("install versitygw %s: it made %q, %v", version, built, err)
	}
	return path, os.Rename(built[0], path)
}

const access = "s3test"

// gateway is the server's process.
type gateway struct {
	addr, dir, secret string
	cmd               *exec.Cmd
	log               bytes.Buffer  // to be read when the process has ended
	ended             chan struct{} // closed then
}

func start(path string) (*gateway, error) {
	dir, err := os.MkdirTemp("", "s3test-*")
	if err != nil {
		return nil, err
	}
	for range 3 { // somebody may take the port first
		var g *gateway
		if g, err = startIn(path, dir); err == nil {
			return g, nil
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

func startIn(path, dir string) (*gateway, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gateway{addr: free.Addr().String(), dir: dir, secret: rand.Text(), ended: make(chan struct{})}
	free.Close()
	for _, name := range []string{"data", "meta"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	// The sidecar is for temporary folders without extended attributes.
	g.cmd = exec.Command(path, "--quiet", "--port", g.addr, "posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	g.cmd.Env = []string{"ROOT_ACCESS_KEY=" + access, "ROOT_SECRET_KEY=" + g.secret, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	g.cmd.Dir = dir
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	dieWithParent(g.cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // which is the parent that counts, and must live on
		defer runtime.UnlockOSThread()
		defer close(g.ended)
		err := g.cmd.Start()
		started <- err
		if err == nil {
			g.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	if err := g.wait(); err != nil {
		return nil, err
	}
	return g, nil
}

// wait returns when the server accepts connections. If it never does, it is no
// more.
func (g *gateway) wait() error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(time.Minute)
	for {
		if conn, err := net.Dial("tcp", g.addr); err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-patience:
			g.cmd.Process.Kill()
			<-g.ended
			return fmt.Errorf("versitygw does not listen\n%s", g.log.String())
		case <-g.ended:
			return fmt.Errorf("versitygw has ended\n%s", g.log.String())
		}
	}
}

func (g *gateway) stop(t testing.TB) {
	g.cmd.Process.Kill()
	<-g.ended
	if err := os.RemoveAll(g.dir); err != nil {
		t.Error(err)
	}
}

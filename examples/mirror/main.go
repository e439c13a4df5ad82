// Command mirror copies between registries: images with what belongs to them, whole
// repositories, and many of them.
//
//	mirror copy [flags] HOST/REPO:TAG HOST/REPO[:TAG]    one image
//	mirror sync [flags] HOST/REPO HOST/REPO              the tags of a repository
//	mirror sync [flags] -all HOST HOST[/PREFIX]          those of all repositories, or with -repos of some
//	mirror sync [flags] -config FILE                     several of these
//
// -h after a command lists its flags. Images may be named by digest, with the tag that it is
// to get before it, and http:// before a host says how it is spoken to. What the target has
// is not sent again, and what a target shows is complete: a run may be ended at any time, and
// the next one goes on where it was, inside of long blobs too. Credentials are those of
// docker login. HTTPS_PROXY names a proxy; SSL_CERT_FILE a file with a certificate of your own.
//
// The result is on standard output: a line, with -json a document, with -json-events
// also a line for each step. Errors and progress are on standard error.
//
// Exit status: 0 done, also if there was nothing to do or -dry-run; 1 for a failure, also of
// a part; 2 for wrong arguments or a wrong configuration file; 3 if -delete would delete more
// than it may, and nothing was deleted; 130 if a signal has ended it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/replication"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitLimit       = 3
	exitInterrupted = 130
)

// worse are those that a round can have, each worse than the one before.
var worse = []int{exitOK, exitLimit, exitFailed, exitInterrupted}

const usage = `usage: mirror copy [flags] HOST/REPO:TAG HOST/REPO[:TAG]
       mirror sync [flags] HOST/REPO HOST/REPO
       mirror sync [flags] -all|-repos PATTERN HOST HOST[/PREFIX]
       mirror sync [flags] -config FILE
`

// command is one call.
type command struct {
	name           string
	stdout, stderr io.Writer

	requests      int
	partSize      int64
	journal       string
	dryRun, quiet bool
	json, events  bool
	plain         bool
	realms, allow []string
	config        string
	every         time.Duration

	credentials auth.CredentialFunc
	registries  map[string]*remote.Registry // by scheme and host
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &command{stdout: stdout, stderr: stderr, registries: map[string]*remote.Registry{}}
	if len(args) > 0 {
		c.name, args = args[0], args[1:]
	}
	switch c.name {
	case "copy", "sync":
	case "-h", "-help", "--help", "help":
		fmt.Fprint(stdout, usage, "-h after a command lists its flags.\n")
		return exitOK
	default:
		fmt.Fprintf(stderr, "mirror: want a command, copy or sync, have %q\n%s", c.name, usage)
		return exitUsage
	}
	jobs, err := c.parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "mirror %s: %v\n%s", c.name, err, usage)
		return exitUsage
	}
	if c.credentials, err = remote.DockerCredentials(); err != nil {
		fmt.Fprintln(stderr, "mirror:", err)
		return exitFailed
	}
	for {
		status := c.round(ctx, jobs)
		if c.every == 0 || ctx.Err() != nil {
			return status
		}
		select {
		case <-time.After(c.every):
		case <-ctx.Done():
			return status
		}
	}
}

// parse reads the arguments. What is wrong with them, or with the configuration
// file, is an error.
func (c *command) parse(args []string) ([]*job, error) {
	f := flag.NewFlagSet("mirror "+c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVar(&c.dryRun, "dry-run", false, "change nothing, and tell what would be copied")
	f.BoolVar(&c.quiet, "quiet", false, "print errors only, and what -json asks for")
	f.BoolVar(&c.json, "json", false, "print the result as JSON")
	f.BoolVar(&c.events, "json-events", false, "print a line of JSON for each step, the last one with the result")
	f.IntVar(&c.requests, "requests", replication.DefaultRequests, "how many manifests and blobs to transfer at once")
	f.Int64Var(&c.partSize, "part-size", replication.DefaultPartSize, "send blobs of more than this many `bytes` in parts, and go on after the last one sent")
	f.StringVar(&c.journal, "journal", journalDir(), "keep in this `folder` what parts were sent (\"\": do not, and send long blobs again)")
	f.BoolVar(&c.plain, "plain-http", false, "speak HTTP to hosts other than localhost too; http:// before one host says so of it")
	list(f, &c.realms, "realm", "let the token server of this `origin`, as in https://auth.example, have credentials", func(s string) error {
		return (&remote.Registry{Host: "localhost", Realms: []string{s}}).Check()
	})
	list(f, &c.allow, "allow", "follow redirects to this `host:port` in a private network", func(s string) error {
		_, _, err := net.SplitHostPort(s)
		return err
	})
	if c.name == "sync" {
		f.StringVar(&c.config, "config", "", "read what to sync from a `file`")
		f.DurationVar(&c.every, "every", 0, "sync again this long after each end, as in 10m")
	}
	j := new(job)
	own := flag.NewFlagSet("", flag.ContinueOnError)
	j.flags(own, c.name)
	own.VisitAll(func(o *flag.Flag) { f.Var(o.Value, o.Name, o.Usage) })

	var given []string // flags may stand after what they are about
	for err := f.Parse(args); err != nil || f.NArg() > 0; err = f.Parse(f.Args()[1:]) {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(c.stdout)
			fmt.Fprint(c.stdout, usage)
			f.PrintDefaults()
		}
		if err != nil {
			return nil, err
		}
		given = append(given, f.Arg(0))
	}
	switch {
	case c.requests < 1 || c.partSize < 1:
		return nil, errors.New("-requests and -part-size are to be at least 1")
	case c.every < 0:
		return nil, errors.New("-every is to be more than 0")
	case c.config == "" && len(given) != 2:
		return nil, fmt.Errorf("want a source and a target, have %d arguments", len(given))
	case c.config == "":
		j.from, j.to = given[0], given[1]
		return []*job{j}, j.check(c.name)
	case len(given) > 0:
		return nil, fmt.Errorf("-config says what to sync: %q is too much", given)
	}
	var err error
	f.Visit(func(set *flag.Flag) {
		if own.Lookup(set.Name) != nil {
			err = fmt.Errorf("-%s belongs into the file, to what it is about", set.Name)
		}
	})
	if err != nil {
		return nil, err
	}
	return readConfig(c.config)
}

// journalDir is "" for users without a folder of their own.
func journalDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "wharfage", "mirror")
}

// registry returns the client of a host, the same each time.
func (c *command) registry(r reference) *remote.Registry {
	if c.plain && r.scheme == "" {
		r.scheme = "http"
	}
	key := r.scheme + "://" + r.host
	if c.registries[key] == nil {
		c.registries[key] = &remote.Registry{
			Host: r.host, Scheme: r.scheme, Credential: c.credentials, Realms: c.realms, Allow: c.allow,
			Parallel: c.requests, UserAgent: "wharfage-mirror", Proxy: http.ProxyFromEnvironment,
		}
	}
	return c.registries[key]
}

// round does all jobs once, and tells the worst that became of them.
func (c *command) round(ctx context.Context, jobs []*job) (status int) {
	copier := &replication.Copier{Requests: c.requests, PartSize: c.partSize}
	if c.journal != "" {
		copier.Journal = replication.DirJournal(c.journal)
	}
	p := c.progress()
	var done []result
	for _, j := range jobs {
		r := j.do(ctx, c, copier, p)
		p.above(func() { c.tell(ctx, r) })
		done = append(done, r)
		if s := r.status(ctx); slices.Index(worse, s) > slices.Index(worse, status) {
			status = s
		}
		if ctx.Err() != nil {
			break
		}
	}
	p.end()
	if c.json || c.events {
		if err := c.writeJSON(done); err != nil {
			fmt.Fprintln(c.stderr, "mirror:", err)
			status = exitFailed
		}
	}
	return status
}

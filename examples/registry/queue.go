package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wharfage/wharfage/replication"
)

// jobsOf is the command that looks after jobs of replication: list, replay,
// discard, pause and resume; by a server, or, where none runs, by itself.
func jobsOf(ctx context.Context, args []string) error {
	const verbs = "list, replay, discard, pause or resume"
	verb, args, err := verbOf("jobs", verbs, args)
	if err != nil {
		return err
	}
	f, where := flags("jobs " + verb)
	x := jobsCommand{w: os.Stdout}
	switch verb {
	case "list":
		x.listFlags(f)
	case "replay", "discard":
		f.BoolVar(&x.all, "all", false, "all that are dead")
	case "pause", "resume":
	default:
		return fmt.Errorf("no %q: %s", verb, verbs)
	}
	server := f.String("server", "", "`URL` of a server that runs: its -admin address, instead of where things are kept")
	if err := f.Parse(args); err != nil {
		return err
	}
	x.args = f.Args()
	if err := x.check(verb); err != nil {
		return err
	}
	if *server != "" {
		return x.ask(ctx, *server, verb)
	}
	where.replicator = new(replication.Replicator) // for the queue on PostgreSQL, which does nothing here
	store, err := where.openExisting(ctx, false)
	if err != nil {
		return err
	}
	x.queue = store.queue
	return errors.Join(x.run(ctx, verb, time.Now()), store.close())
}

type jobsCommand struct {
	queue  replication.Board
	w      io.Writer
	args   []string
	filter replication.EntryFilter
	state  string
	json   bool
	all    bool
}

func (x *jobsCommand) listFlags(f *flag.FlagSet) {
	f.StringVar(&x.state, "state", "", "only those that are waiting, running, done or dead (default: all but done)")
	f.StringVar(&x.filter.Repo, "repository", "", "only those of a repository, by its `name`")
	f.BoolVar(&x.json, "json", false, "a line of JSON for each job")
}

func (x *jobsCommand) check(verb string) error {
	x.filter.State = replication.State(x.state)
	switch x.filter.State {
	case "", replication.StateWaiting, replication.StateRunning, replication.StateDone, replication.StateDead:
	default:
		return fmt.Errorf("-state %s: takes waiting, running, done and dead", x.state)
	}
	switch verb {
	case "list":
		if len(x.args) > 0 {
			return fmt.Errorf("unexpected arguments %q", x.args)
		}
	case "replay", "discard":
		if x.all == (len(x.args) > 0) {
			return errors.New("want IDs of jobs as list prints them, or -all")
		}
	case "pause", "resume":
		for _, name := range x.args {
			if _, ok := registryOf(name); !ok {
				return fmt.Errorf("want destinations as ACCOUNT/REGION, not %q", name)
			}
		}
		if len(x.args) == 0 {
			return errors.New("say which destination, as ACCOUNT/REGION")
		}
	default:
		return fmt.Errorf("no %q", verb)
	}
	return nil
}

func (x *jobsCommand) run(ctx context.Context, verb string, now time.Time) error {
	switch verb {
	case "list":
		return x.list(ctx)
	case "pause", "resume":
		for _, name := range x.args {
			to, _ := registryOf(name)
			if err := x.queue.SetPaused(ctx, to, verb == "pause"); err != nil {
				return err
			}
		}
		return nil
	}
	do := x.queue.Discard
	if verb == "replay" {
		do = func(ctx context.Context, id string) error { return x.queue.Replay(ctx, id, now) }
	}
	ids := x.args
	if x.all {
		for e, err := range x.queue.Entries(ctx, replication.EntryFilter{State: replication.StateDead}, 0) {
			if err != nil {
				return err
			}
			ids = append(ids, e.Job.ID)
		}
	}
	for _, id := range ids {
		if err := do(ctx, id); err != nil {
			return err
		}
	}
	fmt.Fprintf(x.w, "%d jobs\n", len(ids))
	return nil
}

func (x *jobsCommand) list(ctx context.Context) error {
	out := json.NewEncoder(x.w)
	for e, err := range x.queue.Entries(ctx, x.filter, 0) {
		switch {
		case err != nil:
			return err
		case x.state == "" && e.State == replication.StateDone:
		case x.json:
			if err := out.Encode(e); err != nil {
				return err
			}
		default:
			what := string(e.Job.Digest)
			if len(e.Job.Tags) > 0 {
				what = fmt.Sprint(what, " ", e.Job.Tags)
			}
			fmt.Fprintf(x.w, "%s %s %s %s %s: %s, %d attempts", e.Job.ID, e.Job.Action, e.Job.Repo, what, e.Job.To, e.State, e.Attempts)
			if e.Failure.Code != "" {
				fmt.Fprintf(x.w, ", %s: %s", e.Failure.Code, e.Failure.Detail)
			}
			fmt.Fprintln(x.w)
		}
	}
	paused, err := x.queue.Paused(ctx)
	if err != nil || x.json {
		return err
	}
	for _, to := range paused {
		fmt.Fprintln(x.w, to, "is paused")
	}
	return nil
}

// ask has a server do it, whose jobsHandler answers.
func (x *jobsCommand) ask(ctx context.Context, server, verb string) error {
	q := url.Values{"arg": x.args, "state": {x.state}, "repository": {x.filter.Repo}, "json": {strconv.FormatBool(x.json)}, "all": {strconv.FormatBool(x.all)}}
	method := http.MethodPost
	if verb == "list" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(server, "/")+"/jobs/"+verb+"?"+q.Encode(), nil)
	if err != nil || r.URL.Host == "" {
		return fmt.Errorf("-server %s: want http://HOST:PORT, the -admin address of a server", server)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("-server %s: %s: %s", server, resp.Status, strings.TrimSpace(string(why)))
	}
	_, err = io.Copy(x.w, resp.Body)
	return err
}

// jobsHandler does what the command asks for, below /jobs/. Pages of other
// origins cannot have a browser ask it.
func jobsHandler(queue replication.Board) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verb, q := strings.TrimPrefix(r.URL.Path, "/jobs/"), r.URL.Query()
		out := &begun{ResponseWriter: w}
		x := jobsCommand{queue: queue, w: out, args: q["arg"], state: q.Get("state"), filter: replication.EntryFilter{Repo: q.Get("repository")},
			json: q.Get("json") == "true", all: q.Get("all") == "true"}
		status, err := http.StatusBadRequest, x.check(verb)
		switch {
		case err != nil:
		case r.Method != http.MethodPost && (verb != "list" || r.Method != http.MethodGet):
			status, err = http.StatusMethodNotAllowed, errors.New("want a POST")
		default:
			status, err = http.StatusInternalServerError, x.run(r.Context(), verb, time.Now())
			if errors.Is(err, replication.ErrNoJob) {
				status = http.StatusNotFound
			}
		}
		if err != nil && out.yet {
			panic(http.ErrAbortHandler) // so that what there is of a list is not taken for all of it
		}
		if err != nil {
			http.Error(w, err.Error(), status)
		}
	}))
}

// begun tells whether an answer has. A list of jobs may be longer than memory.
type begun struct {
	http.ResponseWriter
	yet bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yet = true
	return b.ResponseWriter.Write(p)
}

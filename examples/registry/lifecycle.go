package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/repository"
)

// lifecycleRules say what lifecycle policies may do.
type lifecycleRules struct {
	file  string
	share float64
	reap  bool
	own   repository.Store // where repositories have policies of their own; nil if they have none
}

func (l *lifecycleRules) flags(f *flag.FlagSet) {
	f.StringVar(&l.file, "lifecycle", "", "`file` with a lifecycle policy for all repositories, or with {\"policies\": [{\"repositories\": [PATTERN…], \"file\": FILE or \"policy\": POLICY}…]}, of which the first counts that is for a repository")
	f.Float64Var(&l.share, "lifecycle-max-share", 0.25, "refuse to remove more than this share of a repository's tagged images, and more than 5, in a run")
	f.BoolVar(&l.reap, "reap", false, "remove referrers whose subject is gone for a day, also where no policy is")
}

// read returns the policies as the file has them now.
func (l *lifecycleRules) read() (policies, error) {
	if l.file == "" {
		return nil, nil
	}
	return readPolicies(l.file)
}

// of returns the policy for a repository: its own, else the first of list that
// is for it, else nil.
func (l *lifecycleRules) of(ctx context.Context, list policies, repo string) (*lifecycle.Policy, error) {
	if l.own == nil {
		return list.of(repo), nil
	}
	switch have, err := l.own.Get(ctx, repo); {
	case errors.Is(err, repository.ErrNotFound):
	case err != nil:
		return nil, err
	case have.LifecyclePolicy != "":
		p, err := lifecycle.Parse(have.LifecyclePolicy)
		if err != nil {
			return nil, fmt.Errorf("the policy of %s: %w", repo, err)
		}
		return p, nil
	}
	return list.of(repo), nil
}

// inForce returns the policy for a repository as things are now.
func (l *lifecycleRules) inForce(ctx context.Context, repo string) (*lifecycle.Policy, error) {
	list, err := l.read()
	if err != nil {
		return nil, err
	}
	return l.of(ctx, list, repo)
}

func (l *lifecycleRules) runner(store *storage) *lifecycle.Runner {
	const few = 5
	return &lifecycle.Runner{Manifests: store.manifests, Activity: store.pulls, MaxShare: l.share, Few: few}
}

// runAll applies the policies to all repositories. each is told of every run. A
// repository that fails is left, and the others go on.
func (l *lifecycleRules) runAll(ctx context.Context, r *lifecycle.Runner, repos func(context.Context) ([]string, error), each func(lifecycle.Report, error)) error {
	list, err := l.read()
	if err != nil {
		return err
	}
	names, err := repos(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, repo := range names {
		policy, err := l.of(ctx, list, repo)
		report := lifecycle.Report{Repo: repo}
		switch {
		case err != nil:
		case policy != nil:
			report, err = r.Run(ctx, repo, policy)
		case l.reap:
			report, err = r.Reap(ctx, repo)
		default:
			continue
		}
		each(report, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// allRepos lists the repositories of a store.
func (s *storage) allRepos(ctx context.Context) (names []string, err error) {
	catalog, ok := s.manifests.(manifest.Catalog)
	if !ok {
		return nil, fmt.Errorf("the store cannot list its repositories: %w", errors.ErrUnsupported)
	}
	for repo, err := range catalog.Repos(ctx, "") {
		if err != nil {
			return nil, err
		}
		names = append(names, repo)
	}
	return names, nil
}

// lifecycleJob runs the policies on a schedule.
type lifecycleJob struct {
	lifecycleRules
	every   time.Duration
	managed bool // repositories may have policies of their own
}

func lifecycleFlags(f *flag.FlagSet) *lifecycleJob {
	j := new(lifecycleJob)
	f.DurationVar(&j.every, "lifecycle-every", 24*time.Hour, "how often to apply the lifecycle policies")
	j.lifecycleRules.flags(f)
	return j
}

// check refuses what would fail each time.
func (j *lifecycleJob) check(noDelete bool) error {
	switch {
	case !j.wanted():
		return nil
	case noDelete && (j.file != "" || j.reap):
		return errors.New("-no-delete does not go with -lifecycle and -reap, which delete")
	case j.every <= 0:
		return errors.New("-lifecycle-every is to be more than 0")
	case j.file == "":
		return nil
	}
	list, err := readPolicies(j.file)
	for _, p := range list {
		for _, w := range p.policy.Warnings() {
			slog.Warn("lifecycle policy", "repositories", p.patterns, "warning", w.String())
		}
	}
	return err
}

func (j *lifecycleJob) wanted() bool { return j.file != "" || j.reap || j.managed }

// schedule runs the policies until ctx ends: soon after this process leads, so
// that a server that is restarted each day does it too. The file is read each
// time; while anything is wrong with it, nothing is done.
func (j *lifecycleJob) schedule(ctx context.Context, h *wharfage.Handler, store *storage, m *metrics, lm *lifecycleMetrics) {
	if !j.wanted() {
		return
	}
	r := j.runner(store)
	r.OnCommit, r.Interval = h.OnCommit, j.every
	for pause := min(j.every, 10*time.Minute); ; pause = j.every {
		wait(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		var sum lifecycleSum
		err := j.runAll(ctx, r, store.allRepos, func(report lifecycle.Report, err error) {
			sum.add(report)
			lm.ran(report)
			if err != nil {
				slog.Error("lifecycle policy", "repo", report.Repo, "err", err)
			}
			for _, f := range report.Failures {
				slog.Debug("lifecycle policy", "repo", report.Repo, "digest", f.Image.Digest, "code", f.Code, "reason", f.Reason)
			}
		})
		r.Last = began // also of a run that was refused, or an odd clock would refuse all that follow
		result, level := "ok", slog.LevelInfo
		if err != nil {
			result, level = "failed", slog.LevelError
		} else {
			m.lastRun.WithLabelValues("lifecycle").SetToCurrentTime()
		}
		m.runs.WithLabelValues("lifecycle", result).Inc()
		slog.Log(ctx, level, "lifecycle policies applied", "repositories", sum.repos, "expired", sum.expired, "archived", sum.archived, "failures", sum.failures,
			"later", sum.later, "took", time.Since(began).Round(time.Millisecond), "err", err)
	}
}

// lifecycleSum is what became of all repositories together.
type lifecycleSum struct{ repos, expired, archived, failures, later int }

func (s *lifecycleSum) add(r lifecycle.Report) {
	s.repos++
	s.expired += r.Count(lifecycle.Expire)
	s.archived += r.Count(lifecycle.Transition)
	s.failures += len(r.Failures)
	s.later += r.Later
}

type lifecycleMetrics struct {
	images   *prometheus.CounterVec // action
	failures *prometheus.CounterVec // code
	lost     prometheus.Counter
}

func newLifecycleMetrics(m *metrics) *lifecycleMetrics {
	l := &lifecycleMetrics{
		images:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_lifecycle_images_total", Help: "Images that lifecycle policies have changed."}, []string{"action"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_lifecycle_failures_total", Help: "Images that lifecycle policies were to change, and did not."}, []string{"code"}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "registry_pull_record_failures_total", Help: "Failures to record pulls, which are tried again unless too many wait."}),
	}
	m.registry.MustRegister(l.images, l.failures, l.lost)
	return l
}

func (l *lifecycleMetrics) ran(r lifecycle.Report) {
	for _, a := range r.Acted {
		l.images.WithLabelValues(string(a.Action)).Inc()
	}
	for _, f := range r.Failures {
		l.failures.WithLabelValues(string(f.Code)).Inc()
	}
}

// recordPulls has h note pulls, for policies that ask for the last one, and
// returns what writes them until ctx ends, and then for the last time.
func recordPulls(h *wharfage.Handler, a lifecycle.Activity, l *lifecycleMetrics) (write func(ctx context.Context)) {
	b := &lifecycle.Buffer{Activity: a}
	failed := func(err error) {
		if err != nil {
			l.lost.Inc()
			slog.Error("pulls were not recorded", "err", err)
		}
	}
	h.OnPull = func(r *http.Request, repo string, dgst digest.Digest) {
		failed(b.Add(context.WithoutCancel(r.Context()), repo, lifecycle.Pull{Digest: dgst, At: time.Now()}))
	}
	return func(ctx context.Context) {
		for ended := false; !ended; {
			wait(ctx, time.Minute)
			ended = ctx.Err() != nil
			flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			failed(b.Flush(flushing))
			cancel()
		}
	}
}

// applyPolicies is the command: one run of the policies, told repository by
// repository.
func applyPolicies(ctx context.Context, args []string) error {
	f, where := flags("lifecycle")
	rules := new(lifecycleRules)
	rules.flags(f)
	dry := f.Bool("dry-run", false, "print the plans, and change nothing")
	confirm := f.Bool("confirm", false, "let any share go")
	asJSON := f.Bool("json", false, "a line of JSON for each repository: the plan, and what became of it")
	repo := f.String("repo", "", "the `repository` to look at (default: all)")
	file := configFlag(f)
	if err := parse(f, args); err != nil {
		return err
	}
	c, err := readConfig(*file)
	if err != nil {
		return err
	}
	if rules.file == "" && !rules.reap && c.Repositories == nil {
		return errors.New("say what to apply: -lifecycle FILE, -reap, or with -config the policies of repositories")
	}
	store, err := where.openExisting(ctx, *dry)
	if err != nil {
		return err
	}
	if c.Repositories != nil {
		rules.own = store.repositories
	}
	r := rules.runner(store)
	r.Dry, r.Confirm = *dry, *confirm
	repos := store.allRepos
	if *repo != "" {
		repos = func(context.Context) ([]string, error) { return []string{*repo}, nil }
	}
	err = rules.runAll(ctx, r, repos, func(report lifecycle.Report, err error) { tell(os.Stdout, report, err, *asJSON) })
	return errors.Join(err, store.close())
}

// tell prints what became of a run.
func tell(w io.Writer, r lifecycle.Report, err error, asJSON bool) {
	if asJSON {
		line := struct {
			Plan *lifecycle.Plan `json:"plan"`
			lifecycle.Report
			Dry   bool   `json:"dryRun"`
			Error string `json:"error,omitempty"`
		}{Plan: r.Plan, Report: r, Dry: r.Dry}
		if err != nil {
			line.Error = err.Error()
		}
		json.NewEncoder(w).Encode(line)
		return
	}
	fmt.Fprintf(w, "%s\n", r.Repo)
	if r.Plan != nil {
		r.Plan.WriteText(w)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(w, "stays: %s: %s: %s\n", f.Image.Digest, f.Code, f.Reason)
	}
	switch {
	case err != nil:
		fmt.Fprintf(w, "failed: %v\n", err)
	case r.Dry:
		fmt.Fprintf(w, "nothing was changed: %d would be\n", len(r.Acted))
	default:
		fmt.Fprintf(w, "%d expired, %d archived, %d left for later\n", r.Count(lifecycle.Expire), r.Count(lifecycle.Transition), r.Later)
	}
}

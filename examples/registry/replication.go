package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// replicationConfig says what is copied where, and who copies to here.
type replicationConfig struct {
	Rules        json.RawMessage     `json:"rules"` // those of ECR's ReplicationConfiguration
	Destinations []destinationConfig `json:"destinations"`

	// Sources are the networks of registries that copy to this one. What they
	// push in the name of a copy is copied no further, and tells of itself as a copy.
	Sources []string `json:"sources"`

	Jobs           int `json:"jobs"`               // at once; 0 means 8. On PostgreSQL those per destination count
	PerDestination int `json:"jobsPerDestination"` // 0 means no limit, on PostgreSQL 8
	Attempts       int `json:"attempts"`           // until a job is dead; 0 means 300, about a day

	configuration replication.Configuration
	networks      []netip.Prefix
}

// destinationConfig is a registry over HTTP, and how rules name it.
type destinationConfig struct {
	replication.Registry
	URL string `json:"url"`
	endpointConfig
}

// endpointConfig is how a registry over HTTP is asked.
type endpointConfig struct {
	Allow    []string `json:"allow"`    // hosts in private networks that it may redirect to, with their ports
	Realms   []string `json:"realms"`   // token servers elsewhere that may get the credentials
	Requests int      `json:"requests"` // at once; 0 means 16
}

func (e *endpointConfig) registry(host, scheme string, login auth.CredentialFunc) *remote.Registry {
	return &remote.Registry{Host: host, Scheme: scheme, Allow: e.Allow, Realms: e.Realms, Parallel: e.Requests, Credential: login}
}

func (e *endpointConfig) check(host, scheme string) error {
	if e.Requests < 0 {
		return errors.New("requests: want a number that is not negative")
	}
	for i, a := range e.Allow {
		if _, port, ok := strings.Cut(a, ":"); !ok || port == "" || strings.Contains(a, "/") {
			return fmt.Errorf("allow[%d]: want a host with its port, as in 10.0.0.5:443, not %q", i, a)
		}
	}
	return e.registry(host, scheme, nil).Check()
}

func (d *destinationConfig) check() error {
	if err := checkIdentity(d.Registry); err != nil {
		return err
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("url: want http://HOST or https://HOST, without a path; logins are those of docker")
	}
	return d.endpointConfig.check(u.Host, u.Scheme)
}

func (d *destinationConfig) registry(self replication.Registry, login auth.CredentialFunc) *remote.Registry {
	u, _ := url.Parse(d.URL) // which check has done
	r := d.endpointConfig.registry(u.Host, u.Scheme, login)
	r.Header = http.Header{sourceHeader: {self.String()}}
	return r
}

// checkIdentity says what is wrong with the name of a registry.
func checkIdentity(r replication.Registry) error {
	one := replication.Configuration{Rules: []replication.Rule{{Destinations: []replication.Registry{r}}}}
	err := replication.Validation{}.Check(one)
	if e, ok := errors.AsType[*replication.ConfigurationError](err); ok {
		f := e.Faults[0]
		f.At = strings.TrimPrefix(f.At, "rules[0].destinations[0].")
		return errors.New(f.String())
	}
	return err
}

// check says what is wrong, and reads the rules of the registry self.
func (c *replicationConfig) check(self *replication.Registry) error {
	if c == nil {
		return nil
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"jobs", c.Jobs}, {"jobsPerDestination", c.PerDestination}, {"attempts", c.Attempts}} {
		if n.value < 0 || n.value > 10_000 {
			return fmt.Errorf("%s: want a number from 0 to 10000", n.name)
		}
	}
	c.networks = nil
	for i, s := range c.Sources {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("sources[%d]: want a network, as in 10.0.0.0/8, not %q", i, s)
		}
		c.networks = append(c.networks, p)
	}
	known := map[replication.Registry]bool{}
	for i := range c.Destinations {
		d := &c.Destinations[i]
		err := d.check()
		switch {
		case err == nil && known[d.Registry]:
			err = fmt.Errorf("%s is there twice", d.Registry)
		case err == nil && self != nil && d.Registry == *self:
			err = errors.New("it is this registry itself")
		}
		if err != nil {
			return fmt.Errorf("destinations[%d]: %w", i, err)
		}
		known[d.Registry] = true
	}
	if c.Rules == nil {
		return nil
	}
	if self == nil {
		return errors.New("rules: go with the section registry, which says what this one is called")
	}
	var err error
	if c.configuration, err = (replication.Validation{For: *self}).Parse(`{"rules":` + string(c.Rules) + `}`); err != nil {
		return err
	}
	for i, rule := range c.configuration.Rules {
		for j, to := range rule.Destinations {
			if !known[to] {
				return fmt.Errorf("rules[%d].destinations[%d]: the list destinations has no URL for %s", i, j, to)
			}
		}
	}
	return nil
}

// wanted tells whether anything is copied to elsewhere.
func (c *replicationConfig) wanted() bool { return c != nil && c.Rules != nil }

// sourceHeader names the registry that a request copies from, as ACCOUNT/REGION.
const sourceHeader = "Wharfage-Replication-Source"

// cause is that of a request: a copy, if one of the sources says so. Anybody
// else may say what he likes.
func (c *replicationConfig) cause(r *http.Request) (manifest.Cause, []string) {
	from := r.Header.Get(sourceHeader)
	if c == nil || from == "" {
		return manifest.CauseClient, nil
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if _, ok := registryOf(from); err != nil || !ok {
		return manifest.CauseClient, nil
	}
	for _, n := range c.networks {
		if n.Contains(peer.Addr().Unmap()) {
			return manifest.CauseReplication, []string{from}
		}
	}
	return manifest.CauseClient, nil
}

// registryOf reads the name of a registry, as ACCOUNT/REGION.
func registryOf(s string) (replication.Registry, bool) {
	id, region, _ := strings.Cut(s, "/")
	r := replication.Registry{Region: region, ID: id}
	return r, checkIdentity(r) == nil
}

// replicator makes jobs of changes and does them.
type replicator struct {
	replication.Replicator
	destinations map[replication.Registry]replication.Destination
	copies       *prometheus.CounterVec // destination, result
	jobs         *prometheus.GaugeVec   // state
}

// newReplicator returns nil if nothing is to be copied. Its Source and Queue are
// those of a storage that is opened with it.
func newReplicator(c *config, where *place, hook *webhookJob, m *metrics) (*replicator, error) {
	if !c.Replication.wanted() {
		return nil, nil
	}
	login, err := remote.DockerCredentials()
	if err != nil {
		return nil, err
	}
	own := c.Replication
	r := &replicator{
		destinations: map[replication.Registry]replication.Destination{},
		copies:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_replicated_total", Help: "Images that were copied to a destination, and jobs that were given up."}, []string{"destination", "result"}),
		jobs:         prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "registry_replication_jobs", Help: "Jobs of replication that are not done, as of half a minute ago."}, []string{"state"}),
	}
	m.registry.MustRegister(r.copies, r.jobs)
	r.Replicator = replication.Replicator{
		Self: *c.Registry, Owner: owner(), Jobs: own.Jobs, PerDestination: own.PerDestination,
		Attempts:      cmp.Or(own.Attempts, 300),
		Configuration: func(context.Context) (replication.Configuration, error) { return own.configuration, nil },
		Destinations: func(_ context.Context, to replication.Registry) (replication.Destination, error) {
			d, ok := r.destinations[to]
			if !ok {
				return d, fmt.Errorf("%w: the configuration has no URL for %s", replication.ErrDenied, to)
			}
			return d, nil
		},
		Copier: new(replication.Copier),
		OnJob: func(_ context.Context, e replication.Entry) {
			if e.State != replication.StateDone {
				slog.Warn("a copy failed", "repo", e.Job.Repo, "digest", e.Job.Digest, "to", e.Job.To, "state", e.State, "again", e.Due, "code", e.Failure.Code, "why", e.Failure.Detail)
			}
		},
	}
	if where.data != "" {
		r.Copier.Journal = replication.DirJournal(filepath.Join(where.data, "copies"))
	}
	for _, d := range own.Destinations {
		r.destinations[d.Registry] = replication.Destination{
			Target: d.registry(r.Self, login).Target(),
			Tell: func(_ context.Context, e events.Replication) {
				result := cmp.Or(e.Result, events.Success)
				r.copies.WithLabelValues(d.Registry.String(), result).Inc()
				if result == events.Failed { // else the destination tells
					slog.Error("a copy was given up", "repo", e.Repository, "digest", e.Digest, "tag", e.Tag, "to", d.Registry)
					hook.tell(e)
				}
			},
		}
	}
	return r, nil
}

// work does jobs until ctx ends. Those under way are then given back.
func (r *replicator) work(ctx context.Context, store *storage) {
	if r == nil {
		return
	}
	for ctx.Err() == nil {
		if err := store.work(ctx, &r.Replicator); ctx.Err() == nil {
			slog.Error("the jobs of replication rest", "err", err)
			wait(ctx, time.Second)
		}
	}
}

// count counts the jobs that are not done, until ctx ends.
func (r *replicator) count(ctx context.Context) {
	for r != nil && ctx.Err() == nil {
		for _, state := range []replication.State{replication.StateWaiting, replication.StateRunning, replication.StateDead} {
			r.countJobs(ctx, state)
		}
		wait(ctx, 30*time.Second)
	}
}

func (r *replicator) countJobs(ctx context.Context, state replication.State) {
	n := 0
	for _, err := range r.Queue.Entries(ctx, replication.EntryFilter{State: state}, 0) {
		if err != nil {
			return // and the number stays what it was, until the next time
		}
		n++
	}
	r.jobs.WithLabelValues(string(state)).Set(float64(n))
}

// owner names this process to people who look at jobs.
func owner() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

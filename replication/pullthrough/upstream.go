package pullthrough

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// refusal is an upstream's answer about one thing, which it need not give again soon.
type refusal struct {
	until time.Time
	err   error
}

// outage is an upstream that fails whatever it is asked.
type outage struct {
	until time.Time
	err   error
	times int // in a row
}

const (
	outageFirst = time.Second
	outageMost  = 30 * time.Second
	outageAsked = time.Hour // that a Retry-After may ask for
)

// ask puts one question about object to the upstream of p, unless it has just refused an
// answer.
func (c *Cache) ask(ctx context.Context, p place, object string, question func(ctx context.Context, s replication.Source) error) error {
	if err := c.refusal(p, object); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.silence(), errSilent)
	defer cancel()
	if err := c.outage(p); err != nil {
		return err
	}
	source, err := c.Upstream(ctx, p.rule)
	if err == nil {
		err = question(ctx, source)
	}
	err = p.upstreamError(ctx, object, err)
	c.note(p, err)
	c.refuse(p, object, err)
	return err
}

// refusal returns what upstream has just said about object, if it was a refusal.
func (c *Cache) refusal(p place, object string) error {
	if r, ok := c.refused.get(p.repo + " " + object); ok && c.now().Before(r.until) {
		return r.err
	}
	return nil
}

// refuse remembers err, if it is a refusal.
func (c *Cache) refuse(p place, object string, err error) {
	age := orDefault(c.ErrorAge, 5*time.Second)
	if age > 0 && isUpstream(err) && (p.apart || isNotFound(err) || errors.Is(err, replication.ErrDenied) || errors.Is(err, replication.ErrContent)) {
		c.refused.set(p.repo+" "+object, refusal{c.now().Add(age), err})
	}
}

// outage returns why the upstream of p is to be left alone, if it is.
func (c *Cache) outage(p place) error {
	if o, ok := c.outages.get(p.rule.UpstreamURL); ok && c.now().Before(o.until) {
		return o.err
	}
	return nil
}

// note draws conclusions for the upstream as a whole.
func (c *Cache) note(p place, err error) {
	limited, down := errors.Is(err, replication.ErrRateLimited), errors.Is(err, replication.ErrUnavailable)
	o, known := c.outages.get(p.rule.UpstreamURL)
	switch {
	case limited || down && !p.apart:
		o.times++
		wait := min(outageFirst<<min(o.times-1, 10), outageMost)
		if t, ok := errors.AsType[*replication.TemporaryError](err); ok {
			wait = max(wait, min(t.After, outageAsked))
		}
		o.err, o.until = err, c.now().Add(wait)
		c.outages.set(p.rule.UpstreamURL, o)
	case known && (err == nil || isUpstream(err)):
		c.outages.drop(p.rule.UpstreamURL)
	}
}

// manifestOf fetches a manifest and verifies it.
func (c *Cache) manifestOf(ctx context.Context, p place, dgst digest.Digest) (rec manifest.Record, err error) {
	err = c.ask(ctx, p, string(dgst), func(ctx context.Context, s replication.Source) error {
		got, err := s.Manifests.Get(ctx, p.upstream, dgst)
		if errors.Is(err, blob.ErrNotFound) {
			err = manifest.ErrNotFound
		}
		if err != nil {
			return err
		}
		if len(got.Raw) > manifest.MaxSize {
			return wrong("a manifest of %d bytes, takes %d", len(got.Raw), manifest.MaxSize)
		}
		if is := manifest.Digest(dgst.Algorithm(), got.Raw); is != dgst {
			return wrong("its content has digest %s", is)
		}
		m, err := manifest.Parse(got.Desc.MediaType, got.Raw)
		if err != nil {
			return wrong("%v", err) // not the client's fault, as its own type would say
		}
		rec = m.Record(dgst, got.Raw)
		return nil
	})
	return rec, err
}

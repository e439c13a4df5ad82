package boltstore

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/wharfage/wharfage/replication"
)

// Jobs is a [replication.Queue]. It keeps the last 10,000 jobs that are done.
//
// A job leaves the outbox and is in the queue a moment later, so that a crash between
// the two finds it in either: [manifest.Drain] forgets a change after its jobs are
// durable, and adds them again at worst.
type Jobs struct{ db *DB }

var _ replication.Queue = (*Jobs)(nil)

const keepDone = 10_000

// The keys of jobs begin with one of these.
const (
	idKey      = 'i' // ID → number
	imageKey   = 'm' // repository, digest, number
	waitingKey = 'w' // destination, when it is due, number
	runningKey = 'r' // likewise
	doneKey    = 'd' // a number of its own, that goes up; number
	pausedKey  = 'p' // destination
)

func jobKey(kind byte, names ...string) []byte {
	b := []byte{kind}
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	return b
}

// dueKey is where an entry waits or runs.
func dueKey(kind byte, e *replication.Entry) []byte {
	return append(appendTime(jobKey(kind, e.Job.To.String()), e.Due), numberRow(e.Number)...)
}

func jobError(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, object, err)
}

func (t *tx) entry(n uint64) (e replication.Entry, found bool, err error) {
	row := t.get(jobRows, numberRow(n))
	if row == nil {
		return e, false, nil
	}
	if err := json.Unmarshal(row, &e); err != nil {
		return e, false, fmt.Errorf("job %d: %w: %w", n, errRow, err)
	}
	return e, true, nil
}

// entryOf is that of a job by its ID.
func (t *tx) entryOf(id string) (e replication.Entry, found bool, err error) {
	return t.entry(number(t.get(jobKeyRows, jobKey(idKey, id))))
}

func (t *tx) putEntry(e *replication.Entry) error {
	row, err := json.Marshal(e)
	if err == nil {
		t.put(jobRows, numberRow(e.Number), row)
	}
	return err
}

// sequence returns a number that is greater than all before it.
func (t *tx) sequence(table int) uint64 {
	t.wrote = true
	n, err := t.table(table).NextSequence()
	if err != nil {
		panic(writeError{err})
	}
	return n
}

// Add implements [replication.Queue].
func (j *Jobs) Add(ctx context.Context, now time.Time, jobs ...replication.Job) error {
	return jobError("add", "jobs", j.db.update(ctx, func(t *tx) error {
		for _, job := range jobs {
			if t.has(jobKeyRows, jobKey(idKey, job.ID)) {
				continue
			}
			e := replication.Entry{Job: job, Number: t.sequence(jobRows), State: replication.StateWaiting, Due: now}
			if err := t.putEntry(&e); err != nil {
				return err
			}
			t.put(jobKeyRows, jobKey(idKey, job.ID), numberRow(e.Number))
			t.put(jobKeyRows, imageRow(&e), nothing)
			t.put(jobKeyRows, dueKey(waitingKey, &e), nothing)
		}
		return nil
	}))
}

func imageRow(e *replication.Entry) []byte {
	return append(jobKey(imageKey, e.Job.Repo, string(e.Job.Digest)), numberRow(e.Number)...)
}

// route is what there is for a destination: how many run, and what is due.
type route struct {
	running int
	expired []uint64 // by when
	prefix  []byte   // of those that wait
}

// Lease implements [replication.Queue].
func (j *Jobs) Lease(ctx context.Context, r replication.LeaseRequest) (out []replication.Entry, err error) {
	err = j.db.update(ctx, func(t *tx) error {
		out = nil
		routes, err := t.routes(r.Now)
		if err != nil {
			return err
		}
		for len(out) < r.Most {
			var best *route
			var next replication.Entry
			for _, to := range routes {
				if r.PerDestination > 0 && to.running >= r.PerDestination {
					continue
				}
				e, found, err := t.next(to, r.Now)
				if err != nil {
					return err
				}
				if found && (best == nil || cmp.Or(cmp.Compare(to.running, best.running), e.Due.Compare(next.Due), cmp.Compare(e.Number, next.Number)) < 0) {
					best, next = to, e
				}
			}
			if best == nil {
				return nil
			}
			if next.State == replication.StateRunning {
				best.expired = slices.DeleteFunc(best.expired, func(n uint64) bool { return n == next.Number })
				t.delete(jobKeyRows, dueKey(runningKey, &next))
			} else {
				t.delete(jobKeyRows, dueKey(waitingKey, &next))
			}
			best.running++
			next.State, next.Owner, next.Token, next.Due = replication.StateRunning, r.Owner, t.sequence(jobKeyRows), r.Now.Add(r.TTL)
			next.Attempts++
			if err := t.putEntry(&next); err != nil {
				return err
			}
			t.put(jobKeyRows, dueKey(runningKey, &next), nothing)
			out = append(out, next)
		}
		return nil
	})
	if err != nil {
		return nil, jobError("lease", "jobs", err)
	}
	return out, nil
}

// routes returns those destinations that have jobs and are not paused.
func (t *tx) routes(now time.Time) ([]*route, error) {
	byName := map[string]*route{}
	of := func(name string) *route {
		r := byName[name]
		if r == nil {
			r = &route{prefix: jobKey(waitingKey, name)}
			byName[name] = r
		}
		return r
	}
	for k := range t.under(jobKeyRows, []byte{runningKey}, []byte{runningKey}) {
		name := upToZero(k[1:])
		if due := k[1+len(name)+1:]; len(due) == timeLen+8 {
			at := row{s: string(due[:timeLen])}
			if r := of(name); at.time().After(now) {
				r.running++
			} else {
				r.expired = append(r.expired, number(due[timeLen:]))
			}
		}
	}
	c := t.table(jobKeyRows).Cursor()
	for k, _ := c.Seek([]byte{waitingKey}); len(k) > 0 && k[0] == waitingKey; {
		name := upToZero(k[1:])
		of(name)
		k, _ = c.Seek([]byte(string(k[:1]) + name + "\x01")) // behind all of its rows
	}
	var out []*route
	for name, r := range byName {
		if !t.has(jobKeyRows, jobKey(pausedKey, name)) {
			out = append(out, r)
		}
	}
	return out, nil
}

// next returns the job of a destination that has been due for longest.
func (t *tx) next(r *route, now time.Time) (best replication.Entry, found bool, err error) {
	k, _ := t.table(jobKeyRows).Cursor().Seek(r.prefix)
	numbers := r.expired
	if len(k) == len(r.prefix)+timeLen+8 && string(k[:len(r.prefix)]) == string(r.prefix) {
		numbers = append(slices.Clone(numbers), number(k[len(k)-8:]))
	}
	for _, n := range numbers {
		e, has, err := t.entry(n)
		if err != nil {
			return best, false, err
		}
		if !has || e.Due.After(now) {
			continue
		}
		if !found || cmp.Or(e.Due.Compare(best.Due), cmp.Compare(e.Number, best.Number)) < 0 {
			best, found = e, true
		}
	}
	return best, found, nil
}

// end runs do with the job of a lease that is the last one, which is then no more, and
// keeps what do makes of it.
func (j *Jobs) end(ctx context.Context, op string, l replication.Entry, do func(t *tx, e *replication.Entry)) error {
	return jobError(op, "job "+l.Job.ID, j.db.update(ctx, func(t *tx) error {
		e, found, err := t.entryOf(l.Job.ID)
		if err != nil {
			return err
		}
		if !found || e.State != replication.StateRunning || e.Token != l.Token {
			return &replication.StaleError{ID: l.Job.ID, Token: l.Token, Have: e.Token}
		}
		t.delete(jobKeyRows, dueKey(runningKey, &e))
		if do(t, &e); e.State != replication.StateRunning {
			e.Owner, e.Token = "", 0
		}
		return t.putEntry(&e)
	}))
}

// Extend implements [replication.Queue].
func (j *Jobs) Extend(ctx context.Context, l replication.Entry, until time.Time) error {
	return j.end(ctx, "extend", l, func(t *tx, e *replication.Entry) {
		e.Due = until
		t.put(jobKeyRows, dueKey(runningKey, e), nothing)
	})
}

// Done implements [replication.Queue].
func (j *Jobs) Done(ctx context.Context, l replication.Entry, now time.Time, outcome string) error {
	return j.end(ctx, "end", l, func(t *tx, e *replication.Entry) {
		e.State, e.Due, e.EndedAt, e.Outcome, e.Failure = replication.StateDone, time.Time{}, now, outcome, replication.JobFailure{}
		end := t.sequence(jobKeyRows)
		t.put(jobKeyRows, append(jobKey(doneKey), numberRow(end)...), numberRow(e.Number))
		t.forgetDone()
	})
}

// countRow is how many jobs are done.
var countRow = []byte("jobs done")

// forgetDone makes room for one that is done.
func (t *tx) forgetDone() {
	n := number(t.get(metaRows, countRow)) + 1
	for ; n > keepDone; n-- {
		key, v := t.table(jobKeyRows).Cursor().Seek([]byte{doneKey})
		e, found, err := t.entry(number(v))
		t.delete(jobKeyRows, append([]byte(nil), key...))
		if found && err == nil {
			t.forgetEntry(&e)
		}
	}
	t.put(metaRows, countRow, numberRow(n))
}

func (t *tx) forgetEntry(e *replication.Entry) {
	t.delete(jobRows, numberRow(e.Number))
	t.delete(jobKeyRows, jobKey(idKey, e.Job.ID))
	t.delete(jobKeyRows, imageRow(e))
}

// Fail implements [replication.Queue].
func (j *Jobs) Fail(ctx context.Context, l replication.Entry, now time.Time, f replication.JobFailure, retryAt time.Time) error {
	return j.end(ctx, "fail", l, func(t *tx, e *replication.Entry) {
		if f == (replication.JobFailure{}) {
			e.Attempts--
		} else {
			e.Failure = f
		}
		if e.Due = retryAt; retryAt.IsZero() {
			e.State, e.EndedAt = replication.StateDead, now
			return
		}
		e.State = replication.StateWaiting
		t.put(jobKeyRows, dueKey(waitingKey, e), nothing)
	})
}

// Entries implements [replication.Board].
func (j *Jobs) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	table, prefix := jobRows, []byte(nil)
	if f.Repo != "" && f.Digest != "" {
		table, prefix = jobKeyRows, jobKey(imageKey, f.Repo, string(f.Digest))
	}
	from := append(slices.Clone(prefix), numberRow(after+1)...)
	if after+1 == 0 {
		from = nil
	}
	return list(ctx, j.db, from, func(t *tx, from []byte, n int) (page []replication.Entry, _ []byte, err error) {
		looked := 0
		for k := range t.under(table, prefix, from) {
			if looked == n {
				return page, append([]byte(nil), k...), nil
			}
			looked++
			e, found, err := t.entry(number(k[len(prefix):]))
			if err != nil {
				return nil, nil, err
			}
			if found && f.Match(&e) {
				page = append(page, e)
			}
		}
		return page, nil, nil
	}, func(err error) error { return jobError("list", "jobs", err) })
}

// dead runs do with a job that is.
func (j *Jobs) dead(ctx context.Context, op, id string, do func(t *tx, e *replication.Entry) error) error {
	return jobError(op, "job "+id, j.db.update(ctx, func(t *tx) error {
		e, found, err := t.entryOf(id)
		if err != nil {
			return err
		}
		if !found || e.State != replication.StateDead {
			return replication.ErrNoJob
		}
		return do(t, &e)
	}))
}

// Replay implements [replication.Board].
func (j *Jobs) Replay(ctx context.Context, id string, now time.Time) error {
	return j.dead(ctx, "replay", id, func(t *tx, e *replication.Entry) error {
		e.State, e.Due, e.EndedAt, e.Attempts = replication.StateWaiting, now, time.Time{}, 0
		t.put(jobKeyRows, dueKey(waitingKey, e), nothing)
		return t.putEntry(e)
	})
}

// Discard implements [replication.Board].
func (j *Jobs) Discard(ctx context.Context, id string) error {
	return j.dead(ctx, "discard", id, func(t *tx, e *replication.Entry) error {
		t.forgetEntry(e)
		return nil
	})
}

// SetPaused implements [replication.Board].
func (j *Jobs) SetPaused(ctx context.Context, to replication.Registry, paused bool) error {
	// The row says also how it is to be written.
	row, err := json.Marshal(to)
	if err == nil {
		err = j.db.update(ctx, func(t *tx) error {
			if key := jobKey(pausedKey, to.String()); paused {
				t.put(jobKeyRows, key, row)
			} else {
				t.delete(jobKeyRows, key)
			}
			return nil
		})
	}
	return jobError("pause", to.String(), err)
}

// Paused implements [replication.Board].
func (j *Jobs) Paused(ctx context.Context) (out []replication.Registry, err error) {
	err = j.db.view(ctx, func(t *tx) error {
		for _, v := range t.under(jobKeyRows, []byte{pausedKey}, []byte{pausedKey}) {
			var to replication.Registry
			if err := json.Unmarshal(v, &to); err != nil {
				return fmt.Errorf("%w: %w", errRow, err)
			}
			out = append(out, to)
		}
		return nil
	})
	return out, jobError("list", "paused destinations", err)
}

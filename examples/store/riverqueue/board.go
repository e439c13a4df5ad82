package riverqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/wharfage/wharfage/replication"
)

// stateOf is a state of River in the words of package replication.
func stateOf(s rivertype.JobState) replication.State {
	switch s {
	case rivertype.JobStateRunning:
		return replication.StateRunning
	case rivertype.JobStateCompleted:
		return replication.StateDone
	case rivertype.JobStateCancelled, rivertype.JobStateDiscarded:
		return replication.StateDead
	}
	return replication.StateWaiting
}

// River has indexes for these conditions, if states are not parameters: of the jobs in the
// table, most have ended.

// inStates is that of a job in one of states.
func inStates(states ...replication.State) string {
	var in []string
	for _, r := range rivertype.JobStates() {
		if slices.Contains(states, stateOf(r)) {
			in = append(in, "'"+string(r)+"'")
		}
	}
	if in == nil {
		return "false"
	}
	return "state in (" + strings.Join(in, ", ") + ")"
}

// hasArgs is that of args which have those of a parameter.
const hasArgs = `args @> $%d::jsonb`

// Entries implements [replication.Board].
func (q *Queue) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	const pageLen = 256
	return func(yield func(replication.Entry, error) bool) {
		for {
			page, err := q.page(ctx, f, after, pageLen)
			if err != nil {
				yield(replication.Entry{}, fmt.Errorf("riverqueue: list jobs: %w", err))
				return
			}
			for _, e := range page {
				after = e.Number
				if !yield(e, nil) {
					return
				}
			}
			if len(page) < pageLen {
				return
			}
		}
	}
}

func (q *Queue) page(ctx context.Context, f replication.EntryFilter, after uint64, limit int) ([]replication.Entry, error) {
	if int64(after) < 0 {
		return nil, nil
	}
	sql, params := `select id, args, state::text, attempt, scheduled_at, finalized_at, attempted_by, errors[array_upper(errors, 1)]
		from river_job where kind = $1 and id > $2`, []any{kind, int64(after)}
	and := func(condition string, param any) {
		params = append(params, param)
		sql += fmt.Sprintf(" and "+condition, len(params))
	}
	if f.State != "" {
		sql += " and " + inStates(f.State)
	}
	if f.To != (replication.Registry{}) {
		and(`queue = $%d`, queueOf(f.To))
	}
	job := map[string]string{}
	if f.Repo != "" {
		job["repository"] = f.Repo
	}
	if f.Digest != "" {
		job["digest"] = string(f.Digest)
	}
	if len(job) > 0 {
		and(hasArgs, map[string]any{"job": job})
	}
	rows, err := q.o.Pool.Query(ctx, sql+fmt.Sprint(" order by id limit ", limit), params...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e replication.Entry, err error) {
		var id int64
		var text, failure []byte
		var state string
		var due time.Time
		var ended *time.Time
		var by []string
		if err := row.Scan(&id, &text, &state, &e.Attempts, &due, &ended, &by, &failure); err != nil {
			return e, err
		}
		var a args
		if err := json.Unmarshal(text, &a); err != nil {
			return e, err
		}
		e.Job, e.Number, e.State = a.Job, uint64(id), stateOf(rivertype.JobState(state))
		switch e.State {
		case replication.StateWaiting:
			e.Due = due.UTC()
		case replication.StateRunning:
			if len(by) > 0 {
				e.Owner = by[len(by)-1]
			}
		}
		if ended != nil {
			e.EndedAt = ended.UTC()
		}
		if failure != nil && e.State != replication.StateDone {
			var last struct{ Error string }
			if err := json.Unmarshal(failure, &last); err != nil {
				return e, err
			}
			e.Failure = failureIn(last.Error)
		}
		return e, nil
	})
}

// failureIn reads what worker.Work has written, or River itself.
func failureIn(text string) replication.JobFailure {
	text = strings.TrimPrefix(text, "JobCancelError: ")
	code, detail, found := strings.Cut(text, ": ")
	if !found || strings.ContainsAny(code, " \"") {
		return replication.JobFailure{Code: replication.FailureInternal, Detail: text}
	}
	return replication.JobFailure{Code: replication.FailureCode(code), Detail: detail}
}

// dead returns the number of a job that is.
func (q *Queue) dead(ctx context.Context, id string) (n int64, err error) {
	err = q.o.Pool.QueryRow(ctx, fmt.Sprintf(`select id from river_job where kind = $1 and `+hasArgs, 2)+` and `+inStates(replication.StateDead),
		kind, map[string]string{"id": id}).Scan(&n)
	if errors.Is(err, pgx.ErrNoRows) {
		err = replication.ErrNoJob
	}
	return n, err
}

// gone makes ErrNoJob of River's word for it.
func gone(err error) error {
	if errors.Is(err, rivertype.ErrNotFound) {
		return replication.ErrNoJob
	}
	return err
}

// Replay implements [replication.Board]: the job is due at once, and has one attempt more
// than it has had, or those that are left.
func (q *Queue) Replay(ctx context.Context, id string, _ time.Time) error {
	n, err := q.dead(ctx, id)
	if err == nil {
		_, err = q.client.JobRetry(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("riverqueue: replay job %s: %w", id, gone(err))
	}
	return nil
}

// Discard implements [replication.Board].
func (q *Queue) Discard(ctx context.Context, id string) error {
	n, err := q.dead(ctx, id)
	if err == nil {
		_, err = q.client.JobDelete(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("riverqueue: discard job %s: %w", id, gone(err))
	}
	return nil
}

// SetPaused implements [replication.Board]. It is for all processes.
func (q *Queue) SetPaused(ctx context.Context, to replication.Registry, paused bool) error {
	// River pauses only queues that somebody serves or has served.
	_, err := q.o.Pool.Exec(ctx, `insert into river_queue (name, created_at, updated_at) values ($1, now(), now()) on conflict do nothing`, queueOf(to))
	if err == nil && paused {
		err = q.client.QueuePause(ctx, queueOf(to), nil)
	} else if err == nil {
		err = q.client.QueueResume(ctx, queueOf(to), nil)
	}
	if err != nil {
		return fmt.Errorf("riverqueue: pause %s: %w", to, err)
	}
	return nil
}

// Paused implements [replication.Board].
func (q *Queue) Paused(ctx context.Context) (out []replication.Registry, err error) {
	const most = 10_000
	list, err := q.client.QueueList(ctx, river.NewQueueListParams().First(most))
	if err != nil {
		return nil, fmt.Errorf("riverqueue: list queues: %w", err)
	}
	for _, queue := range list.Queues {
		if to, ok := registryOf(queue.Name); ok && queue.PausedAt != nil {
			out = append(out, to)
		}
	}
	slices.SortFunc(out, func(a, b replication.Registry) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

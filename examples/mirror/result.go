package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wharfage/wharfage/replication"
)

// result is what became of a job. One of Copy and Sync is set.
type result struct {
	From   string                  `json:"from"`
	To     string                  `json:"to"`
	DryRun bool                    `json:"dryRun"`
	Error  string                  `json:"error,omitempty"`
	Copy   *replication.CopyResult `json:"copy,omitempty"`
	Sync   *syncResult             `json:"sync,omitempty"`
	err    error
}

type syncResult struct {
	replication.SyncReport
	Changes []replication.SyncChange `json:"changes,omitempty"` // by repository and tag
}

// do copies, or syncs.
func (j *job) do(ctx context.Context, c *command, copier *replication.Copier, p *progress) (r result) {
	r.From, r.To, r.DryRun = j.src.String(), j.dst.String(), c.dryRun
	src, dst, o := c.registry(j.src).Source(), c.registry(j.dst).Target(), j.o
	o.DryRun, o.OnEvent = c.dryRun, p.event
	if c.name == "copy" {
		r.Copy = new(replication.CopyResult)
		*r.Copy, r.err = copier.Copy(ctx, src, j.src.repo, cmp.Or(string(j.src.digest), j.src.tag), dst, j.dst.repo, o.CopyOptions)
	} else {
		r.Sync = new(syncResult)
		o.OnChange = func(change replication.SyncChange) {
			r.Sync.Changes = append(r.Sync.Changes, change)
			p.change(change)
		}
		r.Sync.SyncReport, r.err = copier.Sync(ctx, src, dst, o)
		slices.SortFunc(r.Sync.Changes, func(a, b replication.SyncChange) int {
			return cmp.Or(strings.Compare(a.Repo, b.Repo), strings.Compare(a.Ref, b.Ref))
		})
	}
	if r.err != nil {
		r.Error = r.err.Error()
	}
	return r
}

func (r result) status(ctx context.Context) int {
	switch {
	case r.err == nil:
		return exitOK
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(r.err, replication.ErrDeleteLimit):
		return exitLimit
	}
	return exitFailed
}

// tell prints a line with what was done, and errors.
func (c *command) tell(ctx context.Context, r result) {
	if !c.json && !c.events && !c.quiet && (r.err == nil || r.Sync != nil) {
		fmt.Fprintln(c.stdout, c.summary(r))
	}
	if r.Sync != nil {
		for _, f := range r.Sync.Failed {
			fmt.Fprintf(c.stderr, "mirror: %s: %s\n", strings.TrimSpace(f.Repo+" "+f.Ref), f.Err)
		}
	}
	if n := r.Sync; r.err == nil && n != nil && n.Unchanged+n.Created+n.Moved+n.Kept+n.Left == 0 {
		fmt.Fprintf(c.stderr, "mirror: %s has no tags that are chosen\n", r.From)
	}
	_, told := errors.AsType[*replication.SyncError](r.err)
	switch {
	case ctx.Err() != nil && r.err != nil:
		fmt.Fprintf(c.stderr, "mirror: %s to %s: interrupted; the same command goes on where it was\n", r.From, r.To)
	case r.err != nil && !told:
		fmt.Fprintf(c.stderr, "mirror: %s to %s: %v\n", r.From, r.To, r.err)
	}
}

func (c *command) summary(r result) string {
	var parts []string
	add := func(n int, format string, args ...any) {
		if n != 0 {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	var manifests, blobs replication.Tally
	if n := r.Copy; n != nil {
		manifests, blobs = n.Manifests, n.Blobs
		add(1, "%s", n.Root.Digest)
		add(len(n.Kept), "immutable there and left: %s", strings.Join(n.Kept, " "))
		add(len(n.Skipped), "%d left out", len(n.Skipped))
	} else if n := r.Sync; n != nil {
		manifests, blobs = n.Manifests, n.Blobs
		add(n.Repositories-1, "%d repositories", n.Repositories)
		add(1, "tags: %d unchanged", n.Unchanged)
		add(n.Created, "%d %s", n.Created, c.would("created"))
		add(n.Moved, "%d %s", n.Moved, c.would("moved"))
		add(n.Deleted, "%d %s", n.Deleted, c.would("deleted"))
		add(n.Kept, "%d immutable there and left", n.Kept)
		add(n.Left, "%d of another type", n.Left)
		add(n.Failures, "%d failed", n.Failures)
	}
	add(manifests.Sent+blobs.Sent, "%s and %s of %s %s", count(manifests.Sent, "manifest"), count(blobs.Sent, "blob"), size(manifests.Bytes+blobs.Bytes), c.would("sent"))
	add(blobs.Mounted, "%s %s", count(blobs.Mounted, "blob"), c.would("mounted"))
	if manifests.Sent+blobs.Sent+blobs.Mounted == 0 {
		add(1, "nothing to send")
	}
	return fmt.Sprintf("%s to %s: %s", r.From, r.To, strings.Join(parts, ", "))
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

// writeJSON prints the result of a copy, or the list of those of syncs.
func (c *command) writeJSON(done []result) error {
	var document any = map[string]any{"syncs": done}
	if c.name == "copy" {
		document = done[0]
	}
	if c.events {
		return c.line(map[string]any{"event": "result", "result": document})
	}
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(document)
}

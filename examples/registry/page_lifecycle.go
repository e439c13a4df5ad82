package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

const (
	verdictsPerPage = 100
	mostMeasured    = 20_000     // images whose sizes a preview reads
	mostJudged      = 20_000_000 // images a forecast judges, over all days
)

// examplePolicies are what one begins with.
var examplePolicies = []struct{ Name, Title, Text string }{
	{"newest", "Keep the 10 newest images", `{"rules": [
  {"rulePriority": 1, "description": "Keep the 10 newest images",
   "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10},
   "action": {"type": "expire"}}
]}`},
	{"untagged", "Expire untagged images after 14 days", `{"rules": [
  {"rulePriority": 1, "description": "Untagged images go after 14 days",
   "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14},
   "action": {"type": "expire"}}
]}`},
	{"releases", "Keep 20 releases, and the rest for 30 days", `{"rules": [
  {"rulePriority": 1, "description": "Keep the 20 newest releases",
   "selection": {"tagStatus": "tagged", "tagPatternList": ["v*"], "countType": "imageCountMoreThan", "countNumber": 20},
   "action": {"type": "expire"}},
  {"rulePriority": 2, "description": "Anything else goes after 30 days",
   "selection": {"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 30},
   "action": {"type": "expire"}}
]}`},
	{"unused", "Archive what nobody has pulled for 90 days, and expire it a year later", `{"rules": [
  {"rulePriority": 1, "description": "Archive what was not pulled for 90 days",
   "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 90},
   "action": {"type": "transition", "targetStorageClass": "archive"}},
  {"rulePriority": 2, "description": "Expire what was in the archive for a year",
   "selection": {"tagStatus": "any", "storageClass": "archive", "countType": "sinceImageTransitioned", "countUnit": "days", "countNumber": 365},
   "action": {"type": "expire"}}
]}`},
}

const inForce = "server" // the policy that the server applies

type choice struct {
	Name, Title string
	Here        bool
}

// lifecyclePage is what the template gets.
type lifecyclePage struct {
	Repo, RepoURL string
	Choices       []choice
	Chosen        string // its title; "" for a text of one's own
	Text          string
	Days          int
	DaysChoices   []int
	Image         string
	Faults        []lifecycle.FieldError
	Preview       *preview
}

// preview is what a policy would do.
type preview struct {
	Summary     lifecycle.Summary
	Keeps       int
	Freed       int64
	Measured    bool // sizes are known
	Warnings    []lifecycle.Warning
	Explained   *lifecycle.Explanation
	About, Why  string // the image that is explained, and what becomes of it
	Then        *lifecycle.Departure
	Rows        []verdictRow
	Page, Pages int
	Steps       []pageStep
	Forecast    *forecast
}

// pageStep is a way to another page. It sends the form, as the policy is in it.
type pageStep struct {
	Page  int
	Title string
}

type verdictRow struct {
	URL    string
	Image  *lifecycle.Image
	Action lifecycle.ActionType
	Why    string
	Then   *lifecycle.Departure // what the forecast says of what stays now
}

// lifecycle shows what a policy would do to a repository: the text that was
// sent, else the one that was picked, else the one in force, else an example.
func (p *page) lifecycle(r *http.Request, repo string) (*view, error) {
	if err := p.read(r, repo, http.MethodPost); err != nil {
		return nil, err
	}
	r.Body = http.MaxBytesReader(nil, r.Body, 256<<10) // of which escapes of a form are a lot
	if err := r.ParseForm(); err != nil {
		return nil, &pageError{http.StatusBadRequest, "The form could not be read. A policy has at most " + number(lifecycle.MaxLength) + " characters."}
	}
	data := lifecyclePage{Repo: repo, RepoURL: repoURL(repo), Image: r.Form.Get("image"), DaysChoices: []int{30, 90, 365}, Days: 90}
	if s := r.Form.Get("days"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains(data.DaysChoices, n) {
			return nil, &pageError{http.StatusBadRequest, "A forecast is for 30, 90 or 365 days."}
		}
		data.Days = n
	}
	policy, err := p.choose(r, &data)
	if invalid, ok := errors.AsType[*lifecycle.InvalidError](err); ok {
		data.Faults, err = invalid.Fields, nil
	}
	if err != nil {
		return nil, err
	}
	if policy != nil {
		if data.Preview, err = p.preview(r.Context(), &data, policy, r.Form.Get("page")); err != nil {
			return nil, err
		}
	}
	return &view{name: "lifecycle", Title: "Lifecycle preview · " + repo, Trail: []crumb{{repo, data.RepoURL}, {"Lifecycle preview", ""}}, Data: data}, nil
}

// choose finds the policy, and sets what the form shows of it.
func (p *page) choose(r *http.Request, data *lifecyclePage) (*lifecycle.Policy, error) {
	var applied *lifecycle.Policy
	if p.policy != nil {
		var err error
		if applied, err = p.policy(r.Context(), data.Repo); err != nil {
			return nil, err
		}
	}
	pick := r.Form.Get("policy")
	if applied != nil {
		data.Choices = append(data.Choices, choice{inForce, "The policy that this server applies", false})
	}
	for _, e := range examplePolicies {
		data.Choices = append(data.Choices, choice{e.Name, "Example: " + e.Title, false})
	}
	if text, ok := r.PostForm["text"]; ok {
		data.Text = strings.ReplaceAll(text[0], "\r\n", "\n")
		return lifecycle.Parse(data.Text)
	}
	if pick == "" {
		pick = data.Choices[0].Name
	}
	for i := range data.Choices {
		if c := &data.Choices[i]; c.Name == pick {
			c.Here, data.Chosen = true, c.Title
		}
	}
	policy := applied
	if pick != inForce {
		policy = nil
	}
	for _, e := range examplePolicies {
		if e.Name == pick {
			var err error
			if policy, err = lifecycle.Parse(e.Text); err != nil {
				return nil, err
			}
		}
	}
	if policy == nil {
		return nil, notFound("There is no such policy to pick.")
	}
	text, err := json.MarshalIndent(policy, "", "  ")
	data.Text = string(text)
	return policy, err
}

func (p *page) preview(ctx context.Context, data *lifecyclePage, policy *lifecycle.Policy, at string) (*preview, error) {
	images, since, err := lifecycle.Images(ctx, p.handler.Manifests, p.pulls, data.Repo)
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, notFound("There is no repository %s, or it is empty.", data.Repo)
	}
	out := &preview{Warnings: policy.Warnings(), Measured: len(images) <= mostMeasured}
	if out.Measured {
		if err := lifecycle.Sizes(ctx, p.handler.Manifests, data.Repo, images); err != nil {
			return nil, err
		}
	}
	o := policy.Options()
	o.PullsSince = since
	if policy, err = policy.With(o); err != nil {
		return nil, err
	}
	now := p.now()
	plan := lifecycle.Evaluate(policy, images, now)
	out.Summary = plan.Summary()
	order := plan.Order()
	out.Keeps = plan.Len() - len(order)
	for _, i := range order {
		if plan.Action(i) == lifecycle.Expire {
			out.Freed += plan.Image(i).Size
		}
	}
	days := max(1, min(data.Days, mostJudged/len(images)))
	timeline := lifecycle.Forecast(policy, images, now, now.AddDate(0, 0, days))
	out.Forecast = draw(timeline, out.Measured)
	goes := map[digest.Digest]*lifecycle.Departure{}
	for i := range timeline.Departures {
		d := &timeline.Departures[i]
		if goes[d.Digest] == nil {
			goes[d.Digest] = d
		}
	}
	if data.Image != "" {
		if out.Explained, err = lifecycle.Explain(plan, data.Image); err != nil {
			return nil, notFound("There is no image %s in %s.", visible(clip(data.Image, 200)), data.Repo)
		}
		row := newVerdictRow(data.Repo, out.Explained.Verdict, goes)
		out.About, out.Why, out.Then = short(row.Image.Digest), row.Why, row.Then
		if len(row.Image.Tags) > 0 {
			out.About = row.Image.Tags[0]
		}
	}
	if out.Page, out.Pages, err = pageNumber(at, len(images), verdictsPerPage); err != nil {
		return nil, err
	}
	if out.Page > 1 {
		out.Steps = append(out.Steps, pageStep{out.Page - 1, "Previous page"})
	}
	if out.Page < out.Pages {
		out.Steps = append(out.Steps, pageStep{out.Page + 1, "Next page"})
	}
	acted := make([]bool, plan.Len())
	for _, i := range order {
		acted[i] = true
	}
	var stays []int
	for i := range plan.Len() {
		if !acted[i] {
			stays = append(stays, i)
		}
	}
	slices.SortStableFunc(stays, func(a, b int) int { return plan.Image(b).PushedAt.Compare(plan.Image(a).PushedAt) })
	all := append(order, stays...)
	for _, i := range all[(out.Page-1)*verdictsPerPage : min(out.Page*verdictsPerPage, len(all))] {
		out.Rows = append(out.Rows, newVerdictRow(data.Repo, plan.Verdict(i), goes))
	}
	return out, nil
}

func newVerdictRow(repo string, v lifecycle.Verdict, goes map[digest.Digest]*lifecycle.Departure) verdictRow {
	_, why, _ := strings.Cut(v.String(), ": ")
	row := verdictRow{URL: imageURL(repo, v.Image.Digest), Image: v.Image, Action: v.Action, Why: why}
	if v.Action == lifecycle.Keep {
		row.Then = goes[v.Image.Digest]
	}
	return row
}

// forecast is a timeline as plots.
type forecast struct {
	Days  int
	From  time.Time
	To    time.Time
	Plots []plot
	Rows  []lifecycle.Day // on which something happens
	More  int             // such days that are not in Rows
}

// plot is a series, drawn in a box of plotWidth by plotHeight.
type plot struct {
	Title        string
	First, Last  string
	Top          string // what stands at the upper edge
	Line, Area   string // shapes
	ArchivedLine string // of what is in the archive; "" if nothing ever is
}

const plotWidth, plotHeight = 600, 120

func draw(t *lifecycle.Timeline, measured bool) *forecast {
	last := t.Days[len(t.Days)-1]
	out := &forecast{Days: len(t.Days) - 1, From: t.Days[0].At, To: last.At}
	const most = 60
	for _, d := range t.Days {
		switch {
		case d.Expired+d.Moved+d.Untagged == 0:
		case len(out.Rows) == most:
			out.More++
		default:
			out.Rows = append(out.Rows, d)
		}
	}
	first := t.Days[0] // as it is before the first pass
	first.Images += first.Expired
	first.Bytes += first.Freed
	days := append([]lifecycle.Day{first}, t.Days...)
	out.Plots = append(out.Plots, newPlot("Images", days, func(d lifecycle.Day) (int64, int64) { return int64(d.Images), int64(d.Archived) }, func(n int64) string { return number(n) }))
	if measured {
		out.Plots = append(out.Plots, newPlot("Bytes", days, func(d lifecycle.Day) (int64, int64) { return d.Bytes, d.ArchivedBytes }, size))
	}
	return out
}

func newPlot(title string, days []lifecycle.Day, of func(lifecycle.Day) (all, archived int64), say func(int64) string) plot {
	var top int64 = 1
	archives := false
	for _, d := range days {
		all, archived := of(d)
		top, archives = max(top, all), archives || archived > 0
	}
	var line, archive strings.Builder
	for i, d := range days {
		all, archived := of(d)
		x := max(0, i-1) * plotWidth / max(1, len(days)-2)
		for b, n := range map[*strings.Builder]int64{&line: all, &archive: archived} {
			y := plotHeight - int(float64(n)/float64(top)*plotHeight)
			if i == 0 {
				fmt.Fprintf(b, "M%d %d", x, y)
			} else {
				fmt.Fprintf(b, "H%dV%d", x, y)
			}
		}
	}
	first, _ := of(days[0])
	last, _ := of(days[len(days)-1])
	out := plot{Title: title, First: say(first), Last: say(last), Top: say(top), Line: line.String(), Area: fmt.Sprintf("%sV%dH0Z", line.String(), plotHeight)}
	if archives {
		out.ArchivedLine = archive.String()
	}
	return out
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// site is a server of a test.
type site struct {
	*testing.T
	addr, config string
	args         []string
	stop         context.CancelFunc
	ended        chan error
}

func newSite(t *testing.T, args ...string) *site {
	s := &site{T: t, addr: free(t), args: args}
	t.Cleanup(s.down)
	return s
}

// up starts the server, with a configuration if that is not "".
func (s *site) up() {
	s.Helper()
	args := append([]string{"-addr", s.addr, "-drain-delay", "0", "-collect-every", "0"}, s.args...)
	if s.config != "" {
		args = append(args, "-config", write(s.T, s.TempDir(), "config.json", s.config))
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s.stop, s.ended = stop, ended
	go func() { ended <- serve(ctx, args) }()
	s.until("it serves", func() bool {
		select {
		case err := <-ended:
			s.Fatal(err)
		default:
		}
		return status(s.T, "http://"+s.addr+"/v2/") == http.StatusOK
	})
}

func (s *site) down() {
	s.Helper()
	if s.stop == nil {
		return
	}
	s.stop()
	if err := <-s.ended; err != nil {
		s.Error(err)
	}
	s.stop = nil
}

// until waits for what a server does by itself. A job whose server was killed is tried again
// after a minute.
func (s *site) until(what string, is func() bool) {
	s.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); {
		if time.Now().After(deadline) {
			s.Fatalf("not within two minutes: %s", what)
		}
		wait(s.Context(), 20*time.Millisecond)
	}
}

func (s *site) remote() *remote.Registry { return &remote.Registry{Host: s.addr} }

// push pushes an image with a layer, and returns its digest.
func (s *site) push(repo, tag, text string) digest.Digest {
	s.Helper()
	target := s.remote().Target()
	put := func(mediaType string, content []byte) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := blob.Put(s.Context(), target.Blobs, repo, desc, bytes.NewReader(content)); err != nil {
			s.Fatal(err)
		}
		return desc
	}
	config, layer := put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux"}`)), put(ocispec.MediaTypeImageLayerGzip, []byte(text))
	raw, desc, err := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{layer}}.Build()
	if err == nil {
		_, err = target.Manifests.Push(s.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: []string{tag}})
	}
	if err != nil {
		s.Fatal(err)
	}
	return desc.Digest
}

// pull returns the layer of an image.
func (s *site) pull(repo, tag string) string {
	s.Helper()
	resp, body := s.get("/v2/" + repo + "/manifests/" + tag)
	doc, err := manifest.Parse(resp.Header.Get("Content-Type"), []byte(body))
	if err != nil {
		s.Fatal(err)
	}
	_, layer := s.get("/v2/" + repo + "/blobs/" + string(doc.Layers[0].Digest))
	return layer
}

// names returns what a tag names, "" if it is not there.
func (s *site) names(repo, tag string) digest.Digest {
	t, _ := s.remote().Source().Manifests.Resolve(s.Context(), repo, tag)
	return t.Digest
}

func (s *site) delete(repo, ref string) {
	s.Helper()
	r, _ := http.NewRequest("DELETE", "http://"+s.addr+"/v2/"+repo+"/manifests/"+ref, nil)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		s.Fatal(resp.Status)
	}
}

// get returns the head and the body of an answer.
func (s *site) get(path string) (*http.Response, string) {
	s.Helper()
	resp, err := http.Get("http://" + s.addr + path)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp, string(body)
}

// metric is the sum of the samples whose line begins so.
func (s *site) metric(prefix string) (sum float64) {
	s.Helper()
	_, text := s.get("/metrics")
	for line := range strings.Lines(text) {
		var v float64
		if strings.HasPrefix(line, prefix) {
			fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v)
			sum += v
		}
	}
	return sum
}

const (
	here  = `{"region": "eu-west-1", "registryId": "111122223333"}`
	there = `{"region": "us-east-1", "registryId": "111122223333"}`
)

// copying is a configuration that copies from one to another, and takes copies from this machine.
func copying(from, to, addr string) string {
	return `{"registry": ` + from + `, "replication": {"rules": [{"destinations": [` + to + `], "deleteReplication": {"enabled": true},
	  "repositoryFilters": [{"filter": "team", "filterType": "PREFIX_MATCH"}]}],
	  "destinations": [` + strings.TrimSuffix(to, "}") + `, "url": "http://` + addr + `"}], "sources": ["127.0.0.0/8"]}}`
}

// storages are the ways to keep things.
func storages(t *testing.T) map[string]func(t *testing.T) []string {
	return map[string]func(t *testing.T) []string{
		"memory": func(*testing.T) []string { return nil },
		"folder": func(t *testing.T) []string { return []string{"-unsynced", "-data", t.TempDir()} },
		"PostgreSQL": func(t *testing.T) []string {
			return []string{"-unsynced", "-data", t.TempDir(), "-postgres", pgtest.Start(t)}
		},
	}
}

// Two servers that copy to each other: what is pushed to one comes to the other, with
// deletions, and no copy starts another.
func TestServersReplicateToEachOther(t *testing.T) {
	for name, where := range storages(t) {
		t.Run(name, func(t *testing.T) {
			a, b := newSite(t, where(t)...), newSite(t)
			a.config, b.config = copying(here, there, b.addr), copying(there, here, a.addr)
			a.up()
			b.up()
			v1 := a.push("team/app", "v1", "one")
			a.push("other/app", "v1", "one")
			a.until("a push comes to the other", func() bool { return b.names("team/app", "v1") == v1 })
			if b.names("other/app", "v1") != "" {
				t.Error("what no rule covers is copied")
			}
			var body string
			a.until("its status is told", func() bool {
				_, body = a.get("/ui/replication/team/app:v1")
				return strings.Contains(body, `"COMPLETE"`)
			})
			var told struct {
				Repo     string `json:"repositoryName"`
				Statuses []struct{ Region, RegistryID, Status string }
			}
			if json.Unmarshal([]byte(strings.Replace(body, "replicationStatuses", "statuses", 1)), &told) != nil || told.Repo != "team/app" || len(told.Statuses) != 1 || told.Statuses[0].Region != "us-east-1" {
				t.Errorf("status: %s", body)
			}
			// The other way, and moved here again: each comes to the other side once.
			v2 := b.push("team/app", "v1", "two")
			b.until("a push comes back", func() bool { return a.names("team/app", "v1") == v2 })
			v3 := a.push("team/app", "v1", "three")
			a.until("a tag moves", func() bool { return b.names("team/app", "v1") == v3 })
			a.delete("team/app", "v1")
			a.until("a tag goes", func() bool { return b.names("team/app", "v1") == "" })
			a.delete("team/app", string(v1))
			a.until("an image goes", func() bool {
				return status(t, "http://"+b.addr+"/v2/team/app/manifests/"+string(v1)) == http.StatusNotFound
			})
			// A copy that started another would have come by now, before what was pushed after it.
			last := b.push("team/last", "v1", "last")
			b.until("the last", func() bool { return a.names("team/last", "v1") == last })
			if n := b.metric("registry_replicated_total"); n != 2 {
				t.Errorf("the other has copied %v images, want the 2 that were pushed to it", n)
			}
			if n := a.metric("registry_replicated_total"); n != 2 {
				t.Errorf("this one has copied %v images, want the 2 that were pushed to it", n)
			}
		})
	}
}

// What is to be copied outlives a destination that is down, and the end of the
// server itself.
func TestCopiesWaitForTheirDestination(t *testing.T) {
	for name, where := range storages(t) {
		if name == "memory" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			a, b := newSite(t, where(t)...), newSite(t, "-unsynced", "-data", t.TempDir())
			a.config = copying(here, there, b.addr)
			a.up()
			pushed := map[string]digest.Digest{}
			push := func(from, to int) {
				for i := from; i < to; i++ {
					tag := fmt.Sprint("v", i)
					pushed[tag] = a.push("team/app", tag, tag)
				}
			}
			push(0, 10)
			a.until("its status says that it waits", func() bool {
				_, body := a.get("/ui/replication/team/app:v0")
				return strings.Contains(body, `"IN_PROGRESS"`)
			})
			if _, page := a.get("/ui/image/team/app:v0"); !strings.Contains(page, "IN_PROGRESS") || !strings.Contains(page, "us-east-1") {
				t.Errorf("the page does not show that it is in progress")
			}
			a.down()
			a.up()
			push(10, 20)
			b.up()
			a.down() // in the middle, perhaps
			a.up()
			for tag, dgst := range pushed {
				a.until(tag+" is there", func() bool { return b.names("team/app", tag) == dgst })
			}
		})
	}
}

// A push that claims to be a copy is one if it comes from where copies do.
func TestOnlySourcesSayThatTheyCopy(t *testing.T) {
	for networks, want := range map[string]manifest.Cause{"10.0.0.0/8": manifest.CauseClient, "127.0.0.0/8": manifest.CauseReplication, "": manifest.CauseClient} {
		c := &replicationConfig{}
		if networks != "" {
			c.Sources = []string{networks}
		}
		if err := c.check(nil); err != nil {
			t.Fatal(err)
		}
		for header, want := range map[string]manifest.Cause{"111122223333/eu-west-1": want, "": manifest.CauseClient, "somebody": manifest.CauseClient} {
			r := httptest.NewRequest("PUT", "/", nil)
			r.RemoteAddr = "127.0.0.1:4000"
			if header != "" {
				r.Header.Set(sourceHeader, header)
			}
			cause, via := c.cause(r)
			if cause != want || len(via) != map[bool]int{true: 1}[want == manifest.CauseReplication] {
				t.Errorf("%q from 127.0.0.1, sources %q: %q via %q, want %q", header, networks, cause, via, want)
			}
		}
	}
}

// The webhook of the destination tells of a copy, and whence it came. A webhook that is
// down keeps no copy waiting.
func TestTheWebhookTellsOfCopies(t *testing.T) {
	var mu sync.Mutex
	var told []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		told = append(told, string(body))
	}))
	defer hook.Close()
	a, b := newSite(t, "-webhook", "http://"+free(t)), newSite(t, "-webhook", hook.URL)
	b.config = `{"registry": ` + there + `, "replication": {"sources": ["127.0.0.1/32"]}, "pullThroughCache": {"rules": [{"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "` + a.addr + `"}]}}`
	a.config = copying(here, there, b.addr)
	a.up()
	b.up()
	for i := range 3 {
		tag := fmt.Sprint("v", i)
		v := a.push("team/app", tag, tag)
		a.until("copied", func() bool { return b.names("team/app", tag) == v })
	}
	b.get("/v2/hub/team/app/manifests/v0")
	for _, want := range [][]string{
		{"com.amazonaws.ecr.replication", `"source-account":"111122223333"`, `"source-region":"eu-west-1"`, `"image-tag":"v2"`},
		{"com.amazonaws.ecr.pull-through-cache", `"SUCCESS"`, a.addr, `"hub/team/app"`},
	} {
		b.until("events", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range told {
				all := true
				for _, part := range want {
					all = all && strings.Contains(e, part)
				}
				if all {
					return true
				}
			}
			return false
		})
	}
}

func TestReplicationIsConfiguredStrictly(t *testing.T) {
	dir := t.TempDir()
	rules := func(rule string) string {
		return `{"registry": ` + here + `, "replication": {"rules": [` + rule + `], "destinations": [` + strings.TrimSuffix(there, "}") + `, "url": "https://there.example"}]}}`
	}
	destination := func(rest string) string {
		return `{"registry": ` + here + `, "replication": {"destinations": [` + strings.TrimSuffix(there, "}") + rest + `}]}}`
	}
	for text, want := range map[string]string{
		`{"registry": {"region": "eu-west-1"}}`:                             "registry: registryId: takes a string of 12 digits",
		`{"registry": {"region": "E", "registryId": "111122223333"}}`:       "registry: region: takes 2 to 25 lower case",
		`{"registry": {"name": "x"}}`:                                       `/registry: unknown field "name"`,
		`{"replication": {"rule": []}}`:                                     `/replication: unknown field "rule"`,
		`{"replication": {"rules": []}}`:                                    "replication: rules: go with the section registry",
		`{"replication": {"sources": ["10.0.0.1"]}}`:                        `replication: sources[0]: want a network, as in 10.0.0.0/8, not "10.0.0.1"`,
		`{"replication": {"jobs": -1}}`:                                     "replication: jobs: want a number from 0",
		rules(`{"destinations": [` + here + `]}`):                           "rules[0].destinations[0]: Replication destination cannot be the same",
		rules(`{"destinations": [{"region": "us-east-1"}]}`):                "rules[0].destinations[0].registryId: is required",
		rules(`{"destinations": [` + there + `], "repositoryFilters": []}`): "rules[0].repositoryFilters: is to be left out",
		rules(`{"destination": [` + there + `]}`):                           "rules[0].destination: is not known",
		rules(strings.Replace(`{"destinations": [X]}`, "X", otherPlace, 1)): "replication: rules[0].destinations[0]: the list destinations has no URL for 999988887777/eu-north-1",
		destination(``): "replication: destinations[0]: url: want http://HOST",
		destination(`, "url": "https://user:hunter2@there.example"`):                                           "replication: destinations[0]: url: want http://HOST",
		destination(`, "url": "https://there.example/v2"`):                                                     "replication: destinations[0]: url: want http://HOST",
		destination(`, "url": "ftp://there.example"`):                                                          "replication: destinations[0]: url: want http://HOST",
		destination(`, "url": "https://there.example", "allow": ["10.0.0.1"]`):                                 "replication: destinations[0]: allow[0]: want a host with its port",
		destination(`, "url": "https://there.example", "realms": ["auth"]`):                                    "replication: destinations[0]: realm",
		destination(`, "url": "https://there.example", "requests": -1`):                                        "replication: destinations[0]: requests: want a number",
		destination(`, "url": "https://a.example"}, ` + there[:len(there)-1] + `, "url": "https://b.example"`): "replication: destinations[1]: 111122223333/us-east-1 is there twice",
		strings.Replace(destination(`, "url": "https://a.example"`), here, there, 1):                           "replication: destinations[0]: it is this registry itself",
	} {
		_, err := readConfig(write(t, dir, "config.json", text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want an error that says %q", text, err, want)
		}
	}
}

const otherPlace = `{"region": "eu-north-1", "registryId": "999988887777"}`

// Jobs that are dead are listed, and run again or are forgotten; a destination is paused.
func TestTheJobsCommand(t *testing.T) {
	for name, where := range storages(t) {
		if name == "memory" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			args, admin := where(t), free(t)
			a, b := newSite(t, append(args, "-admin", admin)...), newSite(t)
			a.config = copying(here, there, b.addr)
			a.config = strings.Replace(a.config, `"sources"`, `"attempts": 1, "sources"`, 1)
			a.up()
			v1 := a.push("team/app", "v1", "one")
			a.push("team/app", "v2", "two")
			a.until("the jobs are dead", func() bool {
				_, body := a.get("/ui/replication/team/app:v1")
				_, other := a.get("/ui/replication/team/app:v2")
				return strings.Contains(body, `"FAILED"`) && strings.Contains(other, `"FAILED"`)
			})
			if _, page := a.get("/ui/image/team/app:v1"); !strings.Contains(page, "destination_unavailable") {
				t.Error("the page does not show why")
			}
			a.down()
			run := func(verb string, more ...string) string {
				t.Helper()
				out := captured(t, func() error { return jobsOf(t.Context(), append(append([]string{verb}, args...), more...)) })
				return out
			}
			listed := run("list", "-state", "dead")
			if strings.Count(listed, "dead, 1 attempts, destination_unavailable") != 2 || !strings.Contains(listed, "team/app "+string(v1)+" [v1]") {
				t.Errorf("list: %s", listed)
			}
			for line := range strings.Lines(listed) {
				if strings.Contains(line, "[v2]") {
					run("discard", strings.Fields(line)[0])
				}
			}
			run("pause", "111122223333/us-east-1")
			if out := run("list"); !strings.Contains(out, "111122223333/us-east-1 is paused") || strings.Contains(out, "[v2]") {
				t.Errorf("list: %s", out)
			}
			if out := run("replay", "-all"); out != "1 jobs\n" {
				t.Errorf("replay: %s", out)
			}
			waiting := run("list")
			b.up()
			a.up()
			asked := func(verb string, more ...string) string {
				t.Helper()
				return captured(t, func() error {
					return jobsOf(t.Context(), append([]string{verb, "-server", "http://" + admin}, more...))
				})
			}
			if out := asked("list"); out != waiting {
				t.Errorf("list by the server: %s, want %s", out, waiting)
			}
			a.push("team/app", "v3", "three") // waits behind the other one
			if out := b.names("team/app", "v1"); out != "" {
				t.Error("a destination that is paused gets a copy")
			}
			for path, want := range map[string]int{"pause": http.StatusBadRequest, "replay?arg=none": http.StatusNotFound, "stop": http.StatusBadRequest} {
				resp, err := http.Post("http://"+admin+"/jobs/"+path, "", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s: %s, want %d", path, resp.Status, want)
				}
			}
			foreign, _ := http.NewRequest("POST", "http://"+admin+"/jobs/discard?all=true", nil)
			foreign.Header.Set("Sec-Fetch-Site", "cross-site")
			resp, err := http.DefaultClient.Do(foreign)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden || status(t, "http://"+admin+"/jobs/discard?all=true") != http.StatusMethodNotAllowed || status(t, "http://"+a.addr+"/jobs/list") != http.StatusNotFound {
				t.Errorf("%s for a page elsewhere, or jobs at the address of the registry", resp.Status)
			}
			asked("resume", "111122223333/us-east-1")
			a.until("it is copied", func() bool { return b.names("team/app", "v1") == v1 && b.names("team/app", "v3") != "" })
			if b.names("team/app", "v2") != "" {
				t.Error("what was discarded is copied")
			}
		})
	}
	for _, args := range [][]string{
		nil, {"run"}, {"list"}, {"list", "-data", t.TempDir()}, {"list", "-state", "lost"}, {"list", "x"}, {"replay"}, {"replay", "-all", "x"}, {"pause"}, {"pause", "there"},
	} {
		if err := jobsOf(t.Context(), args); err == nil {
			t.Errorf("%q succeeds", args)
		}
	}
}

// captured returns what f prints.
func captured(t *testing.T, f func() error) string {
	t.Helper()
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = out
	err = f()
	os.Stdout = stdout
	out.Close()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}

// A server that is killed at any moment has lost no copy of what it acknowledged.
func TestAKillLosesNoCopy(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "registry")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b := newSite(t)
	b.up()
	a := &site{T: t, addr: free(t)}
	file := write(t, t.TempDir(), "config.json", copying(here, there, b.addr))
	args := []string{"-addr", a.addr, "-data", t.TempDir(), "-config", file}
	acknowledged := map[string]digest.Digest{}
	const rounds = 5
	for round := range rounds + 1 {
		server := exec.Command(binary, args...)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		kill := sync.OnceFunc(func() {
			server.Process.Kill()
			server.Wait()
		})
		t.Cleanup(kill)
		a.until("it serves", func() bool { return status(t, "http://"+a.addr+"/v2/") == http.StatusOK })
		if round == rounds {
			break
		}
		for i := range 8 {
			tag := fmt.Sprintf("v%d.%d", round, i)
			acknowledged[tag] = a.push("team/app", tag, tag)
			if i == 2+round {
				break
			}
		}
		kill() // while copies wait, or are under way
	}
	for tag, dgst := range acknowledged {
		a.until(tag+" is there", func() bool { return b.names("team/app", tag) == dgst })
	}
}

// brokenOff lists one job, and then fails.
type brokenOff struct{ replication.Queue }

func (brokenOff) Entries(context.Context, replication.EntryFilter, uint64) iter.Seq2[replication.Entry, error] {
	return func(yield func(replication.Entry, error) bool) {
		if yield(replication.Entry{}, nil) {
			yield(replication.Entry{}, errors.New("broken"))
		}
	}
}

// long lists jobs, the last of them when somebody has seen the first, and then fails.
type long struct {
	replication.Queue
	seen chan struct{}
}

func (l long) Entries(context.Context, replication.EntryFilter, uint64) iter.Seq2[replication.Entry, error] {
	return func(yield func(replication.Entry, error) bool) {
		for range 1000 { // more than is sent at once
			if !yield(replication.Entry{State: replication.StateDead}, nil) {
				return
			}
		}
		err := errors.New("broken")
		select {
		case <-l.seen:
		case <-time.After(10 * time.Second):
			err = nil
		}
		yield(replication.Entry{State: replication.StateDead}, err)
	}
}

// A list of jobs is sent as it is read, however long it is, and never ends early without an error.
func TestAListOfJobsIsSentAsItIsRead(t *testing.T) {
	queue := long{seen: make(chan struct{})}
	server := httptest.NewUnstartedServer(jobsHandler(queue))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	defer server.Close()
	resp, err := http.Get(server.URL + "/jobs/list")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	close(queue.seen)
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("a list that broke off ends as if it were whole")
	}
}

// What was counted in part is no number of jobs.
func TestACountOfJobsThatFailsLeavesTheLast(t *testing.T) {
	r := &replicator{jobs: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "jobs"}, []string{"state"})}
	r.jobs.WithLabelValues(string(replication.StateDead)).Set(40)
	r.Queue = brokenOff{}
	r.countJobs(t.Context(), replication.StateDead)
	m, answer := newMetrics(), httptest.NewRecorder()
	m.registry.MustRegister(r.jobs)
	m.handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(answer.Body.String(), "\njobs{state=\"dead\"} 40\n") {
		t.Error("not 40 any more")
	}
}

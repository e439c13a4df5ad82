package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wharfage/wharfage/manifest"
)

// A pull from a cache gets what upstream has, and what it had when upstream is down: with a
// Warning.
func TestTheServerIsACache(t *testing.T) {
	for name, where := range storages(t) {
		t.Run(name, func(t *testing.T) {
			a, c := newSite(t), newSite(t, where(t)...)
			c.config = `{"repositories": {"templates": [{"prefix": "ROOT", "appliedFor": ["PULL_THROUGH_CACHE"]}]},
			  "pullThroughCache": {"rules": [{"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "` + a.addr + `"}],
			  "upstreams": [{"upstreamRegistryUrl": "` + a.addr + `", "plainHTTP": true}], "tagAge": "0s"}}`
			a.up()
			c.up()
			dgst := a.push("team/app", "v1", strings.Repeat("layer", 1000))
			if c.names("hub/team/app", "v2") != "" || c.names("elsewhere/team/app", "v1") != "" {
				t.Error("what is not there is found")
			}
			pull := func() (warning string) {
				t.Helper()
				resp, body := c.get("/v2/hub/team/app/manifests/v1")
				if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != string(dgst) {
					t.Fatalf("%s %s", resp.Status, body)
				}
				doc, err := manifest.Parse(resp.Header.Get("Content-Type"), []byte(body))
				if err != nil {
					t.Fatal(err)
				}
				if resp, body := c.get("/v2/hub/team/app/blobs/" + string(doc.Layers[0].Digest)); resp.StatusCode != http.StatusOK || len(body) != 5000 {
					t.Fatalf("%s, %d bytes", resp.Status, len(body))
				}
				return resp.Header.Get("Warning")
			}
			if w := pull(); w != "" {
				t.Errorf("the first pull warns: %s", w)
			}
			if _, page := c.get("/ui/repo/hub/team/app"); !strings.Contains(page, a.addr+"/team/app") {
				t.Error("the page does not say what it is a cache of")
			}
			if resp, all := c.get("/v2/_catalog"); resp.StatusCode != http.StatusOK || !strings.Contains(all, `"hub/team/app"`) {
				t.Errorf("the catalog: %s %s", resp.Status, all)
			}
			a.down()
			if w := pull(); !strings.Contains(w, "299") {
				t.Errorf("Warning %q while upstream is down", w)
			}
			for metric, want := range map[string]float64{
				`registry_cache_requests_total{result="miss"}`: 2, `registry_cache_requests_total{result="stale"}`: 1, `registry_cache_requests_total{result="hit"}`: 1,
				`registry_cache_syncs_total{result="ok"}`: 1, `registry_cache_upstream_bytes_total`: 5000,
			} {
				if got := c.metric(metric); got != want {
					t.Errorf("%s is %v, want %v", metric, got, want)
				}
			}
		})
	}
}

// What is cached in part is copied as a whole.
func TestWhatIsCachedIsCopiedAsAWhole(t *testing.T) {
	a, b, c := newSite(t), newSite(t), newSite(t)
	c.config = strings.Replace(copying(here, there, b.addr), `"replication"`, `"pullThroughCache": {"rules": [{"ecrRepositoryPrefix": "team", "upstreamRegistryUrl": "`+a.addr+`"}]}, "replication"`, 1)
	a.up()
	b.up()
	c.up()
	dgst := a.push("app", "v1", "layer")
	c.get("/v2/team/app/manifests/v1")
	c.until("it is copied", func() bool { return b.names("team/app", "v1") == dgst })
	if got := b.pull("team/app", "v1"); got != "layer" {
		t.Errorf("its layer is %q", got)
	}
}

// With eager an image is here as a whole soon after it was first asked for.
func TestAnEagerCacheFetchesAllOfAnImage(t *testing.T) {
	a, c := newSite(t), newSite(t, "-unsynced", "-data", t.TempDir())
	c.config = `{"pullThroughCache": {"eager": true, "rules": [{"ecrRepositoryPrefix": "ROOT", "upstreamRegistryUrl": "` + a.addr + `"}]}}`
	a.up()
	c.up()
	a.push("team/app", "v1", strings.Repeat("layer", 1000))
	c.get("/v2/team/app/manifests/v1")
	c.until("the layer is here", func() bool { return c.metric("registry_cache_upstream_bytes_total") > 5000 })
}

// What is cached and was longest unused goes when there is too much, if upstream has it.
func TestTheCacheIsBounded(t *testing.T) {
	a := newSite(t)
	a.up()
	c := &config{Cache: &cacheConfig{Rules: []byte(`[{"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "` + a.addr + `"}]`), MaxBytes: 1}}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	store := place{lease: time.Nanosecond}.openMemory()
	m := newMetrics()
	x, err := newCache(c, new(place), store, nil, new(webhookJob), m)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	a.push("team/app", "v1", "layer")
	if _, err := x.CachedManifests().Resolve(t.Context(), "hub/team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	x.evictOnce(t.Context(), m)
	if _, err := store.manifests.Resolve(t.Context(), "hub/team/app", "v1"); !manifest.IsNotFound(err) {
		t.Errorf("it is still here: %v", err)
	}
}

func TestACacheIsConfiguredStrictly(t *testing.T) {
	dir := t.TempDir()
	cache := func(rest string) string {
		return `{"pullThroughCache": {"rules": [{"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "hub.example"}]` + rest + `}}`
	}
	for text, want := range map[string]string{
		`{"pullThroughCache": {}}`:                                                                               "pullThroughCache: rules: are required",
		`{"pullThroughCache": {"rules": {}}}`:                                                                    "pullThroughCache: rules: rules: is to be an array",
		`{"pullThroughCache": {"rules": [{"ecrRepositoryPrefix": "hub"}]}}`:                                      "pullThroughCache: rules: /0/upstreamRegistryUrl: is required",
		strings.Replace(cache(``), "hub.example", "http://hub.example", 1):                                       "pullThroughCache: rules: /0/upstreamRegistryUrl: is to be a host",
		strings.Replace(cache(``), `"}]`, `", "credentialArn": "arn:aws:x"}]`, 1):                                "pullThroughCache: rules: hub: logins are those of docker",
		cache(`, "lazy": true`):                                                                                  `/pullThroughCache: unknown field "lazy"`,
		cache(`, "upstreams": [{"upstreamRegistryUrl": "other.example"}]`):                                       `pullThroughCache: upstreams[0]: upstreamRegistryUrl: no rule has "other.example"`,
		cache(`, "upstreams": [{"upstreamRegistryUrl": "hub.example", "allow": [""]}]`):                          "pullThroughCache: upstreams[0]: allow[0]: want a host with its port",
		cache(`, "upstreams": [{"upstreamRegistryUrl": "hub.example"}, {"upstreamRegistryUrl": "hub.example"}]`): "pullThroughCache: upstreams[1]: hub.example is there twice",
		cache(`, "tagAge": "1 day"`):                                                                             `pullThroughCache: tagAge: want a time, as in 24h, not "1 day"`,
		cache(`, "evictEvery": "0s"`):                                                                            "pullThroughCache: evictEvery: want a time",
		cache(`, "maxBytes": -1`):                                                                                "pullThroughCache: maxBytes: want a number",
	} {
		_, err := readConfig(write(t, dir, "config.json", text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error that says %q", text, err, want)
		}
	}
}

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

var screenshots = flag.String("screenshots", "", "`folder` for pictures of each page")

// axe-core finds what keeps people out. It is fetched when it is needed.
const (
	axeVersion = "4.14.1"
	axeSHA512  = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

// needs skips the test where a tool is missing, but in CI.
func needs(t *testing.T, tool string) string {
	path, err := exec.LookPath(tool)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed: %v", tool, err)
		}
		t.Skipf("%s is not installed", tool)
	}
	return path
}

// axe returns the script, out of the cache or of the npm registry.
func axe(t *testing.T) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cache, "wharfage-e2e", "axe-core-"+axeVersion+".tgz")
	content, err := os.ReadFile(file)
	if err != nil {
		npm := needs(t, "npm")
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "axe-core@"+axeVersion)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm pack: %v\n%s", err, out)
		}
		if content, err = os.ReadFile(filepath.Join(dir, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	if sum := sha512.Sum512(content); base64.StdEncoding.EncodeToString(sum[:]) != axeSHA512 {
		os.Remove(file)
		t.Fatalf("%s is not what was released", file)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644)); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "package/axe.min.js" {
			script, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(script)
		}
	}
}

// browser is a headless Chromium with one page, driven by the DevTools protocol
// over a pipe.
type browser struct {
	*testing.T
	in       io.Writer
	messages chan message
	session  string
	last     int
	loaded   int
	origin   string // the only one that may be asked
	requests int
	width    int
}

type message struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

func startBrowser(t *testing.T, origin string) *browser {
	toBrowser, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, fromBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(needs(t, "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser}
	var says bytes.Buffer
	cmd.Stderr = &says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toBrowser.Close()
	fromBrowser.Close()
	b := &browser{T: t, in: in, messages: make(chan message, 1000), origin: origin}
	go func() {
		defer close(b.messages)
		r := bufio.NewReader(out)
		for {
			text, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if err := json.Unmarshal(text[:len(text)-1], &m); err == nil {
				b.messages <- m
			}
		}
	}()
	t.Cleanup(func() {
		in.Close() // which ends it
		timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		for range b.messages {
		}
		cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("chromium: %s", clip(says.String(), 2000))
		}
	})
	var created struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &created)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": created.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// call sends a command and waits for its result.
func (b *browser) call(method string, params map[string]any, result any) {
	b.Helper()
	b.last++
	id := b.last
	if params == nil {
		params = map[string]any{}
	}
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params, "sessionId": b.session})
	if b.session == "" {
		text, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.in.Write(append(text, 0))
	}
	if err != nil {
		b.Fatal(method, err)
	}
	for {
		m := b.receive(method)
		if m.ID != id {
			continue
		}
		if m.Error != nil {
			b.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.Fatal(method, err)
			}
		}
		return
	}
}

// receive takes the next message, and judges what it tells of the page.
func (b *browser) receive(waitsFor string) message {
	b.Helper()
	select {
	case m, ok := <-b.messages:
		if !ok {
			b.Fatalf("chromium has ended before %s", waitsFor)
		}
		switch m.Method {
		case "Page.loadEventFired":
			b.loaded++
		case "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded":
			b.Errorf("the console has: %s", m.Params)
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			json.Unmarshal(m.Params, &p)
			b.requests++
			if !strings.HasPrefix(p.Request.URL, b.origin) {
				b.Errorf("a request for %s", p.Request.URL)
			}
		}
		return m
	case <-time.After(time.Minute):
		b.Fatalf("no answer to %s", waitsFor)
		panic("unreachable")
	}
}

// loads does something that leads to a new page, and waits for it.
func (b *browser) loads(do func()) {
	b.Helper()
	n := b.loaded
	do()
	for b.loaded == n {
		b.receive("a page")
	}
}

func (b *browser) open(path string) {
	b.Helper()
	b.loads(func() { b.call("Page.navigate", map[string]any{"url": b.origin + path}, nil) })
}

// eval returns what an expression is, as JSON knows it.
func (b *browser) eval(expression string, value any) {
	b.Helper()
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &out)
	if out.ExceptionDetails != nil {
		b.Fatalf("%s: %s", clip(expression, 200), out.ExceptionDetails)
	}
	if value != nil {
		if err := json.Unmarshal(out.Result.Value, value); err != nil {
			b.Fatalf("%s: %v", clip(expression, 200), err)
		}
	}
}

func (b *browser) key(key string, code int, text string) {
	b.Helper()
	for _, typ := range []string{"keyDown", "keyUp"} {
		p := map[string]any{"type": typ, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if typ == "keyDown" && text != "" {
			p["text"] = text
		}
		b.call("Input.dispatchKeyEvent", p, nil)
	}
}

// click presses the mouse on the first element that a selector finds.
func (b *browser) click(selector string) {
	b.Helper()
	var at struct{ X, Y float64 }
	b.eval(fmt.Sprintf(`(() => {
		const e = document.querySelector(%q);
		e.scrollIntoView({block: "center"});
		const r = e.getClientRects()[0];
		return {X: r.x + r.width / 2, Y: r.y + r.height / 2};
	})()`, selector), &at)
	for _, typ := range []string{"mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", map[string]any{"type": typ, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// tabTo presses Tab until what a selector finds is in focus, and looks at
// whether one sees that.
func (b *browser) tabTo(selector string) {
	b.Helper()
	for range 200 {
		b.key("Tab", 9, "")
		var at struct{ Here, Seen bool }
		b.eval(fmt.Sprintf(`(() => {
			const e = document.activeElement, s = getComputedStyle(e);
			return {Here: e.matches(%q), Seen: e == document.body || s.outlineStyle != "none" && parseFloat(s.outlineWidth) >= 2};
		})()`, selector), &at)
		if !at.Seen {
			b.Errorf("on the way to %s the focus is not seen", selector)
		}
		if at.Here {
			return
		}
	}
	b.Fatalf("Tab does not lead to %s", selector)
}

func (b *browser) screen(width int, dark bool) {
	b.Helper()
	b.width = width
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

func (b *browser) shoot(name string) {
	b.Helper()
	if *screenshots == "" {
		return
	}
	var shot struct{ Data []byte }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "clip": map[string]any{"x": 0, "y": 0, "width": b.width, "height": 1500, "scale": 1}}, &shot)
	if err := errors.Join(os.MkdirAll(*screenshots, 0o755), os.WriteFile(filepath.Join(*screenshots, name+".png"), shot.Data, 0o644)); err != nil {
		b.Fatal(err)
	}
}

func TestPageInChromium(t *testing.T) {
	s := demo(t)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	b := startBrowser(t, server.URL)

	const repo, image, preview = `a[href="/ui/repo/team/shop/checkout"]`, `main tr:has(.kind.signature) a`, `a.action[href^="/ui/lifecycle/"]`
	arrived := func() {
		t.Helper()
		var ok bool
		b.eval(`location.pathname == "/ui/lifecycle/team/shop/checkout" && document.querySelectorAll(".verdicts tbody tr").length > 50 && document.querySelector("#explained") != null`, &ok)
		if !ok {
			t.Error("the path does not lead to a preview")
		}
	}
	b.screen(1200, false)
	b.open("/ui/")
	b.loads(func() { b.click(repo) })
	b.loads(func() { b.click(image) })
	var graph bool
	b.eval(`document.querySelectorAll("svg a[href]").length > 3`, &graph)
	if !graph {
		t.Error("after two clicks there is no graph")
	}
	b.loads(func() { b.click(preview) })
	arrived()

	b.open("/ui/") // once more, without a mouse
	b.key("Tab", 9, "")
	var skip struct{ Is, Seen bool }
	b.eval(`(() => { const e = document.activeElement; return {Is: e.className == "skip", Seen: e.getBoundingClientRect().top >= 0}; })()`, &skip)
	if !skip.Is || !skip.Seen {
		t.Errorf("the first Tab leads to %v, want the skip link", skip)
	}
	b.key("Enter", 13, "\r")
	for _, next := range []string{repo, image, preview} {
		b.tabTo(next)
		b.loads(func() { b.key("Enter", 13, "\r") })
	}
	arrived()
	b.loads(func() {
		b.eval(`document.querySelector("#text").value = '{"rules": [{"rulePriority": 0}]}'; document.querySelector("#preview .action").click()`, nil)
	})
	var faults int
	b.eval(`document.querySelectorAll("#faults tbody tr").length`, &faults)
	if faults == 0 {
		t.Error("a policy with faults has none")
	}
}

// hostile adds a repository with names and annotations that want to be more
// than text.
func hostile(s *showcase) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)></svg></title></textarea>`
	image := s.image("hostile", "x", strings.Repeat("long-", 25))
	_, empty := manifest.Empty()
	s.blob("hostile", manifest.MediaTypeEmpty, string(empty), 0)
	layer := s.blob("hostile", "application/x.y", "l", 1)
	raw, desc, err := manifest.ImageDraft{ArtifactType: "application/" + strings.Repeat("x", 100), Layers: []ocispec.Descriptor{layer}, Subject: &image,
		Annotations: map[string]string{evil: evil, "\u202eltr": "\u202egnp.exe", strings.Repeat("k", 500): strings.Repeat("v", 5000)}}.Build()
	s.push("hostile", raw, desc, err, "bad")
}

func TestAccessibility(t *testing.T) {
	s := demo(t)
	hostile(s)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	script := axe(t)
	b := startBrowser(t, server.URL)
	for name, path := range map[string]string{
		"repositories": "/ui/", "repository": "/ui/repo/team/shop/checkout", "attached": "/ui/repo/team/shop/checkout?show=attached",
		"image": "/ui/image/team/shop/checkout:v1", "cache": "/ui/repo/mirror/nginx", "lone": "/ui/image/charts/checkout:2.4.1", "hostile": "/ui/image/hostile:bad", "hostile-image": "/ui/repo/hostile",
		"lifecycle": "/ui/lifecycle/team/shop/checkout?image=v1", "archive": "/ui/lifecycle/team/shop/checkout?policy=unused&days=365",
	} {
		for look, width := range map[string]int{"wide": 1200, "narrow": 360, "dark": 1200} {
			b.screen(width, look == "dark")
			b.open(path)
			b.shoot(name + "-" + look)
			b.eval(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil)
			var page struct {
				Over    int
				Foreign int
			}
			b.eval(`({Over: document.documentElement.scrollWidth - innerWidth, Foreign: document.querySelectorAll("script, img, iframe, [onerror], [style]").length})`, &page)
			if page.Over > 0 || page.Foreign > 0 {
				t.Errorf("%s, %s: %+v: it is wider than the screen, or has foreign elements", name, look, page)
			}
			b.eval(script, nil)
			var found []struct {
				ID, Impact, Help string
				Nodes            []struct{ HTML, FailureSummary string }
			}
			b.eval(`axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations)`, &found)
			for _, v := range found {
				t.Errorf("%s, %s: %s (%s): %s: %d, as %s: %s", name, look, v.ID, v.Impact, v.Help, len(v.Nodes), clip(v.Nodes[0].HTML, 300), v.Nodes[0].FailureSummary)
			}
		}
	}
	if b.requests == 0 {
		t.Error("no request was seen")
	}
}

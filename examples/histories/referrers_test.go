package histories

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// The life of a referrer. It goes from one to the next.
const (
	unborn int32 = iota
	pushing
	pushed
	deleting
	deleted
)

// referrer is a document that one client pushes, and perhaps deletes.
type referrer struct {
	raw  []byte
	desc ocispec.Descriptor
	life atomic.Int32
}

// TestReferrersAreASet: a listing has each referrer whose push was acknowledged
// before it began and whose deletion was not begun before it ended, has none
// whose deletion was acknowledged or whose push was not begun, and none twice.
func TestReferrersAreASet(t *testing.T) {
	for _, st := range stores {
		if st.histories == 0 {
			continue // its manifests are another's
		}
		t.Run(st.name, func(t *testing.T) {
			s, err := st.prepare(t)(time.Now)
			if err != nil {
				t.Fatal(err)
			}
			defer s.end(t)
			rounds := cmp.Or(*linearHistories, st.histories)/10 + 1
			listings := 0
			for i := range rounds {
				listings += pushReferrers(t, s, fmt.Sprint("referrers/", i))
			}
			t.Logf("%d rounds, %d listings", rounds, listings)
		})
	}
}

const (
	pushers      = 6
	listers      = 3
	perPusher    = 12
	referrerType = "application/vnd.test.even"
)

// pushReferrers returns how many listings it has checked.
func pushReferrers(t *testing.T, s *system, repo string) int {
	desc, content := manifest.Empty()
	if err := blob.Put(t.Context(), s.blobs, repo, desc, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	h := &wharfage.Handler{Blobs: s.blobs, Manifests: s.manifests, Limits: wharfage.Limits{PageItems: 7}}
	subject := ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromString("subject"), Size: 7}
	all := make([]*referrer, pushers*perPusher)
	for i := range all {
		typ := referrerType
		if i%2 == 1 {
			typ = "application/vnd.test.odd"
		}
		raw, desc, err := manifest.ImageDraft{ArtifactType: typ, Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		all[i] = &referrer{raw: raw, desc: desc}
	}

	var pushes, lists sync.WaitGroup
	var done atomic.Bool
	var checked atomic.Int32
	for i := range pushers {
		pushes.Go(func() {
			for j := range perPusher {
				if err := all[i*perPusher+j].live(h, s, repo, j); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range listers {
		lists.Go(func() {
			for last := false; !last && !t.Failed(); checked.Add(1) {
				last = done.Load() // once more after the end
				typ := []string{"", referrerType}[checked.Load()%2]
				before := lives(all)
				var got []digest.Digest
				var err error
				if i == 0 {
					got, err = listDirectly(s, repo, subject.Digest, typ)
				} else {
					got, err = listByHTTP(h, repo, subject.Digest, typ)
				}
				if err == nil {
					err = checkReferrers(all, typ, got, before, lives(all))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	pushes.Wait()
	done.Store(true)
	lists.Wait()
	return int(checked.Load())
}

// live pushes r, over HTTP or directly, and deletes some.
func (r *referrer) live(h *wharfage.Handler, s *system, repo string, n int) error {
	r.life.Store(pushing)
	if n%3 == 0 {
		p := manifest.Pusher{Store: s.manifests}
		if _, err := p.Push(context.Background(), repo, manifest.PushRequest{Raw: r.raw}); err != nil {
			return err
		}
	} else if w := serve(h, http.MethodPut, "/v2/"+repo+"/manifests/"+string(r.desc.Digest), r.raw); w.Code != http.StatusCreated {
		return fmt.Errorf("push: %d %s", w.Code, w.Body)
	}
	r.life.Store(pushed)
	if n%4 != 3 {
		return nil
	}
	r.life.Store(deleting)
	if w := serve(h, http.MethodDelete, "/v2/"+repo+"/manifests/"+string(r.desc.Digest), nil); w.Code != http.StatusAccepted {
		return fmt.Errorf("delete: %d %s", w.Code, w.Body)
	}
	r.life.Store(deleted)
	return nil
}

func serve(h http.Handler, method, path string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", manifest.MediaTypeImage)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func lives(all []*referrer) []int32 {
	out := make([]int32, len(all))
	for i, r := range all {
		out[i] = r.life.Load()
	}
	return out
}

func listDirectly(s *system, repo string, subject digest.Digest, typ string) (got []digest.Digest, err error) {
	for d, err := range s.manifests.Referrers(context.Background(), repo, subject, typ, "") {
		if err != nil {
			return nil, err
		}
		got = append(got, d.Digest)
	}
	return got, nil
}

// listByHTTP follows the pages.
func listByHTTP(h *wharfage.Handler, repo string, subject digest.Digest, typ string) (got []digest.Digest, err error) {
	path := "/v2/" + repo + "/referrers/" + string(subject)
	if typ != "" {
		path += "?artifactType=" + typ
	}
	for path != "" {
		w := serve(h, http.MethodGet, path, nil)
		if w.Code != http.StatusOK {
			return nil, fmt.Errorf("list: %d %s", w.Code, w.Body)
		}
		var page ocispec.Index
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			return nil, err
		}
		for _, d := range page.Manifests {
			got = append(got, d.Digest)
		}
		link, _, _ := strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		path = link
	}
	return got, nil
}

func checkReferrers(all []*referrer, typ string, got []digest.Digest, before, after []int32) error {
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		return fmt.Errorf("a listing out of order, or with repetitions: %s", got)
	}
	for i, r := range all {
		listed := slices.Contains(got, r.desc.Digest)
		of := typ == "" || typ == r.desc.ArtifactType
		switch {
		case !listed && of && before[i] == pushed && after[i] == pushed:
			return fmt.Errorf("referrer %d was acknowledged before the listing began, and is not listed", i)
		case listed && !of:
			return fmt.Errorf("referrer %d is listed, and is of another type", i)
		case listed && before[i] == deleted:
			return fmt.Errorf("referrer %d was deleted before the listing began, and is listed", i)
		case listed && after[i] == unborn:
			return fmt.Errorf("referrer %d is listed, and nobody has pushed it", i)
		}
	}
	return nil
}

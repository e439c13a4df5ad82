package pgstore

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// everything is what a repository shows, and its edges.
func everything(t testing.TB, db *DB, repo string) (all []any) {
	t.Helper()
	for rec, err := range db.Manifests().Manifests(t.Context(), repo, "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rec)
	}
	var edges []string
	err := db.pool.QueryRow(t.Context(), `select array(select blob || manifest from need where repo = $1 union all select child || manifest from parent where repo = $1 order by 1)`, repo).Scan(&edges)
	if err != nil {
		t.Fatal(err)
	}
	return append(all, edges)
}

func TestReindexDerivesWhatFollowsFromDocuments(t *testing.T) {
	db := open(t, Options{})
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := manifest.Pusher{Store: db.Manifests(), Now: func() time.Time { return at }}
	push := func(doc string) digest.Digest {
		t.Helper()
		done, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: []byte(doc)})
		if err != nil {
			t.Fatal(err)
		}
		return done.Record.Desc.Digest
	}
	config := put(t, db, "r", "{}")
	layer := put(t, db, "r", "layer")
	doc := func(d digest.Digest, typ string, size int) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, typ, d, size)
	}
	image := `{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeImage + `","config":` + doc(config, "application/vnd.example.config", 2) +
		`,"layers":[` + doc(layer, "application/vnd.example.layer", 5) + `],"annotations":{"a":"\u0000b"}`
	child := push(image + `}`)
	other := push(image + `,"annotations2":1}`)
	push(image + `,"artifactType":"a/b","subject":` + doc(child, manifest.MediaTypeImage, len(image)+1) + `}`)
	// Entries of unknown types: one is a manifest here, one a blob.
	push(`{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeIndex + `","manifests":[` + doc(child, manifest.MediaTypeImage, len(image)+1) + `,` +
		doc(other, "application/vnd.example.unknown", len(image)+len(`,"annotations2":1}`)) + `,` + doc(layer, "application/vnd.example.unknown", 5) + `]}`)
	apply(t, db, "r", manifest.Change{Put: []manifest.Record{document("no document at all", "sha256:unknown")}, At: at})
	apply(t, db, "other", manifest.Change{Put: []manifest.Record{document("1", layer)}})

	want := everything(t, db, "r")
	if n, err := db.Reindex(t.Context(), "r"); n != 0 || err != nil {
		t.Fatalf("Reindex of what is right = %d, %v", n, err)
	}
	unread := document("no document at all").Desc.Digest
	for damage, where := range map[string]string{
		`update manifest set subject = null, artifact_type = 'x/y'`:                               `subject is not null`,
		`update manifest set subject = 'sha256:wrong', blobs = blobs || blobs`:                    `true`,
		`update manifest set descriptor = replace(descriptor::text, '"size":', '"size":1')::json`: `true`,
		`update manifest set blobs = '{}'`:                                                        `true`,
		`delete from need`:                                                                        `true`,
		`delete from parent`:                                                                      `true`,
		`insert into need select repo, 'sha256:wrong', digest from manifest`:                      `true`,
		`insert into parent select repo, digest, 'sha256:gone' from manifest`:                     `true`,
	} {
		if strings.Contains(damage, " manifest set ") || strings.HasPrefix(damage, "insert") {
			where += ` and digest <> '` + string(unread) + `'`
		}
		if _, err := db.pool.Exec(t.Context(), damage+` where repo = 'r' and `+where); err != nil {
			t.Fatalf("%s: %v", damage, err)
		}
		if reflect.DeepEqual(everything(t, db, "r"), want) {
			t.Errorf("%s: does no damage", damage)
		}
		n, err := db.Reindex(t.Context(), "r")
		if err != nil || n == 0 {
			t.Fatalf("%s: Reindex = %d, %v", damage, n, err)
		}
		if got := everything(t, db, "r"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: after Reindex there is\n%v\nwant\n%v", damage, got, want)
		}
		if n, err := db.Reindex(t.Context(), "r"); err != nil || n != 0 {
			t.Errorf("%s: a second Reindex = %d, %v", damage, n, err)
		}
	}
}

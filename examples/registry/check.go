package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
)

// check is the command that verifies what is stored. It changes nothing but
// with -repair, and then only what the documents say anew.
func check(ctx context.Context, args []string) error {
	f, where := flags("check")
	bytes := f.Bool("bytes", false, "read every blob and verify its digest")
	repair := f.Bool("repair", false, "first derive again what can be derived from the manifests; nothing is deleted or made up")
	repo := f.String("repo", "", "check only this `repository`")
	asJSON := f.Bool("json", false, "a line of JSON for each problem")
	if err := parse(f, args); err != nil {
		return err
	}
	store, err := where.openExisting(ctx, !*repair)
	if err != nil {
		return err
	}
	o := wharfage.CheckOptions{Bytes: *bytes}
	if *repo != "" {
		o.Repos = []string{*repo}
	}
	if *repair {
		err = store.repair(ctx, o.Repos)
	}
	problems := 0
	out := json.NewEncoder(os.Stdout)
	if err == nil {
		for p, e := range wharfage.Check(ctx, store.handler(), o) {
			if e != nil {
				err = e
				break
			}
			problems++
			if *asJSON {
				out.Encode(struct {
					wharfage.Problem
					Err string
				}{p, errorText(p.Err)})
			} else {
				fmt.Println(p)
			}
		}
	}
	if err == nil && problems > 0 {
		err = fmt.Errorf("%d problems found", problems)
	}
	return errors.Join(err, store.close())
}

// errorText is what JSON, in which an error is an empty object, has instead.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// repair derives again what manifests imply, in the repositories named, or in
// all.
func (s *storage) repair(ctx context.Context, repos []string) error {
	if s.reindex == nil {
		return errors.New("-repair: there is nothing to derive in memory")
	}
	if repos == nil {
		for repo, err := range s.manifests.(manifest.Catalog).Repos(ctx, "") {
			if err != nil {
				return err
			}
			repos = append(repos, repo)
		}
	}
	for _, repo := range repos {
		n, err := s.reindex(ctx, repo)
		if err != nil {
			return fmt.Errorf("repair %s: %w", repo, err)
		}
		if n > 0 {
			fmt.Fprintf(os.Stderr, "%s: %d rows derived again\n", repo, n)
		}
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"time"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/repository"
)

// repositoriesConfig makes repositories things that somebody makes, or a push
// that a template covers, and that have settings. Without it any name is a
// repository, and none has settings.
type repositoriesConfig struct {
	Templates []templateConfig `json:"templates"`
}

// templateConfig is a repository.Template.
type templateConfig struct {
	Prefix      string             `json:"prefix"`
	AppliedFor  []repository.Cause `json:"appliedFor"`
	Description string             `json:"description"`
	settingsConfig
}

// settingsConfig is repository.Settings, whose policies may be JSON instead of a
// string with JSON in it.
type settingsConfig struct {
	repository.Settings
	LifecyclePolicy  policyText `json:"lifecyclePolicy"`
	RepositoryPolicy policyText `json:"repositoryPolicy"`
}

func (s *settingsConfig) settings() repository.Settings {
	out := s.Settings
	out.LifecyclePolicy, out.RepositoryPolicy = string(s.LifecyclePolicy), string(s.RepositoryPolicy)
	return out
}

type policyText string

func (p *policyText) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		return json.Unmarshal(b, (*string)(p))
	case '{':
		*p = policyText(b)
		return nil
	case 'n':
		return nil
	}
	return errors.New("a policy is to be an object, or a string with one in it")
}

func (c *repositoriesConfig) check() error {
	if c == nil {
		return nil
	}
	return repository.CheckTemplates(c.templates())
}

func (c *repositoriesConfig) templates() (out []repository.Template) {
	for _, t := range c.Templates {
		out = append(out, repository.Template{Prefix: t.Prefix, AppliedFor: t.AppliedFor, Description: t.Description, Settings: t.settings()})
	}
	return out
}

// registry returns the repositories of a store as c says, nil if it says
// nothing of them.
func (c *config) registry(store *storage) *repository.Registry {
	if c.Repositories == nil {
		return nil
	}
	return &repository.Registry{
		Store: store.repositories, Content: store.manifests, MaxRepositories: c.Quotas.repositories(),
		Templates: repository.Static(c.Repositories.templates()...),
	}
}

// adopt makes repositories of those that have content, and were there before
// anybody made repositories, whatever the quota.
func adopt(ctx context.Context, r *repository.Registry, store *storage) error {
	catalog, ok := store.manifests.(manifest.Catalog)
	if r == nil || !ok {
		return nil
	}
	next, stop := iter.Pull2(r.Repos(ctx, ""))
	defer stop()
	made, err, more := next()
	adopted := 0
	for name, failed := range catalog.Repos(ctx, "") {
		if failed != nil {
			return failed
		}
		for more && err == nil && made < name {
			made, err, more = next()
		}
		if more && err != nil {
			return err
		}
		if more && made == name {
			continue
		}
		err := r.Store.Create(ctx, repository.Repository{Name: name, CreatedAt: time.Now().UTC().Truncate(time.Microsecond)}, 0)
		if err != nil && !errors.Is(err, repository.ErrExists) { // which another server has made meanwhile
			return err
		}
		adopted++
	}
	if adopted > 0 {
		slog.Info("repositories with content got default settings", "repositories", adopted)
	}
	return nil
}

// repositories is the command: create, get, set, delete and list.
func repositories(ctx context.Context, args []string) error {
	const verbs = "create, get, set, delete or list"
	verb, args, err := verbOf("repository", verbs, args)
	if err != nil {
		return err
	}
	f, where := flags("repository " + verb)
	file := configFlag(f)
	var settings *string
	switch verb {
	case "create", "set":
		settings = f.String("settings", "", "JSON `file` with settings under the names of ECR's API, as get prints them; - is standard input")
	case "get", "delete", "list":
	default:
		return fmt.Errorf("no %q: %s", verb, verbs)
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	names := f.Args()
	if verb == "list" && len(names) > 0 {
		return fmt.Errorf("list takes no names, and has %q", names)
	}
	if verb != "list" && len(names) != 1 {
		return fmt.Errorf("%s takes the name of one repository, after the flags, and has %q", verb, names)
	}
	c, err := readConfig(*file)
	if err != nil {
		return err
	}
	var given *settingsConfig
	if settings != nil && *settings != "" {
		if given, err = readSettings(*settings, names[0]); err != nil {
			return err
		}
	} else if verb == "set" {
		return errors.New("say what to set: -settings FILE")
	}
	open := where.openExisting
	if verb == "create" {
		open = func(ctx context.Context, _ bool) (*storage, error) { return where.open(ctx) }
	}
	if where.data == "" && where.postgres == "" {
		return errors.New("say where things are kept: -data, or -postgres")
	}
	store, err := open(ctx, verb == "get" || verb == "list")
	if err != nil {
		return err
	}
	r := &repository.Registry{Store: store.repositories, Content: store.manifests, MaxRepositories: c.Quotas.repositories()}
	return errors.Join(changeRepository(ctx, r, verb, names, given, os.Stdout), store.close())
}

func changeRepository(ctx context.Context, r *repository.Registry, verb string, names []string, given *settingsConfig, w io.Writer) error {
	var have repository.Repository
	var err error
	switch verb {
	case "list":
		out := json.NewEncoder(w)
		for have, err := range r.Store.List(ctx, "") {
			if err == nil {
				err = out.Encode(have)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case "delete":
		return r.Delete(ctx, names[0])
	case "get":
		have, err = r.Get(ctx, names[0])
	case "create":
		var s repository.Settings
		if given != nil {
			s = given.settings()
		}
		have, err = r.Create(ctx, names[0], s)
	case "set":
		have, err = r.Update(ctx, names[0], func(s *repository.Settings) error {
			next := given.settings()
			if next.Encryption == (repository.Encryption{}) {
				next.Encryption = s.Encryption // which is fixed
			}
			*s = next
			return nil
		})
	}
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(have, "", "  ")
	if err == nil {
		_, err = w.Write(append(text, '\n'))
	}
	return err
}

// readSettings reads the settings of a repository, which may have its name and
// when it was made beside them.
func readSettings(file, name string) (*settingsConfig, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(os.Stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	var in struct {
		Name      string    `json:"repositoryName"`
		CreatedAt time.Time `json:"createdAt"`
		settingsConfig
	}
	if err == nil {
		err = decode(bytes.TrimSpace(text), &in)
	}
	if err == nil && in.Name != "" && in.Name != name {
		err = fmt.Errorf("it has the settings of %s", in.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("-settings %s: %w", file, err)
	}
	return &in.settingsConfig, nil
}

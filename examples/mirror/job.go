package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// job is one source, one target, and what to bring from the one to the other.
type job struct {
	from, to string
	src, dst reference // of from and to

	o   replication.SyncOptions
	all bool
}

// The limits of -delete are those of package replication.
const (
	deleteMax   = 100
	deleteShare = 0.5
)

// flags are what a job can be told on the command line and, by the same names, in a
// configuration file.
func (j *job) flags(f *flag.FlagSet, command string) {
	o := &j.o
	f.Func("referrers", "copy signatures, SBOMs and whatever else refers to an image, and what refers to those, so `many` levels, or all", func(s string) error {
		n, err := strconv.Atoi(s)
		if o.Referrers = n; s == "all" {
			o.Referrers = replication.AllReferrers
		} else if err != nil || n < 0 {
			return errors.New(`want a number, or "all"`)
		}
		return nil
	})
	list(f, &o.Filter.ArtifactTypes, "artifact-type", "with -referrers, copy those of this `type` only", nil)
	f.Func("platform", "of an index, copy the image for this `os/arch[/variant]` only, in its place; with -sparse several times", func(s string) error {
		parts := strings.Split(s, "/")
		if len(parts) < 2 || len(parts) > 3 || strings.Contains("/"+s+"/", "//") {
			return errors.New("want os/arch or os/arch/variant, as in linux/arm64")
		}
		parts = append(parts, "")
		o.Platforms = append(o.Platforms, ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]})
		return nil
	})
	f.BoolVar(&o.Sparse, "sparse", false, "with -platform, copy the index too, though it lists more than is there")
	f.BoolVar(&o.Verify, "verify", false, "look into what the target has already, and repair it")
	list(f, &o.MountFrom, "mount-from", "mount blobs from this `repository` of the target, if it has them", manifest.CheckRepository)
	if command == "copy" {
		list(f, &o.CopyOptions.Tags, "tag", "give the copy this `tag` too", manifest.CheckTag)
		return
	}
	f.BoolVar(&j.all, "all", false, "sync all repositories that the source lists")
	list(f, &o.Repositories.Include, "repos", "sync the repositories that fit this `pattern`, in which * is any text", nil)
	list(f, &o.Repositories.Exclude, "exclude-repos", "leave out the repositories that fit this `pattern`", nil)
	list(f, &o.Tags.Include, "tags", "sync only the tags that fit this `pattern`", nil)
	list(f, &o.Tags.Exclude, "exclude-tags", "leave out the tags that fit this `pattern`", nil)
	list(f, &o.ArtifactTypes, "image-type", "sync only the tags of images of this artifact `type`", nil)
	f.BoolVar(&o.Delete.Tags, "delete", false, "delete the tags that the source does not have, if nothing has failed")
	f.IntVar(&o.Delete.Max, "delete-max", deleteMax, "delete none if more than this many `tags` would go")
	f.Float64Var(&o.Delete.MaxShare, "delete-share", deleteShare, "delete none if more than this `share` of the target's tags would go")
}

// list is a flag that may be given again. nil checks that it is not empty.
func list(f *flag.FlagSet, into *[]string, name, usage string, check func(string) error) {
	f.Func(name, usage+"; may be repeated", func(s string) error {
		*into = append(*into, s)
		switch {
		case check != nil:
			return check(s)
		case s == "":
			return errors.New("it is empty")
		}
		return nil
	})
}

// check tells what does not go together.
func (j *job) check(command string) (err error) {
	o := &j.o
	if j.src, err = parseReference(j.from); err != nil {
		return err
	}
	if j.dst, err = parseReference(j.to); err != nil {
		return err
	}
	switch {
	case len(o.Filter.ArtifactTypes) > 0 && o.Referrers == 0:
		return errors.New("-artifact-type chooses among referrers, and needs -referrers")
	case o.Sparse && len(o.Platforms) == 0:
		return errors.New("-sparse needs -platform")
	case len(o.Platforms) > 1 && !o.Sparse:
		return errors.New("several platforms need -sparse: an image cannot take the place of an index for them all")
	}
	if command == "copy" {
		return j.checkCopy()
	}
	patterns := j.all || len(o.Repositories.Include) > 0
	switch {
	case j.src.tag != "" || j.src.digest != "":
		return fmt.Errorf("%q names one image: copy it, or choose it with -tags", j.from)
	case j.dst.tag != "" || j.dst.digest != "":
		return fmt.Errorf("%q names one image: want a repository", j.to)
	case j.src.repo == "" && !patterns:
		return fmt.Errorf("%q names no repository: want one, or -all, or -repos", j.from)
	case j.src.repo != "" && (patterns || len(o.Repositories.Exclude) > 0):
		return fmt.Errorf("%q names a repository: -all, -repos and -exclude-repos are for a registry", j.from)
	case j.src.repo != "" && j.dst.repo == "":
		return fmt.Errorf("%q names no repository", j.to)
	case j.all && len(o.Repositories.Include) > 0:
		return errors.New("-all and -repos do not go together")
	case !o.Delete.Tags && (o.Delete.Max != deleteMax || o.Delete.MaxShare != deleteShare):
		return errors.New("-delete-max and -delete-share need -delete")
	case o.Delete.Max < 1 || !(o.Delete.MaxShare > 0 && o.Delete.MaxShare <= 1):
		return errors.New("-delete-max is to be at least 1, and -delete-share more than 0 and at most 1")
	}
	if to := j.dst.repo; j.src.repo != "" {
		o.Repositories.Include = []string{j.src.repo}
		o.Rename = func(string) string { return to }
	} else if to != "" {
		o.Rename = func(repo string) string { return to + "/" + repo }
	}
	return nil
}

func (j *job) checkCopy() error {
	switch {
	case j.src.repo == "" || j.src.tag == "" && j.src.digest == "":
		return fmt.Errorf("%q names no image: want a tag or a digest", j.from)
	case j.dst.repo == "":
		return fmt.Errorf("%q names no repository", j.to)
	case j.dst.digest != "" && j.dst.digest != j.src.digest:
		return fmt.Errorf("%q names another digest than the source", j.to)
	case j.dst.tag == "" && j.dst.digest == "":
		j.dst.tag = j.src.tag
	}
	if j.dst.tag != "" {
		j.o.CopyOptions.Tags = append(j.o.CopyOptions.Tags, j.dst.tag)
	}
	return nil
}

// reference is [http://|https://]HOST[/REPO][:TAG][@DIGEST].
type reference struct {
	scheme, host, repo, tag string
	digest                  digest.Digest
}

func parseReference(text string) (r reference, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = "", text
	}
	r.scheme = scheme
	var dgst string
	var named, tagged, pinned bool
	r.host, r.repo, named = strings.Cut(rest, "/")
	if strings.Contains(r.host, "@") {
		return r, errors.New("a host has an @ in it: passwords are not given here, but with docker login")
	}
	if r.repo, dgst, pinned = strings.Cut(r.repo, "@"); pinned {
		r.digest = digest.Digest(dgst)
	}
	r.repo, r.tag, tagged = strings.Cut(r.repo, ":")
	if r.host == "docker.io" && named && !strings.Contains(r.repo, "/") {
		r.repo = "library/" + r.repo
	}
	switch {
	case scheme != "" && scheme != "http" && scheme != "https":
		err = errors.New("the scheme is to be http or https")
	case !strings.ContainsAny(r.host, ".:") && r.host != "localhost":
		err = errors.New("it begins with no host, as in localhost:5000 or registry.example")
	default:
		err = (&remote.Registry{Host: r.host, Scheme: scheme}).Check()
	}
	if err == nil && named {
		err = manifest.CheckRepository(r.repo)
	}
	if err == nil && tagged {
		err = manifest.CheckTag(r.tag)
	}
	if err == nil && pinned {
		err = manifest.CheckContentDigest(dgst)
	}
	if err != nil {
		return r, fmt.Errorf("%q: %w", text, err)
	}
	return r, nil
}

func (r reference) String() string {
	s := r.host
	if r.repo != "" {
		s += "/" + r.repo
	}
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + string(r.digest)
	}
	return s
}

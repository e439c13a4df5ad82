package main

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"
)

func TestFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	const secret = "hunter2"
	s3 := func(url string) []string { return []string{"-data", t.TempDir(), "-s3", url} }
	for _, c := range []struct {
		args []string
		want string // in the error
	}{
		{[]string{"-addr", "127.0.0.1:4999", "-admin", "127.0.0.1:4999"}, "-admin 127.0.0.1:4999"},
		{[]string{"-max-share", "0"}, "-max-share 0"},
		{[]string{"-max-share", "1.5"}, "-max-share 1.5"},
		{[]string{"-max-share", "NaN"}, "-max-share NaN"},
		{[]string{"-max-share", "-1"}, "-max-share -1"},
		{[]string{"-untagged", "-1h"}, "-untagged -1h"},
		{[]string{"-collect-every", "-1h"}, "-collect-every -1h"},
		{[]string{"-drain", "-1s"}, "-drain -1s"},
		{[]string{"-drain-delay", "-1s"}, "-drain-delay -1s"},
		{[]string{"-lease", "-1h"}, "-lease -1h"},
		{[]string{"-shorten-lease"}, "-shorten-lease"},
		{[]string{"-redirect", "-1"}, "-redirect -1"},
		{[]string{"-data", t.TempDir(), "-redirect", "1000"}, "-redirect"},
		{[]string{"-s3", "https://host/bucket?region=r"}, "-s3 keeps blobs only"},
		{[]string{"-postgres", "postgres://host/db"}, "-postgres keeps all but blobs"},
		{[]string{"-postgres", "postgres://host/db", "-s3", "https://host/bucket?region=r", "-data", t.TempDir()}, "-data"},
		{[]string{"more"}, "unexpected arguments"},
		{[]string{"-addr", "5000"}, "-addr 5000: want HOST:PORT"},
		{[]string{"-admin", "5000"}, "-admin 5000: want HOST:PORT"},
		{s3("https://key:hunter2@host/bucket?region=r"), "-s3: want"},
		{s3("https://hunter2@host/bucket?region=r"), "-s3: want"},
		{s3("https://key:SEC/hunter2@host/bucket?region=r"), "-s3: want"},
		{s3("https://key:%zzhunter2@host/bucket?region=r"), "-s3: want"},
		{s3("https://host/bucket?region=r&secret=hunter2"), "-s3: want"},
		{s3("https://host/bucket?region=r;secret=hunter2"), "-s3: want"},
		{s3("https://host/bucket?region=r&style=hunter2"), "-s3: want"},
		{s3("https://host/bucket?secret=hunter2"), "-s3: want"},
		{s3("https://host/?region=r#hunter2"), "-s3: want"},
		{s3("hunter2"), "-s3: want"},
		{s3("http://[hunter2"), "-s3: want"},
		{s3("host/bucket?region=r"), "-s3: want"},
		{[]string{"-data", t.TempDir(), "-postgres", "postgres://user:hunter2@127.0.0.1:1/db?connect_timeout=1"}, "pgstore"},
		{[]string{"-data", t.TempDir(), "-postgres", "postgres://user:hunter2@127.0.0.1:port/db"}, "pgstore"},
		{[]string{"-data", t.TempDir(), "-postgres", "postgres://user:SEC%zzhunter2@host/db"}, "pgstore"},
		{[]string{"-data", t.TempDir(), "-postgres", "postgres://user:hunter2/more@host/db"}, "pgstore"},
		{[]string{"-data", t.TempDir(), "-postgres", "postgres://user:hunter2@host/db?sslmode=x"}, "sslmode"},
		{[]string{"-data", t.TempDir(), "-postgres", "hunter2"}, "pgstore"},
		{[]string{"-data", t.TempDir(), "-postgres", "host=127.0.0.1 port=1 password=hunter2 connect_timeout=x"}, "pgstore"},
		{[]string{"-data", t.TempDir(), "-postgres", "host=127.0.0.1 password = hunter2 port=x"}, "pgstore"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := serve(ctx, append([]string{"-addr", "127.0.0.1:0", "-drain-delay", "0"}, c.args...))
		cancel()
		switch {
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%q: %v, want an error with %q", c.args, err, c.want)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%q: the secret is in %q", c.args, err)
		}
	}
}

func TestCommandsTellTheirVerbs(t *testing.T) {
	for name, run := range map[string]func(context.Context, []string) error{"repository": repositories, "jobs": jobsOf} {
		if err := run(t.Context(), []string{"-h"}); err != flag.ErrHelp {
			t.Errorf("%s -h: %v", name, err)
		}
		for _, args := range [][]string{nil, {"more"}} {
			if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "list") {
				t.Errorf("%s %q: %v", name, args, err)
			}
		}
	}
}

func TestCommandsTellWhatTheyWant(t *testing.T) {
	for _, c := range []struct {
		run  func(context.Context, []string) error
		args []string
		want string
	}{
		{repositories, []string{"set"}, "set takes the name of one repository"},
		{repositories, []string{"get", "a", "b"}, "get takes the name of one repository"},
		{repositories, []string{"list", "a"}, "list takes no names"},
		{repositories, []string{"create", "-data", t.TempDir(), "Demo"}, "lower case letters"},
		{jobsOf, []string{"list", "-server", "127.0.0.1:1"}, "-server 127.0.0.1:1: want http://HOST:PORT"},
		{jobsOf, []string{"list", "-server", "localhost:1"}, "-server localhost:1: want http://HOST:PORT"},
	} {
		if err := c.run(t.Context(), c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want an error with %q", c.args, err, c.want)
		}
	}
}

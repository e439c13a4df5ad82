// Command registry serves an OCI registry.
//
//	go run ./examples/registry -addr 127.0.0.1:5000 -data DIR
//
// Everything is kept in DIR, durably: bytes in files, the rest in one database
// file. With -postgres and -s3 it is kept there, and any number of servers may
// share both. Without flags it is kept in memory.
//
// People find a page at /ui/, unless -ui=false: repositories, images, what refers
// to them, and what a lifecycle policy would do.
//
// A file that -config names has settings of repositories, quotas, scanning, replication
// and a pull-through cache.
//
// Further commands work on the same storage, with the same flags:
//
//	registry lifecycle -data DIR -lifecycle FILE -dry-run   what lifecycle policies would do, and why
//	registry collect -data DIR -dry-run     what a collection would remove
//	registry check -data DIR -bytes         verify what is stored
//	registry repository set -data DIR -settings FILE NAME   change settings of a repository; also create, get, delete and list
//	registry jobs list -server http://ADMIN copies that wait or have failed; also replay, discard, pause and resume, and -data
//
// A server that runs collects by itself. With -data no other command can be run
// beside a server, since it holds the folder; jobs asks the server's -admin address.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	command, args := "serve", os.Args[1:]
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	if command == "help" {
		command, args = "serve", []string{"-h"}
	}
	run, known := map[string]func(context.Context, []string) error{"serve": serve, "collect": collect, "check": check, "lifecycle": applyPolicies, "repository": repositories, "jobs": jobsOf}[command]
	if !known {
		fmt.Fprintf(os.Stderr, "registry: no command %q: %s\n", command, commands)
		os.Exit(2)
	}
	switch err := run(ctx, args); {
	case errors.Is(err, flag.ErrHelp): // was asked for, and is no failure
	case err != nil:
		slog.Error("registry failed", "err", err)
		os.Exit(1)
	}
}

const commands = "serve, collect, lifecycle, check, repository or jobs"

// flags returns the flags that all commands have.
func flags(command string) (*flag.FlagSet, *place) {
	f, p := flag.NewFlagSet("registry "+command, flag.ContinueOnError), new(place)
	p.flags(f)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Usage of registry %s:\n", command)
		f.PrintDefaults()
		if command == "serve" {
			fmt.Fprintf(f.Output(), "Commands are %s; registry COMMAND -h tells their flags.\n", commands)
		}
	}
	return f, p
}

// verbOf takes the verb of a command off its arguments.
func verbOf(command, verbs string, args []string) (verb string, rest []string, err error) {
	if len(args) == 0 {
		return "", nil, errors.New("say what to do: " + verbs)
	}
	switch args[0] {
	case "-h", "-help", "--help":
		fmt.Fprintf(os.Stderr, "Usage of registry %s: %s; registry %[1]s VERB -h tells the flags of each.\n", command, verbs)
		return "", nil, flag.ErrHelp
	}
	return args[0], args[1:], nil
}

func parse(f *flag.FlagSet, args []string) error {
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected arguments %q", f.Args())
	}
	return err
}

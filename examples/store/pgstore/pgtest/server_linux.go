package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type server struct {
	dsn  string
	dir  string
	cmd  *exec.Cmd
	gone chan error
}

// tool finds a program of the server: the newest that Debian has, or that on
// PATH.
func tool(name string) (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	if len(found) > 0 {
		return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
	}
	return exec.LookPath(name)
}

func start() (*server, error) {
	initdb, err := tool("initdb")
	if err != nil {
		return nil, fmt.Errorf("no PostgreSQL server tools: %w", err)
	}
	postgres, err := tool("postgres")
	if err != nil {
		return nil, fmt.Errorf("no PostgreSQL server tools: %w", err)
	}
	// Directly under the folder for temporary files: those of a test can be
	// entered by their owner only, and the server is not root.
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, gone: make(chan error, 1)}
	if err := s.start(initdb, postgres); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

func (s *server) start(initdb, postgres string) error {
	// The server ends with this process, however that ends.
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}
		uid, err := strconv.Atoi(nobody.Uid)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(nobody.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data := filepath.Join(s.dir, "data")
	initialize := exec.Command(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initialize.SysProcAttr, initialize.Dir = attr, s.dir
	if out, err := initialize.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	var err error
	for range 3 { // somebody else may take the port
		if err = s.serve(postgres, data, attr); err == nil {
			break
		}
	}
	return err
}

func (s *server) serve(postgres, data string, attr *syscall.SysProcAttr) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	free.Close()
	if err != nil {
		return err
	}
	s.dsn = "postgres://postgres@127.0.0.1:" + port + "/postgres?sslmode=disable"
	s.cmd = exec.Command(postgres, "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "max_connections=300", "-c", "fsync=off", "-c", "autovacuum=off")
	s.cmd.SysProcAttr, s.cmd.Dir = attr, s.dir
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready, said := make(chan bool, 1), ""
	go func() {
		told := false
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if !told {
				said += lines.Text() + "\n"
			}
			if !told && strings.Contains(lines.Text(), "ready to accept connections") {
				told = true
				ready <- true
			}
		}
		if !told {
			ready <- false
		}
		s.gone <- s.cmd.Wait()
	}()
	if !<-ready {
		return errors.Join(fmt.Errorf("postgres has not started:\n%s", said), <-s.gone)
	}
	return nil
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGINT) // "fast": connections are cut
	<-s.gone
	os.RemoveAll(s.dir)
}

// Package pgtest runs a real PostgreSQL server for the tests of one package: Debian's, in a temporary directory, on a
// unix socket and no network port. A server that does not start fails the test; it never skips it.
package pgtest

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx" that creates the databases
)

// startTimeout is how long the server may take until it answers, on a machine that is busy with other tests.
const startTimeout = 60 * time.Second

// role owns the databases of the tests. It is no superuser, so that a privilege which the control plane would need is
// found out here.
const role = "relay"

// Server is one PostgreSQL server. Share one between the tests of a package, by [Main].
type Server struct {
	// Durable makes what was committed survive [Server.Kill].
	Durable bool

	bin, dir   string
	attributes *syscall.SysProcAttr
	command    *exec.Cmd
	output     bytes.Buffer
	exited     chan struct{}
	databases  atomic.Int64
}

// Main starts a server, runs the tests of a package with it and stops it. It returns the exit code for os.Exit.
func Main(m *testing.M, server *Server) int {
	if err := server.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "PostgreSQL for the tests:", err)
		return 1
	}
	defer server.Stop()
	return m.Run()
}

// Start starts the server and waits until it answers.
func (s *Server) Start() error {
	var err error
	if s.bin, err = programs(); err != nil {
		return err
	}
	// A unix socket's path has about 100 bytes, which the nested directories of t.TempDir may exceed.
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return err
	}
	if err := s.create(); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// create makes the cluster, starts it and makes the role of the tests.
func (s *Server) create() error {
	if err := s.initialise(); err != nil {
		return err
	}
	if err := s.run(); err != nil {
		return err
	}
	return s.execute("CREATE ROLE " + role + " LOGIN")
}

func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("no PostgreSQL server is installed: apt-get install postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

func (s *Server) initialise() (err error) {
	if s.attributes, err = s.unprivileged(); err != nil {
		return err
	}
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "--pgdata", s.data(), "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = s.dir, s.attributes
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// run starts postgres on the cluster and waits until it answers. Nothing is forced to the disk, since the directory does
// not outlive the test: a killed server keeps what it gave to the kernel, and a durable one gives all before it answers.
func (s *Server) run() error {
	durable := "off"
	if s.Durable {
		durable = "on"
	}
	s.command = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "synchronous_commit="+durable, "-c", "full_page_writes="+durable, "-c", "max_connections=200",
		"-c", "shared_buffers=64MB")
	s.output.Reset()
	s.command.Dir, s.command.SysProcAttr = s.dir, s.attributes
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	if err := s.command.Start(); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	exited, command := make(chan struct{}), s.command
	s.exited = exited
	go func() {
		_ = command.Wait()
		close(exited)
	}()
	return s.waitReady()
}

// unprivileged gives the directory to a user who is not root, because PostgreSQL refuses to run as root.
func (s *Server) unprivileged() (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		return attributes, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		if account, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attributes, os.Chown(s.dir, int(uid), int(gid))
}

func (s *Server) waitReady() error {
	db, err := sql.Open("pgx", s.url("postgres", "postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	deadline := time.Now().Add(startTimeout)
	for {
		err := db.Ping()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %w", startTimeout, err)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended at once:\n%s", s.output.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) url(user, database string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s", user, database, s.dir)
}

// execute runs one statement as the superuser.
func (s *Server) execute(statement string) error {
	db, err := sql.Open("pgx", s.url("postgres", "postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// Database creates an empty database for one test and returns its URL, as a role that owns it. It goes with the server.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	if err := s.execute("CREATE DATABASE " + name + " OWNER " + role + " TEMPLATE template0"); err != nil {
		tb.Fatal(err)
	}
	return s.url(role, name)
}

// Kill ends the server as a crash would: without a checkpoint, in the middle of whatever it does.
func (s *Server) Kill() {
	_ = s.command.Process.Signal(syscall.SIGQUIT) // immediate shutdown: children end with it
	<-s.exited
}

// Restart starts a server that was killed on the cluster as it was left.
func (s *Server) Restart() error { return s.run() }

// Stop ends the server and removes its directory.
func (s *Server) Stop() {
	if s.command != nil && s.exited != nil {
		s.Kill()
	}
	_ = os.RemoveAll(s.dir)
}

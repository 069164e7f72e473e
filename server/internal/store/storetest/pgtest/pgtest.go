// Package pgtest runs a real PostgreSQL server for the tests of one package: Debian's, in a temporary directory, on a
// unix socket and no network port. A server that does not start fails the test; it never skips it.
package pgtest

import (
	"bytes"
	"context"
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

// Server is one running PostgreSQL server. The zero value starts it at the first [Server.Database]; make it a variable
// of the test that owns it and stop it in TestMain, see [Main].
type Server struct {
	dir       string
	command   *exec.Cmd
	output    bytes.Buffer
	exited    chan struct{}
	databases atomic.Int64
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
	bin, err := programs()
	if err != nil {
		return err
	}
	// A unix socket's path has about 100 bytes, which the nested directories of t.TempDir may exceed.
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return err
	}
	if err := s.start(bin); err != nil {
		s.Stop()
		return err
	}
	return nil
}

func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("no PostgreSQL server is installed: apt-get install postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// start runs initdb and postgres. Durability is off: what is tested is our SQL, and the directory does not outlive the
// test.
func (s *Server) start(bin string) error {
	attributes, err := s.unprivileged()
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = s.dir, attributes
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	s.command = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200",
		"-c", "shared_buffers=64MB")
	s.command.Dir, s.command.SysProcAttr = s.dir, attributes
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	if err := s.command.Start(); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	s.exited = make(chan struct{})
	go func() {
		_ = s.command.Wait()
		close(s.exited)
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
	db, err := sql.Open("pgx", s.url("postgres"))
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

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://postgres@/%s?host=%s", database, s.dir)
}

// Database creates an empty database for one test and returns its URL. It goes with the server.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	db, err := sql.Open("pgx", s.url("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	if _, err := db.ExecContext(context.Background(), "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		tb.Fatalf("create a database for the test: %v", err)
	}
	return s.url(name)
}

// Kill ends the server as a crash would. Databases are gone with it.
func (s *Server) Kill() {
	_ = s.command.Process.Signal(syscall.SIGQUIT) // immediate shutdown: children end with it
	<-s.exited
}

// Stop ends the server and removes its directory.
func (s *Server) Stop() {
	if s.command != nil && s.exited != nil {
		s.Kill()
	}
	_ = os.RemoveAll(s.dir)
}

package e2e

import (
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver

	"activerelay/relayd/bench"
)

// TestBenchPolicy measures what a new edge costs that has to learn of 100,000 domains with a relay IP each: a real control
// plane, a real relayd, and a proxy between them that counts the bytes. It prints its figures; `make bench` runs it.
func TestBenchPolicy(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("SKIPPED bench: run make bench")
	}
	domains := 100_000
	if testing.Short() {
		domains = 10_000
	}
	s := newStack(t)
	s.server.stop()
	database := filepath.Join(s.dir, "server", "relay.db")
	insertDomains(t, database, domains)
	began := time.Now()
	s.server.start()
	s.waitReady(s.url + "/readyz")
	db := openDatabase(t, database)
	if !within(10*time.Minute, func() bool {
		var documents int
		must(t, db.QueryRow("SELECT count(*) FROM documents WHERE key LIKE 'domain/%'").Scan(&documents))
		return documents == domains
	}) {
		t.Fatal("not all domains have their documents within 10 minutes")
	}
	fmt.Printf("\npolicy of %d domains with a relay IP each, on SQLite\n\n", domains)
	fmt.Printf("documents written by the control plane  %.1f s\n", time.Since(began).Seconds())

	proxy := newCountingProxy(t, strings.TrimPrefix(s.url, "http://"))
	var join struct {
		Token string `json:"token"`
	}
	s.ctlJSON(&join, "join-token", "create")
	dir, admin := filepath.Join(s.dir, "edge"), "127.0.0.1:"+freePort(t)
	args := []string{
		"--server", "http://" + proxy.addr(), "--data-dir", dir, "--name", "bench", "--hostname", "bench.relay.example",
		"--listen", "127.0.0.1:0", "--admin-listen", admin,
	}
	var plane bench.Processes
	fmt.Sscan(s.server.pid(), &plane.Root)
	before, err := plane.CPU()
	must(t, err)
	edge := startEdge(t, "RELAYD_JOIN_TOKEN="+join.Token, args)
	took := edge.ready(s, admin)
	after, err := plane.CPU()
	must(t, err)
	edge.print(t, "first pass", took)
	fmt.Printf("bytes on the wire, both ways            %.1f MiB\n", float64(proxy.bytes.Load())/(1<<20))
	fmt.Printf("CPU of the control plane                %.1f s\n", (after - before).Seconds())

	edge.end(t)
	had := proxy.bytes.Load()
	edge = startEdge(t, "", args)
	took = edge.ready(s, admin)
	edge.print(t, "start with that policy on its disk", took)
	fmt.Printf("bytes on the wire, both ways            %.1f MiB\n", float64(proxy.bytes.Load()-had)/(1<<20))
	fmt.Printf("policy on the edge's disk               %.1f MiB\n", float64(directoryBytes(t, dir))/(1<<20))
}

func openDatabase(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// insertDomains puts the rows in as an import of years would have left them, and names every domain for publication, so
// that the control plane itself writes the documents.
func insertDomains(t *testing.T, path string, domains int) {
	t.Helper()
	db := openDatabase(t, path)
	defer db.Close()
	const now = "2026-11-22 10:00:00+00:00"
	for _, statement := range []string{
		"INSERT INTO partners (slug, name, status_since, created_at, updated_at) VALUES ('acme', 'Acme IT', ?1, ?1, ?1)",
		`INSERT INTO domains (name, partner, licensed_users, status_since, created_at, updated_at)
			WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
			SELECT printf('customer-%06d.example.com', i), 'acme', 25, ?1, ?1, ?1 FROM n`,
		`INSERT INTO relay_ips (id, domain, partner, address, first_address, last_address, state, activated_at, created_at, updated_at)
			SELECT printf('rip_%026d', rowid), name, partner, printf('100.%d.%d.%d/32', 64 + rowid / 65536, rowid / 256 % 256, rowid % 256),
				printf('00000000000000000000ffff64%02x%04x', 64 + rowid / 65536, rowid % 65536),
				printf('00000000000000000000ffff64%02x%04x', 64 + rowid / 65536, rowid % 65536), 'active', ?1, ?1, ?1 FROM domains`,
		"INSERT INTO pending_documents (key) SELECT 'domain/' || name FROM domains WHERE ?1 = ?1",
	} {
		arguments := []any{now, domains}
		_, err := db.Exec(statement, arguments[:1+strings.Count(statement, "?2")]...)
		must(t, err)
	}
}

// benchEdge is a relayd whose start is measured.
type benchEdge struct {
	cmd   *exec.Cmd
	began time.Time
}

func startEdge(t *testing.T, env string, args []string) *benchEdge {
	t.Helper()
	cmd := exec.Command(built(t, "relayd"), args...)
	cmd.Env = append(os.Environ(), env)
	log, err := os.CreateTemp(t.TempDir(), "relayd.log")
	must(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	e := &benchEdge{cmd: cmd, began: time.Now()}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	})
	return e
}

// ready waits until the edge has a whole policy and accepts mail.
func (e *benchEdge) ready(s *stack, admin string) time.Duration {
	s.t.Helper()
	s.waitJoined(admin)
	return time.Since(e.began)
}

func (e *benchEdge) print(t *testing.T, what string, took time.Duration) {
	t.Helper()
	processes := bench.Processes{Root: e.cmd.Process.Pid}
	pss, _, err := processes.Memory()
	must(t, err)
	cpu, err := processes.CPU()
	must(t, err)
	fmt.Printf("\n%-39s %.1f s until ready\n", what, took.Seconds())
	fmt.Printf("CPU of the edge                         %.1f s\n", cpu.Seconds())
	fmt.Printf("PSS of the edge                         %d MiB\n", pss>>20)
}

func (e *benchEdge) end(t *testing.T) {
	t.Helper()
	must(t, e.cmd.Process.Signal(os.Interrupt))
	_ = e.cmd.Wait()
}

// countingProxy hands bytes on and counts them.
type countingProxy struct {
	listener net.Listener
	bytes    atomic.Int64
}

func newCountingProxy(t *testing.T, to string) *countingProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	p := &countingProxy{listener: listener}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go p.pipe(in, out)
			go p.pipe(out, in)
		}
	}()
	return p
}

func (p *countingProxy) addr() string { return p.listener.Addr().String() }

func (p *countingProxy) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(io.MultiWriter(to, counter{&p.bytes}), from)
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func directoryBytes(t *testing.T, dir string) (total int64) {
	t.Helper()
	must(t, filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil // a file may go while we look
	}))
	return total
}

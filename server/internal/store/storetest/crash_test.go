package storetest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
	"activerelay/server/internal/store/storetest/pgtest"
)

// Row 35 of the fault matrix, in short.
func TestSQLiteSurvivesKillsUnderWrites(t *testing.T) {
	const kills = 10
	db := sqlite(t)
	f := newFixture(t, db)
	f.addPartner(t, acme)
	for w := range helperWriters {
		limit, until := int64(1<<40), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
		f.addDomain(t, acme, helperName(w), func(d *store.Domain) { d.OverrideLimit, d.OverrideExpiresAt = &limit, &until })
		f.addEdge(t, helperName(w))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var acknowledged [helperWriters]int64
	for kill := range kills {
		writeUntilKilled(t, db, 10+7*kill, &acknowledged)
		checkAfterKill(t, db, acknowledged)
	}
}

// writeUntilKilled starts a process that writes, and kills it after some commits.
func writeUntilKilled(t *testing.T, db storetest.Database, commits int, acknowledged *[helperWriters]int64) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), helperURL+"="+db.URL)
	var complaints bytes.Buffer
	command.Stderr = &complaints
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	for n := 0; lines.Scan(); n++ {
		writer, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		acknowledged[writer]++
		if n == commits {
			_ = command.Process.Kill()
		}
	}
	if err := command.Wait(); err == nil || complaints.Len() > 0 {
		t.Fatalf("the writer ended by itself: %v\n%s", err, complaints.String())
	}
}

// checkAfterKill holds the database to what was acknowledged: nothing of it is lost, and each step is there whole.
func checkAfterKill(t *testing.T, db storetest.Database, acknowledged [helperWriters]int64) {
	t.Helper()
	raw := db.SQL(t)
	var result string
	if err := raw.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Fatalf("integrity_check: %s, %v", result, err)
	}
	number := func(query string, args ...any) (n int64) {
		if err := raw.QueryRow(query, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for w, acks := range acknowledged {
		name := helperName(w)
		steps := number("SELECT licensed_users FROM domains WHERE name = ?", name)
		// Each kill may come between one commit of a writer and its line.
		if steps < acks || steps > acks+10 {
			t.Errorf("writer %d: %d steps are there, %d were acknowledged", w, steps, acks)
		}
		for what, query := range map[string]string{
			"audit entries":   "SELECT COUNT(*) FROM audit WHERE object = 'domain/' || ?",
			"units granted":   "SELECT COALESCE(SUM(granted), 0) FROM quota_leases WHERE domain = ?",
			"units held":      "SELECT COALESCE(SUM(held), 0) FROM quota_days WHERE domain = ?",
			"calls of leases": "SELECT lease_sequence FROM edges WHERE id = ?",
		} {
			if got := number(query, name); got != steps {
				t.Errorf("writer %d: %d steps, %d %s", w, steps, got, what)
			}
		}
	}
	if total, revision := number("SELECT SUM(licensed_users) FROM domains"), number("SELECT value FROM revision"); total != revision {
		t.Errorf("%d steps, revision %d", total, revision)
	}
	if err := raw.Close(); err != nil {
		t.Error(err)
	}
}

// Row 29 of the fault matrix, in short: what is tried again under its key happens once.
func TestPostgresCrashesWithoutDoubleEffects(t *testing.T) {
	const writers, changes, crashes = 6, 120, 3
	own := &pgtest.Server{Durable: true}
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	f := newFixture(t, storetest.Postgres(t, own))
	f.addPartner(t, acme)
	for w := range writers {
		f.addDomain(t, acme, helperName(w), nil)
	}
	var done, refused atomic.Int64
	var writing errgroup.Group
	for w := range writers {
		writing.Go(func() error {
			for i := range changes {
				for {
					err := f.attempt(store.Operator(), stepOnce(helperName(w), fmt.Sprint(w, "-", i)))
					if err == nil {
						break
					}
					if !errors.Is(err, store.ErrBusy) {
						return fmt.Errorf("while the server was away: %w", err)
					}
					refused.Add(1)
				}
				done.Add(1)
			}
			return nil
		})
	}
	finished := make(chan error, 1)
	go func() { finished <- writing.Wait() }()
	for crash := range int64(crashes) {
		for done.Load() < (crash+1)*writers*changes/(crashes+1) {
			select {
			case err := <-finished:
				t.Fatalf("the writers ended early: %v", err)
			case <-time.After(time.Millisecond):
			}
		}
		own.Kill()
		if err := own.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	f.read(t, store.Operator(), func(tx *store.Tx) error {
		for w := range writers {
			row, err := tx.Domain(helperName(w))
			if err != nil {
				return err
			}
			if row.LicensedUsers != changes {
				t.Errorf("%d changes had %d effects", changes, row.LicensedUsers)
			}
		}
		revision, err := tx.Revision()
		if revision != writers*changes {
			t.Errorf("revision %d after %d changes", revision, writers*changes)
		}
		return err
	})
	t.Logf("%d tries were refused", refused.Load())
}

// stepOnce raises a counter, once under its key.
func stepOnce(domain, key string) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		kept := &store.IdempotencyKey{Principal: "tok", Key: key, Operation: "x", RequestHash: []byte("h")}
		free, err := tx.ReserveIdempotencyKey(kept)
		if err != nil || !free {
			return err
		}
		row, err := tx.LockDomain(domain)
		if err != nil {
			return err
		}
		row.LicensedUsers++
		tx.Publish(store.DomainKey(domain))
		tx.Audit(store.AuditRow{TokenID: "tok", ActorRole: "operator", Action: "x", Object: "domain/" + domain})
		return all(func() error { return tx.UpdateDomain(&row) }, func() error { return tx.FinishIdempotencyKey(kept) })
	}
}

// A commit whose answer is lost may have happened, so the store must not do it again by itself.
func TestCommitWithoutAnAnswerIsNotRepeated(t *testing.T) {
	db := storetest.Postgres(t, &server)
	direct := newFixture(t, db)
	direct.addPartner(t, acme)
	direct.addDomain(t, acme, "acme.example", nil)
	proxy := newProxy(t, db)
	s := proxy.database(db).OpenOnly(t, store.Config{Now: direct.clock.Now})
	runs := 0
	step := func(tx *store.Tx) error {
		runs++
		row, err := tx.LockDomain("acme.example")
		row.LicensedUsers++
		return all(func() error { return err }, func() error { return tx.UpdateDomain(&row) })
	}
	proxy.cut.Store(true)
	err := s.Write(context.Background(), store.Operator(), step)
	if !errors.Is(err, store.ErrBusy) || runs != 1 {
		t.Errorf("got %v after %d runs, want that it is busy after one", err, runs)
	}
	if err := s.Write(context.Background(), store.Operator(), step); err != nil || runs != 2 {
		t.Errorf("the next write: %v after %d runs", err, runs)
	}
	direct.read(t, store.Operator(), func(tx *store.Tx) error {
		row, err := tx.Domain("acme.example")
		if row.LicensedUsers != 2 {
			t.Errorf("%d effects of two writes", row.LicensedUsers)
		}
		return err
	})
}

// proxy stands between a store and PostgreSQL, and can cut a connection when a commit is answered.
type proxy struct {
	dir, target string
	cut         atomic.Bool
}

const socketName = ".s.PGSQL.5432"

func newProxy(t *testing.T, db storetest.Database) *proxy {
	t.Helper()
	_, target, _ := strings.Cut(db.URL, "?host=")
	dir, err := os.MkdirTemp("", "pgproxy") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{dir: dir, target: filepath.Join(target, socketName)}
	listener, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = listener.Close()
		_ = os.RemoveAll(dir)
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

// database is the same database, by way of the proxy.
func (p *proxy) database(db storetest.Database) storetest.Database {
	head, _, _ := strings.Cut(db.URL, "?host=")
	return storetest.Database{URL: head + "?host=" + p.dir}
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	upstream, err := net.Dial("unix", p.target)
	if err != nil {
		return
	}
	defer func() { _ = upstream.Close() }()
	go func() { _, _ = io.Copy(upstream, client) }()
	answer := make([]byte, 1<<16)
	for {
		n, err := upstream.Read(answer)
		if err != nil {
			return
		}
		if bytes.Contains(answer[:n], []byte("COMMIT\x00")) && p.cut.CompareAndSwap(true, false) {
			return
		}
		if _, err := client.Write(answer[:n]); err != nil {
			return
		}
	}
}

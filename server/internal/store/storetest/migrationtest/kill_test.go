package migrationtest

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"

	"activerelay/migrations"
)

// helperDSN is the variable that makes the test binary a process which migrates a database until it is killed.
const helperDSN = "MIGRATIONS_TEST_DSN"

func isHelper() bool { return os.Getenv(helperDSN) != "" }

// slow is a migration that stops after a half of its work, long enough to be killed there. PostgreSQL notices that its
// client is gone when a statement ends, so there the statement does end.
func (d database) slow() string {
	stop := "SELECT pg_sleep(2);"
	if d.dialect == migrations.SQLite {
		stop = "INSERT INTO slow (id) WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT id FROM n WHERE id > 1;"
	}
	return "-- Slow.\n-- +goose Up\nCREATE TABLE slow (id BIGINT);\nINSERT INTO slow (id) VALUES (1);\n" + stop + "\n"
}

// finished is what the migration was meant to be.
const finished = `-- Finished.
-- +goose Up
CREATE TABLE slow (id BIGINT);
INSERT INTO slow (id) VALUES (1);
`

func helperMain() int {
	dialect, dsn, _ := strings.Cut(os.Getenv(helperDSN), "|")
	d := database{dialect: migrations.Dialect(dialect), dsn: dsn, lockPath: os.Getenv("MIGRATIONS_TEST_LOCK")}
	driver := "pgx"
	if d.dialect == migrations.SQLite {
		driver = "sqlite"
	}
	db, err := sql.Open(driver, d.dsn)
	if err != nil {
		panic(err)
	}
	m, err := migrations.New(migrations.Config{
		DB: db, Dialect: d.dialect, LockPath: d.lockPath, Files: os.DirFS(os.Getenv("MIGRATIONS_TEST_FILES")),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println("begins")
	_, err = m.Up(context.Background())
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Row 36 of the fault matrix.
func TestKilledMigrationIsResumed(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		files := t.TempDir()
		if err := os.CopyFS(files, own(t, d, map[string]string{"90001_next.sql": d.slow()})); err != nil {
			t.Fatal(err)
		}
		// The file is there and in its mode: two processes that make it at once may find it locked.
		if err := d.open(t).Ping(); err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), os.Args[0])
		command.Stderr = os.Stderr
		command.Env = append(os.Environ(), helperDSN+"="+string(d.dialect)+"|"+d.dsn, "MIGRATIONS_TEST_LOCK="+d.lockPath, "MIGRATIONS_TEST_FILES="+files)
		output, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(output).ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		d.waitForOwn(t, ended)
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended

		// Our own migrations are done, the next is not begun.
		status, err := d.migrator(t, own(t, d, map[string]string{"90001_next.sql": finished})).Status(context.Background())
		if err != nil || !status[len(status)-1].AppliedAt.IsZero() || status[0].AppliedAt.IsZero() {
			t.Errorf("status after the kill: %+v, %v", status, err)
		}
		steps := up(t, d.migrator(t, own(t, d, map[string]string{"90001_next.sql": finished})))
		if len(steps) != 1 || steps[0].Version != 90001 {
			t.Errorf("the next start did %v, want the killed migration", steps)
		}
		var rows int
		if err := d.open(t).QueryRow("SELECT COUNT(*) FROM slow").Scan(&rows); err != nil || rows != 1 {
			t.Errorf("%d rows, %v, want 1", rows, err)
		}
		resumed := d.schema(t)
		clean := database{dialect: d.dialect}
		if d.dialect == migrations.SQLite {
			clean = sqlite(t)
		} else {
			clean.dsn = server.Database(t)
		}
		up(t, clean.migrator(t, own(t, d, map[string]string{"90001_next.sql": finished})))
		if want := clean.schema(t); resumed != want {
			t.Error("the schema differs from that of a clean run")
		}
	})
}

// waitForOwn waits until the embedded migrations are done, so the killed one is under way.
func (d database) waitForOwn(t *testing.T, ended <-chan error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, string(d.dialect), "*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	db, own := d.open(t), len(files)
	for {
		var applied int
		err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM goose_db_version WHERE version_id > 0").Scan(&applied)
		if err == nil && applied >= own {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("the migrating process ended by itself: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

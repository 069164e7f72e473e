package migrationtest

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"activerelay/migrations"
	"activerelay/server/internal/store/storetest/pgtest"
)

// folder is that of package migrations.
const folder = "../../../../../migrations"

var update = flag.Bool("update", false, "write the golden schemas again")

// server is the PostgreSQL server of this package's tests.
var server pgtest.Server

func TestMain(m *testing.M) {
	if isHelper() {
		os.Exit(helperMain())
	}
	os.Exit(pgtest.Main(m, &server))
}

// database is an empty database of one test.
type database struct {
	dialect  migrations.Dialect
	dsn      string
	lockPath string
}

func sqlite(t *testing.T) database {
	path := filepath.Join(t.TempDir(), "relay.db")
	return database{
		dialect: migrations.SQLite, lockPath: path + ".lock",
		dsn: "file:" + path + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate",
	}
}

func onBoth(t *testing.T, test func(t *testing.T, d database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, sqlite(t)) })
	t.Run("postgres", func(t *testing.T) {
		test(t, database{dialect: migrations.Postgres, dsn: server.Database(t)})
	})
}

// open opens the database as another process would.
func (d database) open(t testing.TB) *sql.DB {
	t.Helper()
	driver := "pgx"
	if d.dialect == migrations.SQLite {
		driver = "sqlite"
	}
	db, err := sql.Open(driver, d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// migrator binds files, nil for those of this build, to a connection of its own.
func (d database) migrator(t testing.TB, files fs.FS) *migrations.Migrator {
	t.Helper()
	m, err := migrations.New(migrations.Config{DB: d.open(t), Dialect: d.dialect, LockPath: d.lockPath, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func up(t testing.TB, m *migrations.Migrator) []migrations.Step {
	t.Helper()
	steps, err := m.Up(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// schema describes all tables, constraints, indexes, functions and triggers, but those of goose.
func (d database) schema(t testing.TB) string {
	t.Helper()
	query := `SELECT sql || ';' FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'goose%' AND name NOT LIKE 'sqlite_%'
		ORDER BY tbl_name, type <> 'table', name`
	if d.dialect == migrations.Postgres {
		query = postgresSchema
	}
	rows, err := d.open(t).Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n") + "\n"
}

const postgresSchema = `
SELECT line FROM (
	SELECT c.relname AS tab, 1 AS kind, format('%s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
		CASE WHEN a.attcollation = 0 OR co.collname = 'default' THEN '' ELSE ' COLLATE ' || co.collname END,
		CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
		COALESCE(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')) AS line, a.attnum::text AS pos
	FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
		LEFT JOIN pg_collation AS co ON co.oid = a.attcollation
		LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT c.relname, 2, format('%s CONSTRAINT %s %s', c.relname, n.conname, pg_get_constraintdef(n.oid)), n.conname
	FROM pg_constraint AS n JOIN pg_class AS c ON c.oid = n.conrelid
	WHERE c.relnamespace = 'public'::regnamespace AND n.contype IN ('p', 'u', 'f', 'c')
	UNION ALL
	SELECT tablename, 3, indexdef, indexname FROM pg_indexes WHERE schemaname = 'public'
	UNION ALL
	SELECT c.relname, 4, pg_get_triggerdef(g.oid), g.tgname
	FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid
	WHERE c.relnamespace = 'public'::regnamespace AND NOT g.tgisinternal
	UNION ALL
	SELECT '', 5, pg_get_functiondef(p.oid), p.proname FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
) AS s WHERE tab NOT LIKE 'goose%' ORDER BY tab COLLATE "C", kind, lpad(pos, 80) COLLATE "C"`

func TestSchemaIsTheGoldenOne(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		up(t, d.migrator(t, nil))
		path, got := filepath.Join(folder, "testdata", "schema_"+string(d.dialect)+".sql"), d.schema(t)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("the schema is another one; if it is to be, run go test with -update (-golden +schema):\n%s", diff)
		}
	})
}

func TestDialectsHaveTheSameVersions(t *testing.T) {
	names := map[migrations.Dialect][]string{}
	for _, dialect := range []migrations.Dialect{migrations.SQLite, migrations.Postgres} {
		found, err := filepath.Glob(filepath.Join(folder, string(dialect), "*.sql"))
		if err != nil || len(found) == 0 {
			t.Fatalf("%v, %v", found, err)
		}
		for _, name := range found {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "-- ") || strings.HasPrefix(string(text), "-- +goose") {
				t.Errorf("%s does not begin with a comment that says why and what it locks", name)
			}
			if strings.Contains(string(text), "+goose Down") {
				t.Errorf("%s goes down; migrations only go forward", name)
			}
			names[dialect] = append(names[dialect], filepath.Base(name))
		}
	}
	if diff := cmp.Diff(names[migrations.SQLite], names[migrations.Postgres]); diff != "" {
		t.Errorf("(-sqlite +postgres):\n%s", diff)
	}
}

func TestUpFromEmptyAndAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		m := d.migrator(t, nil)
		before, err := m.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		steps := up(t, m)
		if len(steps) == 0 || len(steps) != len(before) || !before[0].AppliedAt.IsZero() {
			t.Errorf("%d steps were pending, %d were done", len(before), len(steps))
		}
		if again := up(t, m); len(again) != 0 {
			t.Errorf("the second time did %v, want nothing", again)
		}
		if other := up(t, d.migrator(t, nil)); len(other) != 0 {
			t.Errorf("another process did %v, want nothing", other)
		}
		after, err := m.Status(context.Background())
		if err != nil || after[0].AppliedAt.IsZero() || after[0].Version != steps[0].Version {
			t.Errorf("status %+v, %v", after, err)
		}
		at, program, err := m.Versions(context.Background())
		if err != nil || at != program || at != steps[len(steps)-1].Version {
			t.Errorf("version %d of %d, %v", at, program, err)
		}
	})
}

func TestSeveralMigratorsAtOnceDoEachStepOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		const migrators = 3
		done := make([][]migrations.Step, migrators)
		start := make(chan struct{})
		var group errgroup.Group
		for i := range migrators {
			m := d.migrator(t, nil)
			group.Go(func() (err error) {
				<-start
				done[i], err = m.Up(context.Background())
				return err
			})
		}
		close(start)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		steps := slices.Concat(done...)
		if status, err := d.migrator(t, nil).Status(context.Background()); err != nil || len(steps) != len(status) {
			t.Errorf("%d steps were done by all together, want %d; %v", len(steps), len(status), err)
		}
	})
}

// own is the embedded first migration with others after it.
func own(t testing.TB, d database, more map[string]string) fs.FS {
	t.Helper()
	first, err := filepath.Glob(filepath.Join(folder, string(d.dialect), "*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, name := range first {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[string(d.dialect)+"/"+filepath.Base(name)] = &fstest.MapFile{Data: text}
	}
	for name, text := range more {
		files[string(d.dialect)+"/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func TestNewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		newer := own(t, d, map[string]string{"90001_newer.sql": "-- Newer.\n-- +goose Up\nCREATE TABLE newer (id INTEGER);\n"})
		up(t, d.migrator(t, newer))
		before := d.schema(t)
		if _, err := d.migrator(t, nil).Up(context.Background()); !errors.Is(err, migrations.ErrNewer) {
			t.Errorf("got %v, want that it is newer", err)
		}
		if after := d.schema(t); after != before {
			t.Error("the schema was changed")
		}
		at, program, err := d.migrator(t, nil).Versions(context.Background())
		if err != nil || at != 90001 || program >= at {
			t.Errorf("version %d of %d, %v", at, program, err)
		}
	})
}

func TestFailedMigrationLeavesTheSchemaBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		up(t, d.migrator(t, nil))
		before := d.schema(t)
		broken := "-- Broken.\n-- +goose Up\nCREATE TABLE half (id INTEGER);\nINSERT INTO nowhere VALUES (1);\n"
		if _, err := d.migrator(t, own(t, d, map[string]string{"90001_next.sql": broken})).Up(context.Background()); err == nil {
			t.Error("a broken migration went through")
		}
		if after := d.schema(t); after != before {
			t.Errorf("a broken migration left something behind:\n%s", cmp.Diff(before, after))
		}
		whole := "-- Whole.\n-- +goose Up\nCREATE TABLE half (id INTEGER);\n"
		if steps := up(t, d.migrator(t, own(t, d, map[string]string{"90001_next.sql": whole}))); len(steps) != 1 {
			t.Errorf("the mended one did %v", steps)
		}
	})
}

func TestMigratingSQLiteNeedsItsLock(t *testing.T) {
	d := sqlite(t)
	if _, err := migrations.New(migrations.Config{DB: d.open(t), Dialect: d.dialect}); err == nil {
		t.Error("a migrator without a lock was made")
	}
	if _, err := migrations.New(migrations.Config{DB: d.open(t), Dialect: "mysql", LockPath: d.lockPath}); err == nil {
		t.Error("a migrator of an unknown dialect was made")
	}
}

package store

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
)

// keeper is a connection to an SQLite database with the table t, which holds 1, 2 and 3.
func keeper(t *testing.T) (*sql.Conn, *preparedConn) {
	t.Helper()
	db, err := openSQLite(t.Context(), filepath.Join(t.TempDir(), "kept.db"), "", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	var kept *preparedConn
	if err := conn.Raw(func(driverConn any) error { kept, _ = driverConn.(*preparedConn); return nil }); err != nil || kept == nil {
		t.Fatalf("the connection keeps no statements: %v", err)
	}
	mustExec(t, conn, "CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)")
	return conn, kept
}

func mustExec(t *testing.T, conn *sql.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// numbers returns what a query finds; each is called for every row while the rows are open.
func numbers(t *testing.T, conn *sql.Conn, each func(), query string, args ...any) (found []int) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		found = append(found, n)
		each()
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAStatementIsParsedOnceAndAnswersAnewEachTime(t *testing.T) {
	conn, kept := keeper(t)
	const query = "SELECT n FROM t WHERE n >= ? ORDER BY n"
	first := numbers(t, conn, func() {}, query, 2)
	statement := kept.kept[query]
	mustExec(t, conn, "INSERT INTO t VALUES (?)", 4)
	second := numbers(t, conn, func() {}, query, 3)
	if fmt.Sprint(first, second) != "[2 3] [3 4]" || statement == nil || kept.kept[query] != statement || statement.busy {
		t.Fatalf("found %v and %v, kept %+v and then %+v", first, second, statement, kept.kept[query])
	}
}

func TestAStatementWhoseRowsAreBeingReadIsNotDisturbedByItself(t *testing.T) {
	conn, _ := keeper(t)
	const query = "SELECT n FROM t ORDER BY n"
	var inner []int
	outer := numbers(t, conn, func() { inner = append(inner, numbers(t, conn, func() {}, query)...) }, query)
	if fmt.Sprint(outer, inner) != "[1 2 3] [1 2 3 1 2 3 1 2 3]" {
		t.Fatalf("found %v and within it %v", outer, inner)
	}
}

func TestAStatementThatFailedAndOneOfAnOlderSchemaRunAgain(t *testing.T) {
	conn, _ := keeper(t)
	const insert, query = "INSERT INTO t (n) VALUES (?)", "SELECT * FROM t WHERE n = ?"
	if _, err := conn.ExecContext(t.Context(), insert, 3); err == nil {
		t.Fatal("a number was inserted twice")
	}
	mustExec(t, conn, insert, 4)
	if found := numbers(t, conn, func() {}, query, 4); len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	mustExec(t, conn, "ALTER TABLE t ADD COLUMN name TEXT NOT NULL DEFAULT 'new'")
	var n int
	var name string
	if err := conn.QueryRowContext(t.Context(), query, 4).Scan(&n, &name); err != nil || n != 4 || name != "new" {
		t.Fatalf("found %d, %q: %v", n, name, err)
	}
}

func TestAConnectionKeepsAFewStatementsAndNoPragmas(t *testing.T) {
	conn, kept := keeper(t)
	mustExec(t, conn, "PRAGMA foreign_keys = 1")
	for i := range 3 * keptStatements {
		if found := numbers(t, conn, func() {}, fmt.Sprintf("SELECT n + %d FROM t WHERE n = 1", i)); fmt.Sprint(found) != fmt.Sprint([]int{i + 1}) {
			t.Fatalf("statement %d found %v", i, found)
		}
	}
	_, pragma := kept.kept["PRAGMA foreign_keys = 1"]
	if _, last := kept.kept[fmt.Sprintf("SELECT n + %d FROM t WHERE n = 1", 3*keptStatements-1)]; len(kept.kept) != keptStatements || !last || pragma {
		t.Fatalf("%d statements are kept, the last %t, a pragma %t", len(kept.kept), last, pragma)
	}
}

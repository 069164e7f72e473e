package apitest_test

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"testing"
)

// tables lists the tables of the world's database.
func (w *world) tables(t *testing.T, db *sql.DB) []string {
	t.Helper()
	query := "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
	if w.database.OnSQLite() {
		query = "SELECT name FROM sqlite_master WHERE type = 'table'"
	}
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil || len(names) < 10 {
		t.Fatalf("tables %v: %v", names, err)
	}
	return names
}

// keptIn returns the tables that hold a text, as it is or in the common encodings of bytes.
func (w *world) keptIn(t *testing.T, secret string) []string {
	t.Helper()
	db := w.database.SQL(t)
	forms := []string{
		secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
		base64.RawURLEncoding.EncodeToString([]byte(secret)),
	}
	var found []string
	for _, table := range w.tables(t, db) {
		content := dump(t, db, table)
		for _, form := range forms {
			if bytes.Contains(content, []byte(form)) {
				found = append(found, table)
				break
			}
		}
	}
	return found
}

func dump(t *testing.T, db *sql.DB, table string) []byte {
	t.Helper()
	rows, err := db.Query("SELECT * FROM " + table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, pointers := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		pointers[i] = &values[i]
	}
	var all bytes.Buffer
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			t.Fatal(err)
		}
		for _, value := range values {
			if raw, isBytes := value.([]byte); isBytes {
				all.Write(raw)
				all.WriteByte(' ')
				continue
			}
			fmt.Fprintln(&all, value)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}

// count returns the figure of a query.
func (w *world) count(t *testing.T, query string) int {
	t.Helper()
	var n int
	if err := w.database.SQL(t).QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"
)

const (
	// keptStatements is how many statements one connection to SQLite keeps prepared.
	keptStatements = 64
	// keptLength is how long the text of such a statement may be: a longer one is for a number of rows that hardly comes again.
	keptLength = 4096
)

// preparing is a connector to SQLite whose connections keep statements prepared. Most of ours take SQLite longer to parse than to
// run. PostgreSQL's driver does so by itself. gorm could, but it shares statements between connections and may close one that is
// about to be used.
type preparing struct{ driver.Connector }

// Connect implements driver.Connector.
func (p preparing) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	plain, complete := conn.(sqliteConn)
	if !complete {
		return nil, errors.Join(errors.New("the driver of SQLite is not as it was"), conn.Close())
	}
	return &preparedConn{sqliteConn: plain, kept: map[string]*keptStatement{}}, nil
}

// What the driver of SQLite implements of what database/sql and gorm ask for.
type (
	sqliteConn interface {
		driver.Conn
		driver.ConnBeginTx
		driver.ConnPrepareContext
		driver.ExecerContext
		driver.QueryerContext
		driver.Pinger
		driver.SessionResetter
		driver.Validator
	}
	sqliteStatement interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}
	sqliteRows interface {
		driver.Rows
		driver.RowsColumnTypeDatabaseTypeName
		driver.RowsColumnTypeLength
		driver.RowsColumnTypeNullable
		driver.RowsColumnTypePrecisionScale
		driver.RowsColumnTypeScanType
	}
)

// preparedConn is a connection with the statements that it keeps, by their text. database/sql never uses one from two goroutines.
type preparedConn struct {
	sqliteConn
	kept map[string]*keptStatement
	uses int64
}

type keptStatement struct {
	sqliteStatement
	// busy: its rows are being read.
	busy bool
	// used is the number of its last use.
	used int64
}

// ExecContext implements driver.ExecerContext.
func (c *preparedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.statement(ctx, query)
	if s == nil || err != nil {
		return orPlain(err, func() (driver.Result, error) { return c.sqliteConn.ExecContext(ctx, query, args) })
	}
	result, err := s.ExecContext(ctx, args)
	if err != nil {
		_ = c.forget(query) // what it says is err again
	}
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (c *preparedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.statement(ctx, query)
	if s == nil || err != nil {
		return orPlain(err, func() (driver.Rows, error) { return c.sqliteConn.QueryContext(ctx, query, args) })
	}
	read, err := s.QueryContext(ctx, args)
	if err != nil {
		_ = c.forget(query)
		return nil, err
	}
	rows, complete := read.(sqliteRows)
	if !complete {
		return nil, errors.Join(errors.New("the driver of SQLite is not as it was"), read.Close(), c.forget(query))
	}
	s.busy = true
	return &keptRows{sqliteRows: rows, conn: c, query: query}, nil
}

func orPlain[T any](err error, plain func() (T, error)) (none T, _ error) {
	if err != nil {
		return none, err
	}
	return plain()
}

// Close implements driver.Conn.
func (c *preparedConn) Close() error {
	var failed []error
	for query := range c.kept {
		failed = append(failed, c.forget(query))
	}
	return errors.Join(append(failed, c.sqliteConn.Close())...)
}

// statement returns the prepared statement of a text; nil where none is kept of it or it is busy.
func (c *preparedConn) statement(ctx context.Context, query string) (*keptStatement, error) {
	c.uses++
	if s := c.kept[query]; s != nil {
		s.used = c.uses
		if s.busy {
			return nil, nil
		}
		return s, nil
	}
	if len(query) > keptLength || !keepable(query) {
		return nil, nil
	}
	prepared, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s, complete := prepared.(sqliteStatement)
	if !complete {
		return nil, prepared.Close()
	}
	if err := c.makeRoom(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	kept := &keptStatement{sqliteStatement: s, used: c.uses}
	c.kept[query] = kept
	return kept, nil
}

// keepable reports whether a statement can run again: some pragmas act when they are prepared.
func keepable(query string) bool {
	verb, _, _ := strings.Cut(query, " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE":
		return true
	}
	return false
}

// makeRoom forgets the statement that was used longest ago, where there are too many.
func (c *preparedConn) makeRoom() error {
	if len(c.kept) < keptStatements {
		return nil
	}
	oldest := ""
	for query, s := range c.kept {
		if !s.busy && (oldest == "" || s.used < c.kept[oldest].used) {
			oldest = query
		}
	}
	return c.forget(oldest)
}

// forget also takes a statement that failed: the next use parses anew.
func (c *preparedConn) forget(query string) error {
	s := c.kept[query]
	if s == nil {
		return nil
	}
	delete(c.kept, query)
	return s.Close()
}

// keptRows are the rows of a kept statement, which is free again when they are closed.
type keptRows struct {
	sqliteRows
	conn  *preparedConn
	query string
}

// Close implements driver.Rows.
func (r *keptRows) Close() error {
	if s := r.conn.kept[r.query]; s != nil {
		s.busy = false
	}
	err := r.sqliteRows.Close()
	if err != nil {
		_ = r.conn.forget(r.query)
	}
	return err
}

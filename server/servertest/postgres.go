package servertest

import (
	"testing"

	"activerelay/server/internal/store/storetest/pgtest"
)

// PostgreSQL runs a real PostgreSQL until the test ends and answers the URL of an empty database on it, as --database takes
// it. A server that does not start fails the test.
func PostgreSQL(tb testing.TB) string {
	tb.Helper()
	var server pgtest.Server
	if err := server.Start(); err != nil {
		tb.Fatalf("PostgreSQL for the test: %v", err)
	}
	tb.Cleanup(server.Stop)
	return server.Database(tb)
}

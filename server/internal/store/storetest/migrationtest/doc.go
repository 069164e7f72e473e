// Package migrationtest tests package migrations on both databases. It is here because PostgreSQL is started by a package
// that is internal to the server. The golden schemas are in migrations/testdata.
package migrationtest

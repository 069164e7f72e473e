// Package store keeps the rows of the control plane in SQLite or PostgreSQL. It is the only package that speaks SQL, and
// every difference between the two databases and every driver error ends here.
//
// All work happens inside [Store.Read] or [Store.Write]; queries are methods of [Tx], one file for each resource, so a
// query outside a transaction cannot be written. A transaction belongs to one [Tenant] from its first statement to its
// last, and each query narrows itself by it: what a tenant may not see is not found, by the same statements as what does
// not exist. The zero Tenant sees nothing.
//
// A write transaction ends in a fixed order: the caller's changes, its audit rows, then the next policy revision and
// only after that the documents that the change touches. The revision is one row whose lock is held to the commit, so
// commit order is revision order and no document misses a change that committed before it.
//
// SQLite has one writer connection that begins immediate transactions and a pool of readers; PostgreSQL runs writes at
// read committed with row locks (the Lock… queries) and reads from one snapshot. A write that loses against another one
// is run again from its beginning, so the function given to Write must not have effects outside the transaction.
//
// Row types hold persisted columns only and know nothing of the wire. Times are UTC with microseconds, which both
// databases keep.
package store

// Package policy compiles policy documents into the table by which an edge
// decides about mail.
//
// A [Table] is immutable: [Apply] takes one and a page of documents and returns
// the next, sharing everything that did not change. Readers load the current
// table once for each transaction and keep it as long as they like; nobody
// locks.
//
// # Documents
//
// A document is a whole object under a key: "platform", "partner/<slug>",
// "domain/<name>". Pages come in order of (revision, key), and the table knows
// the last one that it took ([Table.Cursor]), so a page that arrives twice
// changes nothing and an older revision is never adopted. Nothing is inferred
// from absence: what goes away says so by a deleted document. Documents of an
// unknown kind are left for newer readers.
//
// # Documents that do not compile
//
// A fault in one part must not stop mail that does not need it, and must never
// let through or refuse for good what nobody could check. So the parts compile
// on their own. Status, clients and limit apply whatever the rest looks like;
// what needs a part that did not compile is answered "unknown", which callers
// turn into a deferral; and the document is reported in a [Rejected]. What a
// table holds for a key depends on the last document alone, not on its history.
//
// The package reads no clock and does no I/O. Whether policy is fresh, and what
// follows from it, is decided in package admit.
package policy

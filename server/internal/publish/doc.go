// Package publish turns rows into policy documents and brings them to the edges.
//
// A document is a whole object under a key: "platform", "partner/<slug>", "domain/<name>". [Materialise] writes it in
// the transaction of the change, after that transaction took its revision (store.Write does so), so the table of
// documents is at every instant what the rows say, and one query, "after (revision, key)", serves the first pass of a
// new edge and the smallest change alike.
//
// A [Publisher] answers polls. A poll that finds nothing waits until a commit of this process wakes it, or the slow look
// at the revision counter does, which is the net for commits of other processes. Edges that stand at the same place and
// see the same partners share one read and one encoded page.
//
// What an edge enforces is the `after` of its poll. It is kept in memory and written down together for all edges, at most
// once a second.
//
// # Epoch
//
// An epoch names one unbroken history as one edge may see it: the history of the database (store.Tx.Epoch), and the
// partners in the edge's scope. A restored SQLite file is found out by the mark beside it ([OpenHistory]), any restored
// database by an edge that enforces a revision which it does not have. Whoever asks in another epoch is told that it is
// gone, and starts again.
//
// Tombstones of deleted objects are kept for 30 days; who asks from before a removed one is told the same.
package publish

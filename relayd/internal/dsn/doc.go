// Package dsn composes delivery status notifications: what a sender is told
// when mail was not delivered, is late, or was handed on to a server that
// cannot report itself (RFC 3461 to 3464, and RFC 6533 for internationalised
// addresses).
//
// A notification is a multipart/report of three parts: sentences for people,
// fields for machines, and the header of the original message (all of it where
// the sender asked for RET=FULL and the message is not large). [Compose] is a
// pure function: the same [Report] gives the same bytes.
//
// Two rules are kept here because breaking them floods strangers: a message
// from the null sender is never answered (RFC 5321 6.1), and nobody is told
// what NOTIFY says he does not want to hear ([Wanted]). Who is told what, and
// when, is the queue's business.
package dsn

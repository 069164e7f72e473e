// Package reason is the one list of why something was refused or deferred.
//
// SMTP replies, HTTP problems, events, metric labels, the documentation and the
// exit codes of relayctl all come from the same table, so that a customer who
// reads a bounce, a partner who reads a report and an operator who reads a
// graph meet the same word. [All] returns the table, [Lookup] one row, and
// [Render] is the only function that writes an SMTP refusal:
//
//	450-4.7.1 Relay limit reached for example.com: 1000 of 1000 messages today; resets 2026-11-23T00:00:00+01:00
//	450 4.7.1 reason=quota-reached ref=01KAQ7M2… edge=fra1 rev=1842
//
// The first line is for people, the second for machines. Arguments are named
// fields of [Args]; whatever a stranger put into them is made harmless before
// it is written.
//
// The package does not know when a reason applies. That is decided in package
// admit and by the stages of the edge and the handlers of the control plane.
package reason

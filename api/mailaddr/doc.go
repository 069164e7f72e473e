// Package mailaddr turns the text that strangers send as mail addresses and
// domains into one canonical form, or refuses it.
//
// An [Address] is always the result of a parse: a local part that is a
// dot-atom and a domain in lower-case A-labels without a trailing dot. The raw
// text is never kept, because two readers of the same raw text may disagree.
// An SMTP library that unquotes
//
//	<"ceo@victim.test> ENVID="@ok.test>
//
// checks the part after the last "@" and later writes something else to the
// next server. So the grammar here is deliberately smaller than RFC 5321 4.1.2:
// no quoted local parts, no address literals, no source routes, no "%" or "!"
// routing, no single-label domains. Non-ASCII is accepted only where the
// session negotiated SMTPUTF8 (RFC 6531).
//
// The package knows nothing of policy: who may use an address is decided in
// package admit. It reads no clock, does no I/O and resolves no name.
package mailaddr

// Package tlspolicy knows what a destination has said, or shown, about the
// protection of the mail that it gets:
//
//	dane.go    TLSA records (RFC 6698, 7671, 7672): which chains they fit
//	sts.go     MTA-STS policies (RFC 8461): their text, and which hosts they name
//	fetch.go   how a policy is fetched
//	finder.go  which policy of a domain is in force: record, fetch, cache
//	memory.go  what is remembered: policies, and who took TLS before
//
// What follows from it for a connection is decided in package deliver. Only
// the memory is kept on the disk: a relay that forgot it at every start could
// be talked into plain text by whoever can make it start.
package tlspolicy

// Package deliver makes one delivery attempt: it finds the server, opens a
// channel, holds the SMTP conversation and says what came of it for each
// recipient. [Sender.Attempt] reads in that order:
//
//	mx.go       which hosts, which addresses: MX, null MX, our own address
//	dane.go     which TLSA records a host has
//	demand.go   what its channel must be: route, REQUIRETLS, DANE, MTA-STS, ratchet
//	targets.go  which addresses are never dialled
//	source.go   which address of ours the connection leaves from, and its name
//	dial.go     one TCP connection, greeting, EHLO
//	wire.go     its deadlines, and how few system calls it takes
//	tls.go      STARTTLS or TLS from the first byte, as demanded
//	auth.go     AUTH for routes with credentials
//	convo.go    MAIL, RCPT, DATA
//	body.go     the message, and the reply after the dot
//	reply.go    replies, however hostile
//	result.go   what a reply or a failure means
//	pool.go     connections kept for the next message
//	remember.go who took TLS, for the next time
//
// The SMTP client is our own, because what answers is hostile until proved
// otherwise. Every reply is read with one deadline for the whole of it, so
// that dripping bytes gains no time; lines and their number are counted; a
// write never waits longer than the peer earns by reading. Addresses are
// checked again before they are written. The message leaves as it was stored,
// byte for byte, but for the dots of RFC 5321 4.5.2.
//
// The package decides nothing about retries: that is the queue's. What is
// remembered about destinations is in package tlspolicy.
package deliver

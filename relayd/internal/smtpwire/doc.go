// Package smtpwire is an SMTP server engine: it reads commands and messages
// from connections and runs them on a session. Sessions are those of
// github.com/emersion/go-smtp ([smtp.Session], [smtp.AuthSession], its errors and
// options), so the same session runs on the engine of that package too; see
// [Peer]. It reads in this order:
//
//	server.go   listeners, connections, shutdown
//	conn.go     one connection from beginning to close
//	greet.go    what comes before SMTP, and the greeting
//	socket.go   looking at the network, and waiting for it without a buffer
//	read.go     bytes into lines; deadlines
//	command.go  one line into one action
//	mail.go     MAIL and RCPT; path.go, params.go: their grammar
//	data.go     DATA; body.go: what stands before the final dot
//	auth.go     AUTH; tls.go: STARTTLS and the first handshake
//	reply.go    every byte that is said
//
// What it promises:
//
//   - A command is a line that ends in CR LF, at most 4 KiB long (12 KiB in
//     AUTH). A bare CR or LF ends nothing. What is left of a line when the
//     connection ends is never run.
//   - A message ends at CR LF . CR LF as it came over the wire, nowhere else.
//     The session gets everything before it with the dots of RFC 5321 4.5.2
//     taken off and not one byte changed otherwise: bare CR, bare LF and NUL are
//     its business.
//   - After a failed read within a message the connection is closed; what comes
//     later is not run. The same holds after STARTTLS that came with something
//     behind it, after a failed handshake, after BDAT (which is not offered: what
//     follows would be the chunk) and after another protocol's first line.
//   - A session that says yes to a message which it has not read to its end is
//     overruled.
//   - State changes only after success. MAIL and AUTH within a transaction are
//     refused.
//   - Paths come to the session as they stood between their brackets, quotes and
//     all. It has to parse them; the engine takes nothing off.
//   - Pipelined commands are answered in one write. A reply that takes
//     responsibility for a message is written at once.
//   - Idle time, time for a line, session age, errors, junk commands, failed
//     AUTH, and the rate and the time of a message are bounded.
//   - So is memory: a connection whose client is waited for, whether it is silent,
//     drips or has paused within a message, costs about 10 KiB, its stack and the
//     start of a line that it has sent included; twice as much with TLS, which
//     besides keeps what its longest record took, and up to four times within a
//     message. A buffer of 32 KiB is lent only while there is something to read.
//     What the session keeps of the message comes on top.
//   - Every refusal comes from package reason, with its enhanced code on every
//     line (RFC 2034 3). Unknown errors are 451 4.3.0, never shown.
//   - A panic in a session ends that connection with 421.
//
// The engine knows nothing of policy, and does not limit connections: a wrapping
// listener does.
package smtpwire

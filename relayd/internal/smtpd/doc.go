// Package smtpd takes mail in: it holds the conversation with the client, asks
// at each step whether the mail may go on, and stores what it answers with 250.
//
// One message, in the order of the files: listener.go counts the connection in,
// guard.go watches it, session.go answers MAIL and RCPT, data.go leads the
// message itself through receive.go (stream it into the spool, looking at line
// ends and header), judge.go (who speaks, is it bulk, is it clean) and commit.go
// (spend the quota, store the message and note the event in one synced batch).
// Every refusal leaves through refuse.go, in the words of package reason.
//
// # What is promised
//
// A message that was answered 250 is on the disk, charged and reported. One that
// was not left nothing behind. What is stored is what came, byte for byte, below
// the fields that we add; only bare CR, bare LF and NUL are made regular, where
// the platform says so and does not refuse them.
//
// # The engine
//
// The stock go-smtp server reads the commands. It does not hold the whole
// session contract by itself, so the guard, which lies below it, and the session
// mend what they can:
//
//   - It runs on after a failed read within a message and after a failed TLS
//     handshake: the guard reads nothing more.
//   - It does not see the end of a message whose last line ends in CR CR LF:
//     receive.go sees it, answers, and ends the connection.
//   - It takes a connection that closes within the last chunk of BDAT for a whole
//     message: receive.go asks the guard first.
//   - It runs a chunked message (it always offers CHUNKING) beside the commands
//     that follow, and can give its outcome to the next one: see session and
//     drain. RSET within a chunked message ends the connection.
//   - It accepts MAIL and AUTH within a message: the session refuses.
//   - It waits for idle clients for ever when it shuts down, so the server keeps
//     its own account of connections and never calls the engine's Shutdown.
//
// What it still does otherwise than the contract: it runs commands that end in a
// bare LF, or at the end of the connection; it lets command lines be as long as
// message lines (one limit holds for both); it takes source routes and needless
// quotes off addresses where they should be refused; it drops a dot and a bare CR at the
// beginning of a line; and it answers unknown or malformed commands in words of
// its own. None of these makes a second message out of one.
package smtpd

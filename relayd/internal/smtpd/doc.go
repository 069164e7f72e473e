// Package smtpd takes mail in: it decides, at each step of the conversation with
// the client, whether the mail may go on, and stores what it answers with 250.
//
// One message, in the order of the files: listener.go counts the connection in
// (proxy.go finds out whose it is behind a load balancer), package smtpwire reads
// the commands, session.go answers MAIL and RCPT (room.go: is there room on the
// disk?), data.go leads the message itself through receive.go (stream it into the
// spool, looking at line ends and header), judge.go (who speaks, is it bulk, is it
// clean) and commit.go (spend the quota, store the message and note the event in
// one synced batch). Every refusal, the engine's too, leaves through refuse.go, in
// the words of package reason; unlogged.go says which have a line in the mail log.
//
// # What is promised
//
// A message that was answered 250 is on the disk, charged and reported. One that
// was not left nothing behind. What is stored is what came, byte for byte, below
// the fields that we add (for users a Date and a Message-ID, where they have none
// and no DKIM signature); only bare CR, bare LF and NUL are made regular, where the
// platform says so and does not refuse them. A message that held any of them is the
// last of its connection either way.
//
// # The engine
//
// Package smtpwire keeps what the session contract says of the wire: what is a
// line, where a message ends, the order of commands, time, mistakes and shutdown.
// Here is what needs to know the policy, and what spans connections: how many
// there may be, who may log in how often.
//
// A session asks its connection for no more than conn, which go-smtp's can be
// made to do; engines_test.go holds conversations with both and says where, and
// why, they differ.
package smtpd

package smtpd

import (
	"activerelay/api/admit"
	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/spool"
)

// transaction is one message from MAIL to its end. All its decisions are made
// by one view of the policy.
//
// It is used again for a later message of any session, for its memory: nothing
// may point into it once the session was reset, and recipients is given away
// with the stored message.
type transaction struct {
	view   admit.View
	client admit.Client
	from   mailaddr.Address
	// fromText is from as text, to and toDomains the recipients.
	fromText      string
	to, toDomains []string

	utf8, requireTLS bool
	ret, envID       string

	// sender is the verdict on from, once there was a RCPT.
	sender  *admit.Verdict
	verdict admit.Verdict
	// senderRef is the reference of a refusal of the sender. It is the same for
	// every recipient: one decision was made.
	senderRef  string
	recipients []spool.Recipient
	// fullRef is the same for the recipients that are too many.
	fullRef string

	intake intake
}

// maxKeptBytes is the most memory that one buffer of a transaction keeps for the
// next message.
const maxKeptBytes = 32 << 10

// recycle makes a transaction ready for another message.
func (s *Server) recycle(tx *transaction) {
	clear(tx.to)
	clear(tx.toDomains)
	to, domains := tx.to[:0], tx.toDomains[:0]
	tx.intake.reset()
	*tx = transaction{to: to, toDomains: domains, intake: tx.intake}
	s.transactions.Put(tx)
}

// reset forgets a message and keeps the memory.
func (in *intake) reset() {
	in.header.reset()
	*in = intake{
		header: in.header, lines: newlines{out: keptBytes(in.lines.out)}, fields: keptBytes(in.fields),
	}
}

func keptBytes(p []byte) []byte {
	if cap(p) > maxKeptBytes {
		return nil
	}
	return p[:0]
}

// textOf is an address as text: the text that was said, where that is the same,
// which spares another one.
func textOf(a mailaddr.Address, said string) string {
	at := len(a.Local)
	if len(said) == at+1+len(a.Domain) && said[:at] == a.Local && said[at] == '@' && said[at+1:] == a.Domain {
		return said
	}
	return a.String()
}

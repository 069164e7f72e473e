package smtpd

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"activerelay/api/feedback"
	"activerelay/relayd/internal/spool"
)

// traceFields makes the header fields that go above the message: Received
// (RFC 5321 4.4), the token by which complaints find their way back, and what a
// user's mail lacks.
func (in *intake) traceFields(m *spool.Message) (err error) {
	in.fields = in.appendReceived(in.fields[:0], m)
	in.fields, err = in.server.sealer.AppendField(in.fields, &feedback.Claims{
		MessageID: m.ID, Domain: m.Domain, User: m.User, ClientAddress: in.session.peerText, Sender: in.tx.fromText,
	})
	if err == nil && in.tx.client.Authenticated() && !in.header.signed {
		in.fields = in.appendMissing(in.fields, m)
	}
	return err
}

// appendMissing appends what the mail program of a user should have written: the
// date, which RFC 5322 3.6 demands, and a Message-ID, by which replies and
// duplicates are known (RFC 6409 8.2 and 8.3). What is there is left alone, however
// it looks. Mail of relay IPs has passed a server: it is that server's business.
//
// A DKIM signature may cover that a field is not there, by naming it once more than
// it occurs (RFC 6376 5.4 and 8.15): a field that is added then breaks it. So what
// is signed gets none. Received and CFBL-Feedback-ID go above every message; no
// signer names those.
func (in *intake) appendMissing(b []byte, m *spool.Message) []byte {
	if !in.header.dated {
		b = append(m.AcceptedAt.AppendFormat(append(b, "Date: "...), time.RFC1123Z), "\r\n"...)
	}
	if !in.header.named {
		b = append(append(append(append(append(b, "Message-ID: <"...), m.ID...), '@'), in.server.Hostname...), ">\r\n"...)
	}
	return b
}

// appendReceived appends the Received field.
func (in *intake) appendReceived(b []byte, m *spool.Message) []byte {
	b = append(append(append(b, "Received: from "...), m.Helo...), " (["...)
	if m.Client.Is6() {
		b = append(b, "IPv6:"...)
	}
	b = append(m.Client.AppendTo(b), "])\r\n"...)
	if state := in.session.tls; state != nil {
		b = fmt.Appendf(b, "\t(using %s with cipher %s)\r\n",
			strings.ReplaceAll(tls.VersionName(state.Version), " ", ""), tls.CipherSuiteName(state.CipherSuite))
	}
	b = append(append(append(b, "\tby "...), in.server.Hostname...), " with "...)
	b = append(append(append(b, in.protocol()...), " id "...), m.ID...)
	// RFC 5321 7.2: no recipient learns of another.
	if len(m.Recipients) == 1 && m.Recipients[0].Address.IsASCII() {
		b = append(append(append(b, "\r\n\tfor <"...), in.tx.to[0]...), '>')
	}
	return append(m.AcceptedAt.AppendFormat(append(b, ";\r\n\t"...), time.RFC1123Z), "\r\n"...)
}

// protocol is the word of RFC 3848, or of RFC 6531 4.3.
func (in *intake) protocol() string {
	words := [...]string{"ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA", "UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"}
	word := 0
	if in.session.tls != nil {
		word |= 1
	}
	if in.tx.client.Authenticated() {
		word |= 2
	}
	if in.tx.utf8 {
		word |= 4
	}
	return words[word]
}

// cleanHelo is what the client calls itself, safe to write anywhere.
func (s *session) cleanHelo() string {
	if said := s.conn.Hostname(); s.helo == "" || s.heloSaid != said {
		s.heloSaid, s.helo = said, cleanHelo(said)
	}
	return s.helo
}

// cleanHelo makes what the client calls itself safe to write anywhere: the
// characters of names and address literals.
func cleanHelo(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(".-_:[]", r):
			return r
		}
		return '?'
	}, s[:min(len(s), maxHeloBytes)])
	if s == "" {
		return "unknown"
	}
	return s
}

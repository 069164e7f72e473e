package smtpd

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"activerelay/api/feedback"
	"activerelay/relayd/internal/spool"
)

// traceFields are the header fields that go above the message: Received
// (RFC 5321 4.4) and the token by which complaints find their way back.
func (in *intake) traceFields(m *spool.Message) ([]byte, error) {
	token, err := feedback.Seal(in.server.FeedbackKey, in.server.EdgeID, feedback.Claims{
		MessageID: m.ID, Domain: m.Domain, User: m.User, ClientAddress: m.Client.String(), Sender: m.From.String(),
	})
	if err != nil {
		return nil, err
	}
	return []byte(in.receivedField(m) + feedback.Field(token)), nil
}

// receivedField is the Received field.
func (in *intake) receivedField(m *spool.Message) string {
	client := m.Client.String()
	if m.Client.Is6() {
		client = "IPv6:" + client
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from %s ([%s])\r\n", m.Helo, client)
	if state := in.session.tls; state != nil {
		fmt.Fprintf(&b, "\t(using %s with cipher %s)\r\n",
			strings.ReplaceAll(tls.VersionName(state.Version), " ", ""), tls.CipherSuiteName(state.CipherSuite))
	}
	fmt.Fprintf(&b, "\tby %s with %s id %s", in.server.Hostname, in.protocol(), m.ID)
	// RFC 5321 7.2: no recipient learns of another.
	if len(m.Recipients) == 1 && m.Recipients[0].Address.IsASCII() {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", m.Recipients[0].Address)
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", m.AcceptedAt.Format(time.RFC1123Z))
	return b.String()
}

// protocol is the word of RFC 3848, or of RFC 6531 4.3.
func (in *intake) protocol() string {
	word := "ESMTP"
	if in.tx.utf8 {
		word = "UTF8SMTP"
	}
	if in.session.tls != nil {
		word += "S"
	}
	if in.tx.client.Authenticated() {
		word += "A"
	}
	return word
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

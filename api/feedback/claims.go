package feedback

import (
	"encoding/binary"
	"fmt"
)

// Claims are what a token says about one relayed message.
type Claims struct {
	// MessageID is our id of the message, the one in the 250 reply.
	MessageID string
	// Domain is the registered domain that the message was charged to.
	Domain string
	// User is the address that authenticated. "" means the client was allowed
	// by its address.
	User string
	// ClientAddress is the address of the client, without a port.
	ClientAddress string
	// Sender is the envelope sender. "" is the null sender.
	Sender string
}

// maxClaimBytes bounds each claim; an address path has 254 octets (RFC 5321
// 4.5.3.1.3), and nothing longer than the longest mailbox fits a claim.
const maxClaimBytes = 320

func (c *Claims) fields() [5]*string {
	return [5]*string{&c.MessageID, &c.Domain, &c.User, &c.ClientAddress, &c.Sender}
}

// appendTo writes each claim after its length. It is shorter than JSON, and has
// one spelling for each value.
func (c *Claims) appendTo(out []byte) ([]byte, error) {
	if c.MessageID == "" || c.Domain == "" {
		return out, fmt.Errorf("a message id and a domain are required")
	}
	for _, field := range c.fields() {
		if len(*field) > maxClaimBytes {
			return out, fmt.Errorf("a claim has %d bytes, more than %d", len(*field), maxClaimBytes)
		}
		out = binary.AppendUvarint(out, uint64(len(*field)))
		out = append(out, *field...)
	}
	return out, nil
}

// decode reads what appendTo wrote. Bytes behind the known claims are ignored: a
// newer edge may have more to say.
func decode(plain []byte) (Claims, error) {
	var c Claims
	for _, field := range c.fields() {
		length, n := binary.Uvarint(plain)
		if n <= 0 || length > maxClaimBytes || length > uint64(len(plain)-n) {
			return Claims{}, ErrMalformed
		}
		*field = string(plain[n : n+int(length)])
		plain = plain[n+int(length):]
	}
	if c.MessageID == "" || c.Domain == "" {
		return Claims{}, ErrMalformed
	}
	return c, nil
}

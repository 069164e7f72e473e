package smtpd

import (
	"fmt"
	"strings"

	"github.com/emersion/go-smtp"
)

// The engine hands over ENVID and ORCPT decoded. They are kept, and passed on,
// in the form in which they travel (RFC 3461 4).

// xtext encodes as RFC 3461 4 says.
func xtext(s string) string {
	if s == "" {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= '!' && c <= '~' && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// orcpt is the original recipient with its type. RFC 6533 3: an address of type
// utf-8 writes what xtext may not hold as \x{...}.
func orcpt(opts *smtp.RcptOptions) string {
	switch opts.OriginalRecipientType {
	case smtp.DSNAddressTypeRFC822:
		return "rfc822;" + xtext(opts.OriginalRecipient)
	case smtp.DSNAddressTypeUTF8:
		var b strings.Builder
		for _, r := range opts.OriginalRecipient {
			if r >= '!' && r <= '~' && r != '+' && r != '=' && r != '\\' {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\x{%02X}`, r)
			}
		}
		return "utf-8;" + b.String()
	}
	return ""
}

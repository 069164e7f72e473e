package smtpwire

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"activerelay/api/reason"

	"github.com/emersion/go-smtp"
)

// Limits of RFC 3461 4.2 and 4.4.
const (
	maxEnvIDBytes = 100
	maxORCPTBytes = 500
)

// paramSeen finds parameters that are given twice.
type paramSeen uint8

func (s *paramSeen) again(bit uint8) bool {
	was := *s&(1<<bit) != 0
	*s |= 1 << bit
	return was
}

// cutParam takes the first "KEY" or "KEY=value" off a list separated by spaces.
func cutParam(list []byte) (key []byte, value string, hasValue bool, rest []byte) {
	word, rest, _ := bytes.Cut(bytes.TrimLeft(list, " "), []byte(" "))
	key, raw, hasValue := bytes.Cut(word, []byte("="))
	return key, string(raw), hasValue, rest
}

// parameters are those that are known.
func parameters() [9]string {
	return [...]string{"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "REQUIRETLS", "AUTH", "NOTIFY", "ORCPT"}
}

// upper is a keyword in capitals. What is not one becomes "".
func upper(word []byte) string {
	for _, known := range parameters() { // which costs no memory
		if string(word) == known {
			return known
		}
	}
	const longest = 24
	if len(word) == 0 || len(word) > longest {
		return ""
	}
	var buf [longest]byte
	for i, b := range word {
		switch {
		case 'a' <= b && b <= 'z':
			b -= 'a' - 'A'
		case 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-':
		default:
			return ""
		}
		buf[i] = b
	}
	return string(buf[:len(word)])
}

// mailParams reads the parameters of MAIL. A slug means that they are refused.
func (c *Conn) mailParams(list []byte, o *smtp.MailOptions) (reason.Slug, string) {
	var seen paramSeen
	for len(bytes.TrimLeft(list, " ")) > 0 {
		var raw []byte
		var value string
		var has bool
		raw, value, has, list = cutParam(list)
		key := upper(raw)
		bit, ok := c.mailParam(key, value, has, o)
		switch {
		case bit == unknownParam || !c.esmtp:
			return reason.ParameterUnknown, string(raw)
		case !ok:
			return reason.CommandSyntax, "value of " + key
		case seen.again(bit):
			return reason.CommandSyntax, key + " is given twice"
		}
	}
	return "", ""
}

// unknownParam is the number of no parameter.
const unknownParam = math.MaxUint8

// mailParam reads one parameter of MAIL and numbers it.
func (c *Conn) mailParam(key, value string, has bool, o *smtp.MailOptions) (bit uint8, ok bool) {
	switch key {
	case "SIZE":
		o.Size, ok = parseSize(value)
		return 0, ok
	case "BODY":
		o.Body = smtp.BodyType(strings.ToUpper(value))
		return 1, o.Body == smtp.Body7Bit || o.Body == smtp.Body8BitMIME
	case "SMTPUTF8":
		o.UTF8 = true
		return 2, !has
	case "RET":
		o.Return = smtp.DSNReturn(strings.ToUpper(value))
		return 3, o.Return == smtp.DSNReturnFull || o.Return == smtp.DSNReturnHeaders
	case "ENVID":
		o.EnvelopeID, ok = decodeXtext(value)
		return 4, ok && value != "" && len(value) <= maxEnvIDBytes && isPrintable(o.EnvelopeID)
	case "REQUIRETLS":
		if c.tls == nil { // RFC 8689 4.2.1: only within TLS
			return unknownParam, false
		}
		o.RequireTLS = true
		return 5, !has
	case "AUTH":
		if len(c.mechanisms()) == 0 {
			return unknownParam, false
		}
		who, ok := decodeXtext(value)
		if who == "<>" {
			who = ""
		}
		o.Auth = &who
		return 6, ok && value != "" && isPrintable(who)
	}
	return unknownParam, false
}

// parseSize reads 1 to 20 digits (RFC 1870 6.1). What does not fit is too
// large, not wrong.
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 20 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// rcptParams reads the parameters of RCPT. A slug means that they are refused.
func (c *Conn) rcptParams(list []byte, o *smtp.RcptOptions) (reason.Slug, string) {
	var seen paramSeen
	for len(bytes.TrimLeft(list, " ")) > 0 {
		var raw []byte
		var value string
		raw, value, _, list = cutParam(list)
		key := upper(raw)
		bit, ok := uint8(unknownParam), false
		switch key {
		case "NOTIFY":
			bit = 0
			o.Notify, ok = parseNotify(value)
		case "ORCPT":
			bit = 1
			o.OriginalRecipientType, o.OriginalRecipient, ok = parseORCPT(value)
		}
		switch {
		case bit == unknownParam || !c.esmtp:
			return reason.ParameterUnknown, string(raw)
		case !ok:
			return reason.CommandSyntax, "value of " + key
		case seen.again(bit):
			return reason.CommandSyntax, key + " is given twice"
		}
	}
	return "", ""
}

// parseNotify reads NEVER, or a list of the others without repetition (RFC 3461
// 4.1).
func parseNotify(s string) ([]smtp.DSNNotify, bool) {
	var wishes []smtp.DSNNotify
	for word := range strings.SplitSeq(strings.ToUpper(s), ",") {
		wish := smtp.DSNNotify(word)
		switch wish {
		case smtp.DSNNotifyNever, smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
		default:
			return nil, false
		}
		for _, other := range wishes {
			if other == wish || other == smtp.DSNNotifyNever || wish == smtp.DSNNotifyNever {
				return nil, false
			}
		}
		wishes = append(wishes, wish)
	}
	return wishes, true
}

// parseORCPT reads "type;address" (RFC 3461 4.2, RFC 6533 3). The address comes
// decoded and printable.
func parseORCPT(s string) (smtp.DSNAddressType, string, bool) {
	word, coded, _ := strings.Cut(s, ";")
	kind := smtp.DSNAddressType(upper([]byte(word)))
	if kind == "" || coded == "" || len(s) > maxORCPTBytes {
		return "", "", false
	}
	if kind == smtp.DSNAddressTypeUTF8 {
		address, ok := decodeUTF8Address(coded)
		return kind, address, ok
	}
	address, ok := decodeXtext(coded)
	return kind, address, ok && isPrintable(address)
}

// decodeXtext decodes RFC 3461 4.
func decodeXtext(s string) (string, bool) {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] < '!' || s[i] > '~' || s[i] == '=' {
			return "", false
		}
		plain = plain && s[i] != '+'
	}
	if plain {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return "", false
		}
		n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8) // two hex digits are a number
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), true
}

// isHex reports a digit of xtext, which is in capitals.
func isHex(b byte) bool { return '0' <= b && b <= '9' || 'A' <= b && b <= 'F' }

func isPrintable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// decodeUTF8Address decodes utf-8-addr-xtext and utf-8-addr-unitext: UTF-8 where
// some characters are written \x{HEX}.
func decodeUTF8Address(s string) (string, bool) {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == '\\' {
			code, rest, found := strings.Cut(strings.TrimPrefix(s, `\x{`), "}")
			if rest == s || !found || !strings.HasPrefix(s, `\x{`) || len(code) < 2 || len(code) > 6 {
				return "", false
			}
			if strings.Trim(code, "0123456789ABCDEF") != "" {
				return "", false
			}
			n, _ := strconv.ParseUint(code, 16, 32) // at most six hex digits
			r, s = rune(n), rest
		} else {
			if r <= ' ' || r == '+' || r == '=' {
				return "", false
			}
			s = s[size:]
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || !utf8.ValidRune(r) || r == utf8.RuneError && size < 2 {
			return "", false
		}
		b.WriteRune(r)
	}
	return b.String(), true
}

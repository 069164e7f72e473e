package feedback

import "strings"

// HeaderName is the field that carries the token (RFC 9477).
const HeaderName = "CFBL-Feedback-ID"

// lineBytes is where a field is folded: RFC 5322 2.1.1 asks for at most 78 characters
// in a line.
const lineBytes = 76

// appendField appends the whole header field of a token with its line ends,
// folded: a long token on one line would come near the 998 octets that no line
// may exceed.
func appendField(dst, token []byte) []byte {
	dst = append(dst, HeaderName+":"...)
	room := lineBytes - len(HeaderName+":")
	for {
		n := min(room-1, len(token))
		dst = append(append(append(dst, ' '), token[:n]...), "\r\n"...)
		if token = token[n:]; len(token) == 0 {
			return dst
		}
		room = lineBytes
	}
}

// unfold drops all white space, wherever a mail system has put it.
func unfold(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, s)
}

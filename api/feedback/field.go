package feedback

import "strings"

// HeaderName is the field that carries the token (RFC 9477).
const HeaderName = "CFBL-Feedback-ID"

// lineBytes is where Field folds: RFC 5322 2.1.1 asks for at most 78 characters
// in a line.
const lineBytes = 76

// Field returns the whole header field of a token with its line ends, folded:
// a long token on one line would come near the 998 octets that no line may
// exceed.
func Field(token string) string {
	var b strings.Builder
	b.WriteString(HeaderName + ":")
	room := lineBytes - b.Len()
	for {
		n := min(room-1, len(token))
		b.WriteString(" " + token[:n] + "\r\n")
		if token = token[n:]; token == "" {
			return b.String()
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

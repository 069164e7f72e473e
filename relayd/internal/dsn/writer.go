package dsn

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// columns is where text for people is wrapped (RFC 5322 2.1.1).
const columns = 76

// writer writes lines that end in CRLF.
type writer struct {
	bytes.Buffer
}

func (w *writer) line(parts ...string) {
	for _, p := range parts {
		w.WriteString(p)
	}
	w.WriteString("\r\n")
}

// paragraph writes text wrapped at columns, each line after indent.
func (w *writer) paragraph(indent, text string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > columns {
			w.line(line)
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	w.line(line)
}

// clean makes a stranger's text fit for one line of a notification: ASCII, or
// UTF-8 where the notification may hold it, nothing that cannot be printed.
func clean(s string, allowUTF8 bool) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == ' ', r < utf8.RuneSelf && unicode.IsPrint(r):
			return r
		case allowUTF8 && r != utf8.RuneError && unicode.IsPrint(r):
			return r
		}
		return '?'
	}, s)
	if len(s) > maxDiagnosticBytes {
		s = s[:maxDiagnosticBytes]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return strings.TrimSpace(s)
}

func ascii(p []byte) bool {
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// decodeXtext undoes RFC 3461 4: "+2B" stands for "+". What is no xtext stays
// as it is.
func decodeXtext(s string) string {
	if !strings.Contains(s, "+") {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '+' && i+2 < len(s) {
			if hi, lo := hexValue(s[i+1]), hexValue(s[i+2]); hi >= 0 && lo >= 0 {
				out.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

func hexValue(c byte) int { return strings.IndexByte("0123456789ABCDEF", c) }

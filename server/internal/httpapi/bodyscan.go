package httpapi

import (
	"encoding/json"
	"reflect"
	"strings"
)

// bodyScan goes through the JSON text of a request body. Its methods answer false where the text is not what they look for.
type bodyScan struct {
	text string
	at   int
}

func (s *bodyScan) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\n' || s.text[s.at] == '\t' || s.text[s.at] == '\r') {
		s.at++
	}
}

// take goes past one character of JSON's own.
func (s *bodyScan) take(c byte) bool {
	s.space()
	if s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

func (s *bodyScan) object(members map[string]member, required uint64, into reflect.Value) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return required == 0
	}
	for seen := uint64(0); ; {
		name, ok := s.quoted()
		m, known := members[name]
		if !ok || !known || seen&m.bit != 0 || !s.take(':') || !m.read(s, into.Field(m.field)) {
			return false
		}
		seen |= m.bit
		if !s.take(',') {
			return s.take('}') && seen&required == required
		}
	}
}

func (s *bodyScan) list(read valueReader, limit int, into reflect.Value) bool {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		into.Set(reflect.MakeSlice(into.Type(), 0, 0))
		return true
	}
	for n := range limit {
		if n == into.Cap() {
			into.Grow(n + 1)
		}
		into.SetLen(n + 1)
		if !read(s, into.Index(n)) {
			return false
		}
		if !s.take(',') {
			return s.take(']')
		}
	}
	return false
}

// quoted is a string without control characters but line breaks and tabs, which must be escaped.
func (s *bodyScan) quoted() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	begin := s.at
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return s.text[begin : s.at-1], true
		case c == '\\':
			return s.escaped(begin)
		case c < ' ' || c == 0x7f:
			return "", false
		}
	}
	return "", false
}

// escaped is a string that begins at begin and has escapes from here on.
func (s *bodyScan) escaped(begin int) (text string, ok bool) {
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			err := json.Unmarshal([]byte(s.text[begin-1:s.at]), &text)
			return text, err == nil && strings.IndexFunc(text, forbiddenControl) < 0
		}
	}
	return "", false
}

// natural is a number of at most 18 digits.
func (s *bodyScan) natural() (number int64, ok bool) {
	s.space()
	begin := s.at
	for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
		number = number*10 + int64(s.text[s.at]-'0')
		s.at++
	}
	digits := s.at - begin
	return number, digits > 0 && digits <= 18 && (digits == 1 || s.text[begin] != '0')
}

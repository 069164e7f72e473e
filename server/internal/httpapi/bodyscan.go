package httpapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// bodyScan goes through the JSON text of a request body. Its methods answer false where the text is not what they look for.
type bodyScan struct {
	text string
	at   int
	// What optional members point to is allocated by many.
	texts   slab[string]
	numbers slab[int64]
	times   slab[time.Time]
}

// slab allocates variables by many, and by more the more there are.
type slab[T any] struct {
	free []T
	size int
}

func (s *slab[T]) variable() *T {
	if len(s.free) == 0 {
		s.size = min(max(8, 2*s.size), 512)
		s.free = make([]T, s.size)
	}
	v := &s.free[0]
	s.free = s.free[1:]
	return v
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

func (s *bodyScan) object(members []member, required uint64, into reflect.Value) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return required == 0
	}
	next := 0
	for seen := uint64(0); ; {
		name, ok := s.quoted()
		field := memberNamed(name, members, next)
		if !ok || field < 0 || seen&(1<<field) != 0 || !s.take(':') || !members[field].read(s, into.Field(field)) {
			return false
		}
		seen |= 1 << field
		next = field + 1
		if !s.take(',') {
			return s.take('}') && seen&required == required
		}
	}
}

// memberNamed is the place of a member, -1 for an unknown one. Programs write members in the order of the contract, so it is mostly
// the next place or one soon after.
func memberNamed(name string, members []member, next int) int {
	for i := next; i < len(members); i++ {
		if members[i].name == name {
			return i
		}
	}
	for i := range next {
		if members[i].name == name {
			return i
		}
	}
	return -1
}

func (s *bodyScan) list(read valueReader, limit int, into reflect.Value) bool {
	if !s.take('[') {
		return false
	}
	begin := s.at
	if s.take(']') {
		into.Set(reflect.MakeSlice(into.Type(), 0, 0))
		return true
	}
	for n := range limit {
		if n == into.Cap() {
			into.Grow(min(limit, 8*n, s.elementsLeft(begin, n)) + 1)
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

// elementsLeft guesses how many elements the text still holds after n that began at begin.
func (s *bodyScan) elementsLeft(begin, n int) int {
	return (len(s.text) - s.at) * n / (s.at - begin + 1)
}

// quoted is a string without control characters but line breaks and tabs, which must be escaped.
func (s *bodyScan) quoted() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	begin := s.at
	for i := begin; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c >= ' ' && c != '"' && c != '\\' && c != 0x7f:
		case c == '"':
			s.at = i + 1
			return s.text[begin:i], true
		case c == '\\':
			s.at = i
			return s.escaped(begin)
		default:
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

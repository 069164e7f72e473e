package maillog

import (
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// line is a line that is being written, in the format of slog's text or JSON handler.
type line struct {
	json bool
	b    []byte
}

func (w *line) begin(now time.Time, level slog.Level, msg string) {
	w.b = w.b[:0]
	if w.json {
		w.b = append(w.b, '{')
	}
	w.time(slog.TimeKey, now)
	w.text(slog.LevelKey, level.String())
	w.text(slog.MessageKey, msg)
}

func (w *line) end() []byte {
	if w.json {
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, '\n')
	return w.b
}

func (w *line) key(key string) {
	if !w.json {
		if len(w.b) > 0 {
			w.b = append(w.b, ' ')
		}
		w.b = append(append(w.b, key...), '=')
		return
	}
	if len(w.b) > 1 {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), key...), `":`...)
}

// text adds a value that comes from anywhere; an empty one is left out.
func (w *line) text(key, value string) {
	if value == "" {
		return
	}
	printable, plain := look(value)
	if !printable || len(value) > maxValueBytes {
		value = Clean(value)
		_, plain = look(value)
	}
	w.key(key)
	switch {
	case w.json:
		w.b = append(appendQuotable(append(w.b, '"'), value), '"')
	case plain:
		w.b = append(w.b, value...)
	default:
		w.b = strconv.AppendQuote(w.b, value)
	}
}

// address adds an address without going over a string.
func (w *line) address(key string, value netip.Addr) {
	if value.Zone() != "" {
		w.text(key, value.String())
		return
	}
	w.key(key)
	if w.json {
		w.b = append(value.AppendTo(append(w.b, '"')), '"')
		return
	}
	w.b = value.AppendTo(w.b)
}

// look says in one pass of most texts that they are printable ASCII, and of all whether they need no quotes.
func look(s string) (printable, plain bool) {
	printable, plain = true, true
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ' || c == '=' || c == '"':
			plain = false
		case c < ' ' || c > '~':
			printable = false
		}
	}
	return printable, plain
}

// appendQuotable appends a clean text for between quotes.
func appendQuotable(b []byte, clean string) []byte {
	for i := range len(clean) {
		if clean[i] == '"' || clean[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, clean[i])
	}
	return b
}

func (w *line) number(key string, value int64) {
	w.key(key)
	w.b = strconv.AppendInt(w.b, value, 10)
}

func (w *line) duration(key string, value time.Duration) {
	w.key(key)
	if w.json {
		w.b = strconv.AppendInt(w.b, int64(value), 10)
		return
	}
	w.b = append(w.b, value.String()...)
}

func (w *line) time(key string, value time.Time) {
	w.key(key)
	if w.json {
		w.b = append(value.AppendFormat(append(w.b, '"'), time.RFC3339Nano), '"')
		return
	}
	// To the millisecond, as slog does: one digit more than is wanted, so that none is dropped as a zero at the end.
	end := len(w.b) + len("2006-01-02T15:04:05.000")
	w.b = value.Truncate(time.Millisecond).Add(time.Millisecond/10).AppendFormat(w.b, time.RFC3339Nano)
	w.b = append(w.b[:end], w.b[end+1:]...)
}

func (w *line) cause(err error) {
	if err != nil {
		w.text(KeyError, err.Error())
	}
}

// Clean makes a stranger's text fit for a log: what cannot be printed, or
// changes how the rest is shown, becomes "?", and the length is bounded.
func Clean(s string) string {
	if len(s) > maxValueBytes {
		s = s[:maxValueBytes]
	}
	if printable, _ := look(s); printable {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == ' ' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

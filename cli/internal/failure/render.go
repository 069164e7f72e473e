package failure

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Render writes the error for a person: what happened on the first line, then
// one indented line for each thing that helps to mend or report it.
func Render(w io.Writer, program string, err error) {
	var known *Error
	if !errors.As(err, &known) {
		fmt.Fprintf(w, "%s: %s\n", program, Printable(err.Error()))
		return
	}
	fmt.Fprintf(w, "%s: %s\n", program, Printable(known.Error()))
	for _, f := range known.Fields {
		renderField(w, f)
	}
	line(w, "reason", known.Reason)
	line(w, "reference", known.Reference)
	line(w, "request", known.RequestID)
	line(w, "try", known.Next)
}

func renderField(w io.Writer, f Field) {
	name := f.Pointer
	switch {
	case name == "" && f.Flag != "":
		name = "--" + f.Flag
	case f.Flag != "":
		name += " (--" + f.Flag + ")"
	}
	message := f.Message
	if f.Rule != "" {
		message += " [" + f.Rule + "]"
	}
	if name != "" { // else it is about all of the request
		name += ": "
	}
	line(w, "field", name+strings.TrimSpace(message))
	line(w, "choices", strings.Join(f.Choices, ", "))
}

func line(w io.Writer, label, value string) {
	if value != "" {
		fmt.Fprintf(w, "  %-10s %s\n", label, Printable(value))
	}
}

// Printable replaces control characters, so that text which a server or a file
// supplied cannot move the cursor, change colours or forge a line.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < 0x20, r >= 0x7f && r <= 0x9f, r == 0x2028, r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '\uFFFD'
		default:
			return r
		}
	}, text)
}

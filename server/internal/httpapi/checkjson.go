package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"activerelay/api/problem"
)

// maxJSONDepth is how deeply a request body may nest; the contract needs six.
const maxJSONDepth = 64

// checkJSON refuses bodies that are not one JSON value in UTF-8, nest too deeply, or name a member twice: two parsers
// could take two different values from the last, and Go's takes either case for the same name.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return problem.Malformed("The request body is not valid UTF-8")
	}
	if depth(body) > maxJSONDepth {
		return problem.Malformed("The request body nests too deeply")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := walkJSON(decoder, ""); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return problem.Malformed("The request body holds more than one JSON value")
	}
	return nil
}

// depth counts brackets outside strings; it bounds the recursion of every parser that follows.
func depth(body []byte) int {
	deepest, current, quoted, escaped := 0, 0, false, false
	for _, b := range body {
		switch {
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{', b == '[':
			current++
			deepest = max(deepest, current)
		case b == '}', b == ']':
			current--
		}
	}
	return deepest
}

// walkJSON reads one value and refuses members that are named twice.
func walkJSON(decoder *json.Decoder, pointer string) error {
	token, err := decoder.Token()
	if err != nil {
		return problem.Malformed("The request body is not valid JSON")
	}
	switch token {
	case json.Delim('['):
		for decoder.More() {
			if err := walkJSON(decoder, pointer+"/-"); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		if err := walkMembers(decoder, pointer); err != nil {
			return err
		}
	default:
		if text, ok := token.(string); ok {
			return checkText(pointer, text)
		}
		return nil
	}
	if _, err := decoder.Token(); err != nil { // the closing bracket
		return problem.Malformed("The request body is not valid JSON")
	}
	return nil
}

func walkMembers(decoder *json.Decoder, pointer string) error {
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return problem.Malformed("The request body is not valid JSON")
		}
		member := pointer + "/" + escapePointer([]string{name})[0]
		if seen[name] {
			return problem.Malformed("", problem.InvalidField{Pointer: member, Rule: "duplicate", Message: "is named twice"})
		}
		seen[name] = true
		if err := walkJSON(decoder, member); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses control characters: they have no business in names and reasons, forge lines in logs and mails, and
// PostgreSQL does not store NUL.
func checkText(pointer, text string) error {
	if !utf8.ValidString(text) {
		return problem.Malformed("", problem.InvalidField{Pointer: pointer, Rule: "utf-8", Message: "is not valid UTF-8"})
	}
	if i := strings.IndexFunc(text, forbiddenControl); i >= 0 {
		return invalid(pointer, "characters", "must not contain control characters")
	}
	return nil
}

func forbiddenControl(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f
}

// checkLine refuses line breaks and tabs too: a key or filter is one line.
func checkLine(pointer, text string) error {
	if strings.ContainsAny(text, "\n\r\t") {
		return invalid(pointer, "characters", "must not contain control characters")
	}
	return checkText(pointer, text)
}

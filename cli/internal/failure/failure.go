// Package failure is what relayctl says when something went wrong: one error
// type, one exit code for each class of trouble, and one rendering.
//
// Every package of the command line returns *Error for what a person can do
// something about (a wrong flag, a refused request, a server that is away) and
// plain errors for the rest, which count as Failure. It knows nothing of HTTP
// or of the flags.
package failure

import (
	"context"
	"errors"
	"fmt"
)

// Code is an exit code of the program. Scripts rely on the numbers.
type Code int

// The exit codes, documented by Codes.
const (
	OK          Code = 0
	Failed      Code = 1
	Usage       Code = 2
	NotFound    Code = 3
	Auth        Code = 4
	Conflict    Code = 5
	Limit       Code = 6
	Unavailable Code = 7
	Pending     Code = 8
	Interrupted Code = 130
)

// Meaning explains one exit code.
type Meaning struct {
	Code Code
	Text string
}

// Codes lists every exit code with its meaning, for help and README.
func Codes() []Meaning {
	return []Meaning{
		{OK, "the command did what it says"},
		{Failed, "it failed in a way that no other code names; of apply, domain import and what --wait waits for: a part failed, the rest is done"},
		{Usage, "the command line, a file given to it or a value in it is wrong; nothing was changed"},
		{NotFound, "the object does not exist, or is not yours to see"},
		{Auth, "no token, a token that is not valid, or one without the right"},
		{Conflict, "the object is not in the state that the request needs, or was changed meanwhile"},
		{Limit, "a relay limit, a quota or a rate limit is reached"},
		{Unavailable, "the server cannot be reached or cannot answer now; try again later"},
		{Pending, "accepted, but not finished when the waiting time was over, or when the server could no longer be asked about it"},
		{Interrupted, "interrupted (Ctrl-C)"},
	}
}

// Error is a failure in the words of the person who typed the command.
type Error struct {
	Code Code
	// Title says what happened, in a few words; Detail says it with the
	// values at hand. Either may be empty, not both.
	Title  string
	Detail string
	// Fields are the values that were refused.
	Fields []Field
	// Reason is the slug of the server's reason registry.
	Reason string
	// RequestID and Reference find the request in the server's logs.
	RequestID string
	Reference string
	// Next is a command that helps, or empty.
	Next string
	// Cause is kept for errors.Is; it is not shown.
	Cause error
}

// Field is one refused value.
type Field struct {
	// Pointer is the JSON pointer into the body, or the parameter's name.
	Pointer string
	// Flag is the flag that sets it, without dashes, or empty.
	Flag    string
	Rule    string
	Message string
	Choices []string
}

// Error returns title and detail on one line.
func (e *Error) Error() string {
	switch {
	case e.Title == "":
		return e.Detail
	case e.Detail == "":
		return e.Title
	default:
		return e.Title + ": " + e.Detail
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Usagef returns a usage error: nothing was sent.
func Usagef(format string, args ...any) *Error {
	return &Error{Code: Usage, Detail: fmt.Sprintf(format, args...)}
}

// CodeOf returns the exit code of an error; nil is OK.
func CodeOf(err error) Code {
	var known *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &known):
		return known.Code
	case errors.Is(err, context.Canceled):
		return Interrupted
	default:
		return Failed
	}
}

// Package scan asks content scanners about a message before it is accepted.
//
// Every message is scanned for malware. The package fails closed: "clean" is
// only what a scanner said after it had seen every byte. A scanner that is
// down, hangs, answers rubbish, finds the message too big, or is not configured
// at all gives an error, which the caller answers with a deferral. Nothing in
// here turns an error into a verdict.
//
// A [Chain] asks scanners one after the other and stops at the first that
// objects or cannot answer. [Clamd] speaks clamd's INSTREAM protocol.
//
// The package knows neither SMTP nor policy: which reply a verdict gets, and
// whether the platform lifts the rule where no scanner is configured, is
// decided by the caller.
package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrUnavailable is in the chain of every error of a scan: there is no
	// verdict, and the message must not pass.
	ErrUnavailable = errors.New("content scanner unavailable")
	// ErrTooBig means that the scanner refuses messages of this size. It comes
	// with ErrUnavailable, because too big to scan is not clean, but says
	// nothing about the scanner's health.
	ErrTooBig = errors.New("message is too big for the scanner")
	// ErrNoScanner means that none is configured. It comes with ErrUnavailable.
	ErrNoScanner = errors.New("no content scanner is configured")
)

// errNone is said for every message of an edge without a scanner.
var errNone = fmt.Errorf("scan: %w: %w", ErrUnavailable, ErrNoScanner)

// Scanner examines one message. The rules:
//
//  1. Scan is called from many goroutines at once.
//  2. It reads the message through Message.Open, as often as it needs, changes
//     nothing, and keeps neither reader nor bytes when it returns.
//  3. A nil error means that every byte was examined. Whatever leaves a doubt
//     (size, time, a broken connection, an answer that is not understood) is an
//     error with ErrUnavailable in its chain.
//  4. It bounds its own time and memory, and gives up soon when ctx ends.
//  5. Text of the error is for the operator's log, never for the sender.
//  6. Name is a constant: it labels metrics and logs.
type Scanner interface {
	Name() string
	Scan(ctx context.Context, m Message) (Verdict, error)
}

// Message is what a scanner gets to see.
type Message struct {
	// ID names the message in logs.
	ID string
	// SizeBytes is how much Open gives.
	SizeBytes int64
	// Open returns an independent reader from the first byte.
	Open func() io.Reader
}

// Outcome is what a scanner says of a message. The zero value is no verdict.
type Outcome uint8

// The outcomes.
const (
	Undecided Outcome = iota
	Clean
	Malware
)

// String returns the word used in logs and metrics.
func (o Outcome) String() string {
	switch o {
	case Clean:
		return "clean"
	case Malware:
		return "malware"
	default:
		return "undecided"
	}
}

// Verdict is the answer about one message.
type Verdict struct {
	Outcome Outcome
	// Signature is the scanner's name for what it found; empty when clean. It
	// is the scanner's text: make it safe before writing it anywhere.
	Signature string
	// Scanner is the name of the scanner that decided; empty when clean.
	Scanner string
}

// Chain asks scanners in order. It is itself a Scanner; the empty one has no
// verdict to give and answers ErrNoScanner.
type Chain []Scanner

var _ Scanner = Chain(nil)

// Name implements Scanner.
func (c Chain) Name() string { return "chain" }

// Scan implements Scanner.
func (c Chain) Scan(ctx context.Context, m Message) (Verdict, error) {
	if len(c) == 0 {
		return Verdict{}, errNone
	}
	for _, s := range c {
		v, err := s.Scan(ctx, m)
		if err != nil {
			return Verdict{}, unavailable(s.Name(), err)
		}
		switch v.Outcome {
		case Clean:
			continue
		case Malware:
			v.Scanner = s.Name()
			return v, nil
		default:
			return Verdict{}, unavailable(s.Name(), errors.New("scanner gave neither verdict nor error"))
		}
	}
	return Verdict{Outcome: Clean}, nil
}

// unavailable makes sure of rule 3, whoever wrote the scanner.
func unavailable(name string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w: %w", name, ErrUnavailable, err)
}

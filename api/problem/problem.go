// Package problem is the error vocabulary of the HTTP API: RFC 9457 problems
// whose type is a reason of package reason.
//
// A [Problem] is an ordinary Go error that carries only what the client may
// read. Handlers return one by a constructor, the control plane's one error
// switch encodes it, and the clients decode the same type, so that relayctl can
// show field, rule and reference without knowing the operation. Anything that
// is not a Problem is answered as [reason.Internal] with no detail; the cause
// belongs in the log, never here.
package problem

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"strings"
	"time"

	"activerelay/api/reason"
)

// ContentType is the media type of an encoded problem.
const ContentType = "application/problem+json"

// TypePrefix stands before the slug in a problem's type.
const TypePrefix = "urn:activerelay:reason:"

// maxBodyBytes is the longest problem that is decoded.
const maxBodyBytes = 1 << 20

// Problem is one refused or failed request.
type Problem struct {
	// Status is the HTTP status. 0 means the status of the reason.
	Status int
	Reason reason.Slug
	Title  string
	// Detail is one plain sentence about this occurrence.
	Detail string
	// RequestID is what to quote to support. The server's error switch sets it.
	RequestID string
	// Errors are the invalid fields, in the order of the document.
	Errors []InvalidField
	// RetryAfter is when a retry may help; it goes out as whole seconds, rounded
	// up. 0 means nothing is known.
	RetryAfter time.Duration
}

// InvalidField is one field that breaks a rule.
type InvalidField struct {
	// Pointer is a JSON pointer into the body, or query/NAME, path/NAME,
	// header/NAME.
	Pointer string `json:"pointer"`
	// Rule is the rule that it breaks, e.g. "maximum" or "enum".
	Rule    string `json:"rule"`
	Message string `json:"message"`
	// Choices is what is allowed, where that is a list.
	Choices []string `json:"choices,omitempty"`
}

// New returns the problem of a reason. An empty detail means the sentence of
// the registry. A slug that is no problem type becomes [reason.Internal], so
// that a mistake of ours is never shown as one of the client's.
func New(slug reason.Slug, detail string) *Problem {
	r, ok := reason.Lookup(slug)
	if !ok || r.HTTPStatus == 0 {
		r, _ = reason.Lookup(reason.Internal)
		detail = ""
	}
	if detail == "" {
		detail = r.Text(reason.Args{})
	}
	return &Problem{Status: r.HTTPStatus, Reason: r.Slug, Title: r.Title, Detail: detail}
}

// Error returns the title, the detail and the fields, for people.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	for i, field := range p.Errors {
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		fmt.Fprintf(&b, "%s%s %s", separator, field.Pointer, field.Message)
	}
	return b.String()
}

// Is makes errors.Is true for a problem of the same reason, so that callers
// may test against a constructor's result.
func (p *Problem) Is(target error) bool {
	other, ok := target.(*Problem)
	return ok && other.Reason == p.Reason
}

// With returns a copy of p with the fields appended.
func (p *Problem) With(fields ...InvalidField) *Problem {
	q := *p
	q.Errors = append(append([]InvalidField(nil), p.Errors...), fields...)
	return &q
}

// After returns a copy of p that says when a retry may help.
func (p *Problem) After(d time.Duration) *Problem {
	q := *p
	q.RetryAfter = d
	return &q
}

// Exit returns the exit code with which relayctl ends on p.
func (p *Problem) Exit() reason.Exit {
	if r, ok := reason.Lookup(p.Reason); ok {
		return r.Exit
	}
	return exitOfStatus(p.Status)
}

// exitOfStatus serves reasons that a newer server knows and we do not.
func exitOfStatus(status int) reason.Exit {
	switch {
	case status == 401 || status == 403:
		return reason.ExitAuth
	case status == 404:
		return reason.ExitNotFound
	case status == 409 || status == 410 || status == 412 || status == 428:
		return reason.ExitConflict
	case status == 429:
		return reason.ExitLimit
	case status == 502 || status == 503 || status == 504:
		return reason.ExitUnavailable
	case status >= 400 && status < 500:
		return reason.ExitUsage
	}
	return reason.ExitFailure
}

// document is the wire form, the schema Problem of the contract.
type document struct {
	Type              string         `json:"type"`
	Title             string         `json:"title"`
	Status            int            `json:"status"`
	Detail            string         `json:"detail,omitempty"`
	Reason            reason.Slug    `json:"reason"`
	RequestID         string         `json:"request_id"`
	Errors            []InvalidField `json:"errors,omitempty"`
	RetryAfterSeconds int64          `json:"retry_after_seconds,omitempty"`
}

// MarshalJSON writes the wire form.
func (p *Problem) MarshalJSON() ([]byte, error) {
	return json.Marshal(document{
		Type: TypePrefix + string(p.Reason), Title: p.Title, Status: p.Status, Detail: p.Detail,
		Reason: p.Reason, RequestID: p.RequestID, Errors: p.Errors,
		RetryAfterSeconds: p.RetryAfterSeconds(),
	})
}

// UnmarshalJSON reads the wire form. Members that it does not know are ignored
// (RFC 9457 3.2); a missing reason is taken from the type.
func (p *Problem) UnmarshalJSON(data []byte) error {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("decode problem: %w", err)
	}
	if d.Reason == "" {
		d.Reason = reason.Slug(strings.TrimPrefix(d.Type, TypePrefix))
	}
	*p = Problem{
		Status: d.Status, Reason: d.Reason, Title: d.Title, Detail: d.Detail,
		RequestID: d.RequestID, Errors: d.Errors,
		RetryAfter: time.Duration(d.RetryAfterSeconds) * time.Second,
	}
	return nil
}

// RetryAfterSeconds is the value of the Retry-After header, rounded up; 0
// means that there is none.
func (p *Problem) RetryAfterSeconds() int64 {
	return int64((p.RetryAfter + time.Second - 1) / time.Second)
}

// Encode writes p as JSON with a final line end.
func Encode(w io.Writer, p *Problem) error {
	if err := json.NewEncoder(w).Encode(p); err != nil {
		return fmt.Errorf("encode problem: %w", err)
	}
	return nil
}

// Decode reads the body of a response that is not a success. What is not a
// problem document, as from a proxy in between, becomes a problem that says so;
// the error result is never nil.
func Decode(status int, contentType string, body io.Reader) *Problem {
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == ContentType {
		var p Problem
		if err := json.NewDecoder(io.LimitReader(body, maxBodyBytes)).Decode(&p); err == nil && p.Reason != "" {
			p.Status = status
			return &p
		}
	}
	return foreign(status)
}

func foreign(status int) *Problem {
	p := New(reasonOfStatus(status), fmt.Sprintf("the answer with status %d is not from the control plane", status))
	p.Status = status
	return p
}

func reasonOfStatus(status int) reason.Slug {
	switch status {
	case statusUnprocessable: // not a complaint, whatever the table finds first
		return reason.InvalidRequest
	case 502, 504: // a proxy that does not reach the control plane
		return reason.Unavailable
	}
	for _, r := range reason.All() {
		if r.HTTPStatus == status {
			return r.Slug
		}
	}
	return reason.Internal
}

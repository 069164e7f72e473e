package problem

import (
	"fmt"
	"time"

	"activerelay/api/reason"
)

// statusUnprocessable is RFC 9110 15.5.21: understood, but against a rule.
const statusUnprocessable = 422

// Invalid is a request that can be read and whose fields break rules of the
// contract: 422, unlike [Malformed].
func Invalid(fields ...InvalidField) *Problem {
	p := New(reason.InvalidRequest, "").With(fields...)
	p.Status = statusUnprocessable
	return p
}

// Malformed is a request that cannot be read at all, or a parameter that does
// not parse: 400.
func Malformed(detail string, fields ...InvalidField) *Problem {
	return New(reason.InvalidRequest, detail).With(fields...)
}

// NotFound is an object that does not exist or may not be seen: both give the
// same bytes, so it takes the kind of the object and never its key.
func NotFound(kind string) *Problem {
	return New(reason.NotFound, fmt.Sprintf("There is no such %s", kind))
}

// Unauthenticated is a missing, unknown, expired or revoked token.
func Unauthenticated() *Problem { return New(reason.Unauthenticated, "") }

// Forbidden is a good token without the right.
func Forbidden(detail string) *Problem { return New(reason.Forbidden, detail) }

// Conflict is a request that does not fit the state of the object.
func Conflict(detail string) *Problem { return New(reason.Conflict, detail) }

// DomainUnavailable is a domain that another partner may hold.
func DomainUnavailable() *Problem { return New(reason.DomainUnavailable, "") }

// ComplaintUnresolved is a complaint that names no message of ours.
func ComplaintUnresolved(detail string) *Problem { return New(reason.ComplaintUnresolved, detail) }

// IdempotencyConflict is a key used with another request.
func IdempotencyConflict() *Problem { return New(reason.IdempotencyConflict, "") }

// IdempotencyInProgress is a key whose first request still runs.
func IdempotencyInProgress() *Problem {
	return New(reason.IdempotencyInProgress, "").After(time.Second)
}

// PreconditionFailed is an If-Match that no longer holds.
func PreconditionFailed() *Problem { return New(reason.PreconditionFailed, "") }

// PreconditionRequired is an operation that insists on If-Match.
func PreconditionRequired() *Problem { return New(reason.PreconditionRequired, "") }

// BodyTooLarge is a request body over the limit, in bytes.
func BodyTooLarge(limitBytes int64) *Problem {
	r, _ := reason.Lookup(reason.BodyTooLarge)
	return New(r.Slug, r.Text(reason.Args{Limit: limitBytes}))
}

// UnsupportedMediaType is a request body of a kind that the operation does not
// take.
func UnsupportedMediaType(choices ...string) *Problem {
	return New(reason.UnsupportedMediaType, "").With(InvalidField{
		Pointer: "header/Content-Type", Rule: "enum", Message: "is not a media type of this operation", Choices: choices,
	})
}

// NotAcceptable is an Accept header that nothing fits.
func NotAcceptable() *Problem { return New(reason.NotAcceptable, "") }

// MethodNotAllowed is a method that the path does not know.
func MethodNotAllowed() *Problem { return New(reason.MethodNotAllowed, "") }

// RateLimited is a client that is too fast.
func RateLimited(wait time.Duration) *Problem { return New(reason.RateLimited, "").After(wait) }

// Unavailable is trouble of ours that passes.
func Unavailable(wait time.Duration) *Problem { return New(reason.Unavailable, "").After(wait) }

// PolicyGone is a point of the policy history that is no longer kept, or that
// belongs to another epoch.
func PolicyGone() *Problem { return New(reason.PolicyGone, "") }

// EdgeFenced is an edge that was copied or set back.
func EdgeFenced(detail string) *Problem { return New(reason.EdgeFenced, detail) }

// Internal is a mistake of ours. It carries no detail on purpose.
func Internal() *Problem { return New(reason.Internal, "") }

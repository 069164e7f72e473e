package invoke

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"activerelay/api/reason"
)

const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// retry says whether an attempt that ended with err may be made again, and
// after how long. The rules are in the package comment.
func retry(call Call, attempt int, err error) (time.Duration, bool) {
	var refused *Refusal
	var broken *transportError
	switch {
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return 0, false // it will be the same one
	case errors.As(err, &refused):
		return max(refused.RetryAfter, backoff(attempt)), refused.busy()
	case errors.As(err, &broken):
		return backoff(attempt), broken.unsent() || repeatable(call)
	default:
		return 0, false
	}
}

// busy: the server says that it did nothing and that a later attempt may fare
// better.
func (r *Refusal) busy() bool {
	switch r.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	case http.StatusConflict:
		return r.shown.Reason == string(reason.IdempotencyInProgress)
	default:
		return false
	}
}

// repeatable: executing the request twice changes no more than once.
func repeatable(call Call) bool {
	switch call.Op.Method {
	case http.MethodGet, http.MethodHead:
		return true
	case http.MethodPost:
		return len(call.Params[idempotencyKey]) > 0
	case http.MethodPut:
		return len(call.Params["If-Match"]) == 0
	default:
		return false
	}
}

// backoff doubles from half a second, less up to a half, so that many clients
// that failed together do not come back together.
func backoff(attempt int) time.Duration {
	full := min(firstBackoff<<min(attempt, 10), maxBackoff)
	return full - rand.N(full/2)
}

// retryAfter reads RFC 9110 10.2.3: seconds, or a date.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

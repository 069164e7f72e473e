package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/server/internal/store"
)

// busyRetry is when a client may try again what the database could not do now.
const busyRetry = time.Second

// toProblem is the one switch from an error to what the client is told. It reports whether the error is a mistake or a
// trouble of ours, whose cause belongs in the log.
func toProblem(err error) (told *problem.Problem, ours bool) {
	var known *problem.Problem
	var conflict *store.ErrConflict
	var fromEcho *echo.HTTPError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known, false
	case errors.Is(err, store.ErrNotFound):
		return problem.NotFound("object"), false
	case store.IsConflict(err, store.VersionConstraint):
		return problem.PreconditionFailed(), false
	case errors.As(err, &conflict):
		return problem.Conflict(""), false
	case errors.Is(err, store.ErrBusy):
		return problem.Unavailable(busyRetry), true
	case errors.As(err, &tooLarge):
		return problem.BodyTooLarge(tooLarge.Limit), false
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem.Unavailable(busyRetry), true
	case errors.As(err, &fromEcho):
		return echoProblem(fromEcho)
	default:
		return problem.Internal(), true
	}
}

// echoProblem translates what echo's router and the generated glue say.
func echoProblem(err *echo.HTTPError) (*problem.Problem, bool) {
	switch err.Code {
	case http.StatusNotFound:
		return problem.NotFound("path"), false
	case http.StatusMethodNotAllowed:
		return problem.MethodNotAllowed(), false
	case http.StatusUnsupportedMediaType:
		return problem.UnsupportedMediaType(), false
	case http.StatusRequestEntityTooLarge:
		return problem.BodyTooLarge(MaxBodyBytes), false
	case http.StatusBadRequest:
		// The validator has refused what does not parse; what is left are repeated headers and the like.
		return problem.Malformed(""), false
	default:
		return problem.Internal(), true
	}
}

// HandleError is echo's error handler: every error of a request ends here.
func (a *API) HandleError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	ctx := c.Request().Context()
	told, ours := toProblem(err)
	if ours && told.Reason == reason.Internal || ours && ctx.Err() == nil {
		a.Log.ErrorContext(ctx, "request failed", slog.String("request_id", callFrom(ctx).requestID),
			slog.String("operation", operationID(ctx)), slog.Any("error", err))
	}
	if err := writeProblem(c, told); err != nil {
		a.Log.DebugContext(ctx, "problem not sent", slog.Any("error", err))
	}
}

func writeProblem(c echo.Context, p *problem.Problem) error {
	sent := *p
	sent.RequestID = callFrom(c.Request().Context()).requestID
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, problem.ContentType)
	header.Del("ETag")
	if sent.RetryAfter > 0 {
		header.Set("Retry-After", strconv.FormatInt(int64((sent.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if sent.Reason == reason.Unauthenticated {
		header.Set("WWW-Authenticate", `Bearer realm="activerelay"`)
	}
	c.Response().WriteHeader(sent.Status)
	return problem.Encode(c.Response(), &sent)
}

// notFound says that there is no such object of a kind, e.g. "domain", where err says that a row was not found. Absent
// and foreign objects get the same words.
func notFound(err error, kind string) error {
	if errors.Is(err, store.ErrNotFound) {
		return problem.NotFound(kind)
	}
	return err
}

// invalid is one field of the request that breaks a rule which the contract cannot state. A pointer into the body,
// "/time_zone", gives 422; "path/NAME", "query/NAME" and "header/NAME" give 400.
func invalid(pointer, rule, message string, choices ...string) error {
	field := problem.InvalidField{Pointer: pointer, Rule: rule, Message: message, Choices: choices}
	if pointer != "" && pointer[0] != '/' {
		return problem.Malformed("", field)
	}
	return problem.Invalid(field)
}

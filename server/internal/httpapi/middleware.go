package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/api/rest"
)

// Limits of one request, in bytes.
const (
	MaxBodyBytes   = 1 << 20
	MaxHeaderBytes = 32 << 10
	MaxURIBytes    = 8 << 10
)

// Recover turns a panic into a 500 that says nothing and a log line that says all.
func (a *API) Recover(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if cause := recover(); cause != nil {
				if cause == http.ErrAbortHandler { // net/http's own way to break off
					panic(cause)
				}
				a.metrics.panics.Inc()
				err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
		}()
		return next(c)
	}
}

// requestIDPattern is what is taken over from a client; anything else is replaced, so that logs stay readable.
var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._~:-]{1,64}$`)

// Name gives each request its id and finds its operation.
func (a *API) Name(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if !requestIDPattern.MatchString(id) {
			id = newULID(a.Now()).String()
		}
		found := &call{requestID: id, operation: a.contract.byRoute[c.Request().Method+" "+c.Path()]}
		c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), callKey{}, found)))
		c.Response().Header().Set(echo.HeaderXRequestID, id)
		// Tokens and secrets pass here: nothing may be kept on the way, and nothing may be guessed from a type.
		c.Response().Header().Set("Cache-Control", "no-store")
		c.Response().Header().Set("X-Content-Type-Options", "nosniff")
		return next(c)
	}
}

// Log writes one line for each request and counts it. Paths, queries and headers are left out: they may hold secrets.
func (a *API) AccessLog(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		begin := time.Now()
		if err := next(c); err != nil {
			c.Error(err) // written here, so that the line knows its status
		}
		ctx := c.Request().Context()
		operation := operationID(ctx)
		if operation == "" {
			operation = "none"
		}
		status, took := c.Response().Status, time.Since(begin)
		a.metrics.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
		a.metrics.seconds.WithLabelValues(operation).Observe(took.Seconds())
		a.Log.LogAttrs(ctx, slog.LevelInfo, "request",
			slog.String("request_id", callFrom(ctx).requestID), slog.String("operation", operation),
			slog.Int("status", status), slog.Duration("took", took), slog.Int64("bytes", c.Response().Size),
			slog.String("client", c.RealIP()), slog.String("token", PrincipalFrom(ctx).TokenID))
		return nil
	}
}

// Limit refuses what is too large before anything looks at it, and reads the body whole within BodyTimeout, so that a
// client that sends one byte a second holds a connection and nothing else.
func (a *API) Limit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		request := c.Request()
		switch {
		case len(request.RequestURI) > MaxURIBytes:
			return problem.New(reason.URITooLong, "")
		case headerBytes(request.Header) > MaxHeaderBytes:
			return problem.New(reason.HeaderTooLarge, "")
		case request.ContentLength > MaxBodyBytes:
			c.Response().Header().Set("Connection", "close") // rather than read it all
			return problem.BodyTooLarge(MaxBodyBytes)
		}
		if request.Body == nil || request.Body == http.NoBody {
			return next(c)
		}
		body, err := a.readBody(c)
		if err != nil {
			return err
		}
		request.Body, request.ContentLength = newWholeBody(body), int64(len(body))
		return next(c)
	}
}

// wholeBody is a request body that is in memory.
type wholeBody struct {
	*bytes.Reader
	content []byte
}

func newWholeBody(content []byte) *wholeBody {
	return &wholeBody{Reader: bytes.NewReader(content), content: content}
}

// Close implements io.Closer.
func (*wholeBody) Close() error { return nil }

func headerBytes(header http.Header) int {
	total := 0
	for name, values := range header {
		for _, value := range values {
			total += len(name) + len(value) + 4
		}
	}
	return total
}

func (a *API) readBody(c echo.Context) ([]byte, error) {
	control := http.NewResponseController(c.Response())
	// A recorder in a test has no connection and no deadline; every server connection has.
	if err := control.SetReadDeadline(time.Now().Add(a.BodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("deadline of the body: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, MaxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem.BodyTooLarge(MaxBodyBytes)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.Response().Header().Set("Connection", "close")
		return nil, problem.New(reason.RequestTimeout, "")
	case err != nil:
		return nil, problem.Malformed("The request body broke off")
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("deadline of the body: %w", err)
	}
	return body, nil
}

// Handlers returns the generated glue around the operations.
func (a *API) Handlers() rest.ServerInterface {
	return rest.NewStrictHandler(a, []rest.StrictMiddlewareFunc{sendReplay})
}

// sendReplay writes a kept result in the place of a response.
func sendReplay(next rest.StrictHandlerFunc, _ string) rest.StrictHandlerFunc {
	return func(c echo.Context, request any) (any, error) {
		response, err := next(c, request)
		if again, ok := asReplay(err); ok {
			return nil, again.write(c.Response())
		}
		return response, err
	}
}

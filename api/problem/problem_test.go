package problem

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/reason"
)

func TestAProblemSurvivesTheWire(t *testing.T) {
	sent := Invalid(
		InvalidField{Pointer: "/licensed_users", Rule: "minimum", Message: "must be at least 0"},
		InvalidField{Pointer: "query/status", Rule: "enum", Message: "is not one of the choices", Choices: []string{"active", "suspended"}},
	).After(1500 * time.Millisecond)
	sent.RequestID = "01KAQ7M2Z8Y3F6N5T4R1W0X9VB"
	var wire bytes.Buffer
	if err := Encode(&wire, sent); err != nil {
		t.Fatal(err)
	}
	want := `{"type":"urn:activerelay:reason:invalid-request","title":"Invalid request","status":422,` +
		`"detail":"The request breaks a rule of the contract","reason":"invalid-request",` +
		`"request_id":"01KAQ7M2Z8Y3F6N5T4R1W0X9VB","errors":[` +
		`{"pointer":"/licensed_users","rule":"minimum","message":"must be at least 0"},` +
		`{"pointer":"query/status","rule":"enum","message":"is not one of the choices","choices":["active","suspended"]}],` +
		`"retry_after_seconds":2}` + "\n"
	if diff := cmp.Diff(want, wire.String()); diff != "" {
		t.Fatalf("wire form (-want +got):\n%s", diff)
	}
	got := Decode(422, ContentType+"; charset=utf-8", &wire)
	sent.RetryAfter = 2 * time.Second
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Fatalf("decoded (-sent +got):\n%s", diff)
	}
}

func TestEveryConstructorHasTheStatusOfItsReason(t *testing.T) {
	cases := []struct {
		got    *Problem
		status int
	}{
		{got: Invalid(), status: 422},
		{got: Malformed("the body is not JSON"), status: 400},
		{got: Unauthenticated(), status: 401},
		{got: Forbidden("needs the scope domains:write"), status: 403},
		{got: NotFound("domain"), status: 404},
		{got: MethodNotAllowed(), status: 405},
		{got: NotAcceptable(), status: 406},
		{got: Conflict("the relay IP is rejected"), status: 409},
		{got: DomainUnavailable(), status: 409},
		{got: IdempotencyConflict(), status: 409},
		{got: IdempotencyInProgress(), status: 409},
		{got: EdgeFenced("counters went backwards"), status: 409},
		{got: PolicyGone(), status: 410},
		{got: PreconditionFailed(), status: 412},
		{got: BodyTooLarge(1 << 20), status: 413},
		{got: UnsupportedMediaType("application/json"), status: 415},
		{got: ComplaintUnresolved(""), status: 422},
		{got: PreconditionRequired(), status: 428},
		{got: RateLimited(time.Second), status: 429},
		{got: Internal(), status: 500},
		{got: Unavailable(time.Second), status: 503},
	}
	for _, c := range cases {
		if c.got.Status != c.status || c.got.Detail == "" || c.got.Title == "" {
			t.Errorf("%s: %+v, want status %d", c.got.Reason, c.got, c.status)
		}
	}
}

func TestNoReasonOfTheMailPathIsShownAsAProblemOfTheClient(t *testing.T) {
	for _, slug := range []reason.Slug{reason.Malware, "no-such-reason"} {
		if got := New(slug, "secret detail"); got.Reason != reason.Internal || strings.Contains(got.Detail, "secret") {
			t.Errorf("New(%s) = %+v", slug, got)
		}
	}
}

func TestAProblemIsKnownByItsReasonHoweverItIsWrapped(t *testing.T) {
	wrapped := fmt.Errorf("handler: %w", NotFound("domain"))
	if !errors.Is(wrapped, NotFound("partner")) || errors.Is(wrapped, New(reason.Internal, "")) {
		t.Errorf("%v is taken for another", wrapped)
	}
}

func TestAnAnswerThatIsNoProblemIsReadByItsStatus(t *testing.T) {
	cases := []struct {
		name, contentType, body string
		status                  int
		want                    reason.Slug
		exit                    reason.Exit
	}{
		{name: "proxy page", contentType: "text/html", body: "<h1>Bad gateway</h1>", status: 502, want: reason.Unavailable, exit: reason.ExitUnavailable},
		{name: "not found page", contentType: "text/html", status: 404, want: reason.NotFound, exit: reason.ExitNotFound},
		{name: "cut short", contentType: ContentType, body: `{"type":"urn:act`, status: 503, want: reason.Unavailable, exit: reason.ExitUnavailable},
		{name: "not an object", contentType: ContentType, body: `[]`, status: 409, want: reason.Conflict, exit: reason.ExitConflict},
		{name: "empty object", contentType: ContentType, body: `{}`, status: 401, want: reason.Unauthenticated, exit: reason.ExitAuth},
		{
			name: "reason of a newer server", contentType: ContentType, status: 409,
			body: `{"type":"urn:activerelay:reason:brand-new","title":"New","status":409}`, want: "brand-new", exit: reason.ExitConflict,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := Decode(c.status, c.contentType, strings.NewReader(c.body))
			if got.Reason != c.want || got.Status != c.status || got.Exit() != c.exit {
				t.Fatalf("got %+v with exit %d, want reason %s and exit %d", got, got.Exit(), c.want, c.exit)
			}
		})
	}
}

func TestTheTextOfAProblemNamesItsFields(t *testing.T) {
	got := Invalid(InvalidField{Pointer: "/a", Rule: "required", Message: "is required"},
		InvalidField{Pointer: "/b", Rule: "maximum", Message: "must be at most 5"}).Error()
	want := "Invalid request: The request breaks a rule of the contract: /a is required; /b must be at most 5"
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

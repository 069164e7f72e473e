package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"activerelay/server/internal/store/storetest"
	"activerelay/server/servertest"
)

// noon is when the tests begin.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fixture is a whole control plane on SQLite whose clock stands at noon. Every reply is held to the contract.
type fixture struct {
	*servertest.Server
	t     *testing.T
	clock *storetest.Clock
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, clock: storetest.NewClock(noon)}
	f.Server = servertest.Start(t, servertest.Config{Now: f.clock.Now})
	return f
}

// reply is what came back.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// call makes one request with a bearer token, "" for none. body is encoded as JSON, nil sends none.
func (f *fixture) call(token, method, path string, body any) reply {
	f.t.Helper()
	got, err := f.try(f.t.Context(), token, method, path, body, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

// keyed makes one request under an Idempotency-Key.
func (f *fixture) keyed(key, token, method, path string, body any) reply {
	f.t.Helper()
	got, err := f.try(f.t.Context(), token, method, path, body, http.Header{"Idempotency-Key": {key}})
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

func (f *fixture) try(ctx context.Context, token, method, path string, body any, header http.Header) (reply, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return reply{}, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, f.URL+path, bytes.NewReader(text))
	if err != nil {
		return reply{}, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
		if method == http.MethodPatch {
			request.Header.Set("Content-Type", "application/merge-patch+json")
		}
	}
	response, err := (&http.Client{Transport: f.Contract}).Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	got := reply{t: f.t, status: response.StatusCode, header: response.Header}
	if got.body, err = io.ReadAll(response.Body); err != nil {
		return reply{}, err
	}
	return got, nil
}

// want fails the test where the status is another.
func (r reply) want(status int) reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	return r
}

// refused fails the test where the reply is not a problem of a status and reason.
func (r reply) refused(status int, reason string) reply {
	r.t.Helper()
	var told struct{ Type string }
	r.want(status).into(&told)
	if told.Type != "urn:activerelay:reason:"+reason {
		r.t.Fatalf("refused for %q, want %q: %s", told.Type, reason, r.body)
	}
	return r
}

func (r reply) into(value any) {
	r.t.Helper()
	if err := json.Unmarshal(r.body, value); err != nil {
		r.t.Fatalf("%v: %s", err, r.body)
	}
}

// words are the body of a problem without the id of its request.
func (r reply) words() string {
	r.t.Helper()
	var told map[string]any
	r.into(&told)
	delete(told, "request_id")
	text, err := json.Marshal(told)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

type object map[string]any

// partner makes a partner.
func (f *fixture) partner(slug string) {
	f.t.Helper()
	f.call(f.Token, "PUT", "/v1/partners/"+slug, object{"name": slug}).want(201)
}

// domain makes a domain in UTC with a daily limit.
func (f *fixture) domain(partner, name string, limit int64, contacts ...string) {
	f.t.Helper()
	f.call(f.Token, "PUT", "/v1/domains/"+name,
		object{"partner": partner, "time_zone": "UTC", "contacts": append([]string{}, contacts...)}).want(201)
	f.call(f.Token, "PUT", "/v1/domains/"+name+"/quota-override",
		object{"limit": limit, "expires_at": noon.AddDate(1, 0, 0), "reason": "test"}).want(200)
}

// metric reads one figure of the metrics page.
func (f *fixture) metric(name string) string {
	f.t.Helper()
	for line := range strings.Lines(string(f.call("", "GET", "/metrics", nil).want(200).body)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

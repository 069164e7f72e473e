package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/server/servertest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks again and again, because what it waits for happens in another goroutine.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !reached() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never reached: %s", what)
		}
	}
}

// join makes an edge and returns a client with its credential.
func join(t *testing.T, s *servertest.Server) *client.ClientWithResponses {
	t.Helper()
	token, err := s.Client().CreateJoinTokenWithResponse(t.Context(), nil, api.JoinTokenCreate{})
	must(t, err)
	joined, err := s.ClientAs(token.JSON201.Token).JoinEdgeWithResponse(t.Context(), nil, api.EdgeJoin{
		CapabilityVersion: 1, Name: "edge1", PublicKey: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", Version: "test",
		JoinToken: &token.JSON201.Token,
	})
	must(t, err)
	return s.ClientAs(joined.JSON201.Credential)
}

// pull reads the whole policy and returns where it ends.
func pull(t *testing.T, edge *client.ClientWithResponses) (keys []string, epoch, after string) {
	t.Helper()
	params := &api.PullPolicyParams{}
	for {
		reply, err := edge.PullPolicyWithResponse(t.Context(), params)
		must(t, err)
		if reply.JSON200 == nil {
			return keys, epoch, after
		}
		epoch, after = reply.JSON200.Epoch, reply.JSON200.Next
		for _, document := range reply.JSON200.Documents {
			keys = append(keys, document.Key)
		}
		params = &api.PullPolicyParams{Epoch: &epoch, After: &after}
	}
}

// metric reads one figure of a control plane.
func metric(t *testing.T, s *servertest.Server, name string) float64 {
	t.Helper()
	reply, err := s.ClientAs("").GetMetricsWithResponse(t.Context())
	must(t, err)
	for line := range strings.Lines(string(reply.Body)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			figure, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(t, err)
			return figure
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	s := servertest.Start(t, servertest.Config{})
	for _, test := range []struct {
		name, method, path, reason string
		status                     int
	}{
		{name: "unknown path", method: "GET", path: "/v1/nothing", status: 404, reason: "not-found"},
		{name: "unknown method", method: "DELETE", path: "/healthz", status: 405, reason: "method-not-allowed"},
		{name: "no token", method: "GET", path: "/v1/partners", status: 401, reason: "unauthenticated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			request := s.Request(test.method, test.path, "")
			request.Header.Del("Authorization")
			reply, err := http.DefaultClient.Do(request)
			must(t, err)
			defer reply.Body.Close()
			var problem struct {
				Reason    string `json:"reason"`
				RequestID string `json:"request_id"`
			}
			must(t, json.NewDecoder(reply.Body).Decode(&problem))
			if reply.StatusCode != test.status || problem.Reason != test.reason || problem.RequestID == "" ||
				reply.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("got %d %s %+v", reply.StatusCode, reply.Header.Get("Content-Type"), problem)
			}
		})
	}
}

func TestTheRootLeadsToTheDocumentation(t *testing.T) {
	s := servertest.Start(t, servertest.Config{})
	reply, err := http.Get(s.URL + "/")
	must(t, err)
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK || reply.Request.URL.Path != "/docs" {
		t.Fatalf("got %d from %s", reply.StatusCode, reply.Request.URL)
	}
}

func TestSIGTERMEndsALongPollAndLeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := servertest.Start(t, servertest.Config{})
	edge := join(t, s)
	_, epoch, after := pull(t, edge)
	wait := 30
	type answer struct {
		status int
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		reply, err := edge.PullPolicyWithResponse(context.WithoutCancel(t.Context()),
			&api.PullPolicyParams{Epoch: &epoch, After: &after, Wait: &wait})
		if err != nil {
			answered <- answer{err: err}
			return
		}
		answered <- answer{status: reply.StatusCode()}
	}()
	eventually(t, "a poll that waits", func() bool { return metric(t, s, "relay_server_policy_polls_waiting") == 1 })
	begin := time.Now()
	s.Stop()
	got := <-answered
	if got.err != nil || got.status != http.StatusNoContent {
		t.Fatalf("the poll got %+v, want 204", got)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Fatalf("draining took %v, as if the poll had been waited for", took)
	}
	goleak.VerifyNone(t, before)
}

func TestADrainedControlPlaneHasWrittenDownWhatItsEdgesEnforce(t *testing.T) {
	dir := t.TempDir()
	s := servertest.Start(t, servertest.Config{DataDir: dir})
	_, _, after := pull(t, join(t, s))
	s.Stop()
	again := servertest.Start(t, servertest.Config{DataDir: dir})
	reply, err := again.Client().ListEdgesWithResponse(t.Context(), nil)
	must(t, err)
	revision, _, _ := strings.Cut(after, ",")
	if got := reply.JSON200.Items[0].EnforcedRevision; got == nil || strconv.FormatInt(*got, 10) != revision || *got == 0 {
		t.Fatalf("the edge enforces %v, its last poll said %s", got, after)
	}
}

// send makes a request that must succeed and returns the body of its reply.
func send(t *testing.T, request *http.Request) string {
	t.Helper()
	reply, err := http.DefaultClient.Do(request)
	must(t, err)
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	must(t, err)
	if reply.StatusCode >= 300 {
		t.Fatalf("%s %s: %d %s", request.Method, request.URL.Path, reply.StatusCode, body)
	}
	return string(body)
}

func TestOnlyATrustedProxySaysWhoTheClientIs(t *testing.T) {
	for _, test := range []struct {
		name    string
		proxies []string
		want    string
	}{
		{name: "no proxy is trusted", want: "client=127.0.0.1"},
		{name: "the proxy is trusted", proxies: []string{"127.0.0.1"}, want: "client=203.0.113.7"},
		{name: "a chain ends at the first stranger", proxies: []string{"127.0.0.0/8", "203.0.113.7"}, want: "client=198.51.100.9"},
		{name: "private networks are not trusted by themselves", proxies: []string{"192.0.2.0/24"}, want: "client=127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := &logBuffer{}
			s := servertest.Start(t, servertest.Config{Configure: logTo(log, test.proxies)})
			request := s.Request("GET", "/v1/whoami", "")
			request.Header.Set("X-Forwarded-For", "192.0.2.1, 198.51.100.9, 203.0.113.7")
			send(t, request)
			eventually(t, "a line of the access log with "+test.want, func() bool { return strings.Contains(log.String(), test.want) })
		})
	}
}

func TestTheREADMEListsEverySetting(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("README.md"))
	must(t, err)
	if !strings.Contains(string(text), reference()) {
		t.Fatalf("server/README.md differs from the settings; its table should be\n%s", reference())
	}
}

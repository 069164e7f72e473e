package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/server"
	"activerelay/server/servertest"
)

const (
	benchDomains      = 400
	benchEdges        = 16
	benchLeaseDomains = 100
	// ceilingTime is how long the ceiling is measured after each operation.
	ceilingTime = 300 * time.Millisecond
)

// BenchmarkAPI is calls a second over loopback HTTP with a token, by one client and by sixteen, on both databases. Its
// ceiling is a handler that answers the same bytes to the same requests and does nothing: "%ceiling" is the share of the
// rate that is left once there is authentication, validation, a transaction, audit and publication.
func BenchmarkAPI(b *testing.B) {
	databases := map[string]func(testing.TB) string{"sqlite": func(testing.TB) string { return "" }, "postgres": servertest.PostgreSQL}
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(name, func(b *testing.B) {
			bench := newAPIBench(b, databases[name](b))
			for _, op := range []struct {
				name string
				call func(client, n int) (method, path, token string, body any)
			}{
				{name: "get-domain", call: bench.getDomain},
				{name: "list-200-domains", call: bench.listDomains},
				{name: "put-domain", call: bench.putDomain},
				{name: "lease-100-domains", call: bench.lease},
			} {
				for _, clients := range []int{1, benchEdges} {
					b.Run(fmt.Sprintf("%s/clients=%d", op.name, clients), func(b *testing.B) { bench.measure(b, clients, op.call) })
				}
			}
		})
	}
}

// apiBench is a control plane with domains and edges, and clients that are cheap.
type apiBench struct {
	server *servertest.Server
	http   *http.Client
	edges  []*benchEdge
	last   atomic.Pointer[[]byte] // the last reply
}

// benchEdge is the lease loop of an edge: it spends one unit of each domain between two calls.
type benchEdge struct {
	token string
	call  api.LeaseCall
}

func newAPIBench(b *testing.B, database string) *apiBench {
	b.Helper()
	bench := &apiBench{
		server: servertest.Start(b, servertest.Config{Database: database, Configure: func(c *server.Config) {
			c.Log = slog.New(slog.NewTextHandler(io.Discard, nil)) // a line for each request is part of the price
		}}),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchEdges}},
	}
	b.Cleanup(bench.http.CloseIdleConnections)
	bench.must(b, "PUT", "/v1/partners/acme", bench.server.Token, map[string]any{"name": "Acme IT"})
	var batch api.DomainBatch
	for i := range benchDomains {
		batch.Domains = append(batch.Domains, api.DomainBatchEntry{Name: benchDomain(i), Partner: new("acme"), LicensedUsers: new(10_000_000)})
	}
	bench.must(b, "POST", "/v1/domains/batch", bench.server.Token, batch)
	for i := range benchEdges {
		bench.join(b, fmt.Sprintf("edge%d", i))
	}
	return bench
}

func benchDomain(i int) string { return fmt.Sprintf("d%04d.example.com", i) }

// join adds an edge that holds leases of its domains.
func (a *apiBench) join(b *testing.B, name string) {
	b.Helper()
	var token api.JoinTokenWithSecret
	decode(b, a.must(b, "POST", "/v1/join-tokens", a.server.Token, map[string]any{}), &token)
	var joined api.EdgeJoined
	decode(b, a.must(b, "POST", "/v1/edge/join", "", api.EdgeJoin{
		CapabilityVersion: 1, Name: name, PublicKey: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", Version: "bench", JoinToken: &token.Token,
	}), &joined)
	e := &benchEdge{token: joined.Credential, call: api.LeaseCall{BootNonce: "boot-of-" + name, Generation: joined.Generation, Sequence: 1}}
	for i := range benchLeaseDomains {
		e.call.Leases = append(e.call.Leases, api.LeaseReport{Domain: benchDomain(i), Want: 20_000})
	}
	var reply api.LeaseReply
	decode(b, a.must(b, "POST", "/v1/edge/leases", e.token, e.call), &reply)
	for i, grant := range reply.Leases {
		if grant.Granted == nil || *grant.Granted < 20_000 {
			b.Fatalf("lease of %s: %+v", grant.Domain, grant)
		}
		e.call.Leases[i].DayStart, e.call.Leases[i].Granted = grant.DayStart, *grant.Granted
	}
	a.edges = append(a.edges, e)
}

func (a *apiBench) getDomain(_, n int) (method, path, token string, body any) {
	return "GET", "/v1/domains/" + benchDomain(n%benchDomains), a.server.Token, nil
}

func (a *apiBench) listDomains(_, _ int) (method, path, token string, body any) {
	return "GET", "/v1/domains?page_size=200", a.server.Token, nil
}

// putDomain changes something each time: a change that changes nothing costs less.
func (a *apiBench) putDomain(_, n int) (method, path, token string, body any) {
	return "PUT", "/v1/domains/" + benchDomain(n%benchDomains), a.server.Token, map[string]any{"partner": "acme", "licensed_users": 9_000_000 + n%1_000_000}
}

func (a *apiBench) lease(client, _ int) (method, path, token string, body any) {
	e := a.edges[client]
	e.call.Sequence++
	for i := range e.call.Leases {
		l := &e.call.Leases[i]
		l.Spent++
		l.Want = l.Granted - l.Spent
	}
	return "POST", "/v1/edge/leases", e.token, e.call
}

// measure makes b.N calls and then some to the ceiling.
func (a *apiBench) measure(b *testing.B, clients int, call func(client, n int) (method, path, token string, body any)) {
	began := time.Now()
	a.inParallel(clients, func(client int, next *atomic.Int64) {
		for n := int(next.Add(1)); n <= b.N; n = int(next.Add(1)) {
			method, path, token, body := call(client, n)
			reply, status, err := a.do(a.server.URL, method, path, token, body)
			if err != nil || status/100 != 2 {
				b.Errorf("%s %s: %d %v %s", method, path, status, err, reply)
				return
			}
			a.last.Store(&reply)
		}
	})
	took := time.Since(began)
	b.StopTimer()
	rate := float64(b.N) / took.Seconds()
	b.ReportMetric(rate, "calls/s")
	b.ReportMetric(100*rate/a.ceiling(b, clients, call), "%ceiling")
}

// ceiling is calls a second to a handler that reads the request and answers what the last call was answered.
func (a *apiBench) ceiling(b *testing.B, clients int, call func(client, n int) (method, path, token string, body any)) float64 {
	b.Helper()
	answer := *a.last.Load()
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	defer echo.Close()
	method, path, token, body := call(0, 1)
	began := time.Now()
	var calls atomic.Int64
	a.inParallel(clients, func(int, *atomic.Int64) {
		for time.Since(began) < ceilingTime {
			if _, _, err := a.do(echo.URL, method, path, token, body); err != nil {
				b.Errorf("ceiling: %v", err)
				return
			}
			calls.Add(1)
		}
	})
	return float64(calls.Load()) / time.Since(began).Seconds()
}

func (a *apiBench) inParallel(clients int, work func(client int, next *atomic.Int64)) {
	var next atomic.Int64
	var done sync.WaitGroup
	for client := range clients {
		done.Go(func() { work(client, &next) })
	}
	done.Wait()
}

func (a *apiBench) do(url, method, path, token string, body any) (reply []byte, status int, err error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, 0, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, url+path, content)
	if err != nil {
		return nil, 0, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	reply, err = io.ReadAll(response.Body)
	return reply, response.StatusCode, err
}

func (a *apiBench) must(b *testing.B, method, path, token string, body any) []byte {
	b.Helper()
	reply, status, err := a.do(a.server.URL, method, path, token, body)
	if err != nil || status/100 != 2 {
		b.Fatalf("%s %s: %d %v %s", method, path, status, err, reply)
	}
	return reply
}

func decode(b *testing.B, text []byte, into any) {
	b.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		b.Fatal(err)
	}
}

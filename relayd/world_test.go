package relayd_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd"
	"activerelay/relayd/relaytest"
	"activerelay/relayd/relaytest/edgetest"
	"activerelay/server/servertest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a control plane and the destination of all mail, on one clock.
type world struct {
	t     *testing.T
	plane *servertest.Server
	mx    *relaytest.MX

	mu  sync.Mutex
	now time.Time
}

// newWorld registers example.com of partner acme, reachable from 127.0.0.1, with the MX as its smarthost.
func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldAt(t, time.Now(), "Europe/Berlin")
}

// newWorldAt is newWorld at an instant, with the domain in a zone.
func newWorldAt(t *testing.T, now time.Time, zone string) *world {
	t.Helper()
	w := &world{t: t, now: now.UTC().Truncate(time.Second), mx: relaytest.StartMX(t, relaytest.Script{})}
	w.plane = servertest.Start(t, servertest.Config{Now: w.clock})
	w.call("PATCH", "/v1/settings", `{"allow_unscanned":true,"relay_ip_activation":"automatic","allow_target_networks":["127.0.0.0/8"]}`, nil)
	w.call("PUT", "/v1/partners/acme", `{"name":"Acme IT","support_contact":"support@acme.example"}`, nil)
	w.call("PUT", "/v1/domains/example.com", fmt.Sprintf(`{"partner":"acme","time_zone":%q}`, zone), nil)
	w.call("POST", "/v1/relay-ips", `{"domain":"example.com","address":"127.0.0.1"}`, nil)
	w.call("POST", "/v1/routes", fmt.Sprintf(`{"domain":"example.com","host":"127.0.0.1","port":%d,"tls":"none"}`, w.mx.Port()), nil)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// call makes one request as the operator, which must succeed.
func (w *world) call(method, path, body string, into any) {
	w.t.Helper()
	request := w.plane.Request(method, path, body)
	if method == "PATCH" {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if reply.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %s\n%s", method, path, reply.Status, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			w.t.Fatalf("%s %s: %v in\n%s", method, path, err, text)
		}
	}
}

func (w *world) joinToken() string {
	w.t.Helper()
	var token struct{ Token string }
	w.call("POST", "/v1/join-tokens", `{}`, &token)
	return token.Token
}

// addEdge joins an edge and waits until it enforces the policy.
func (w *world) addEdge(configure func(*relayd.Config)) *edgetest.Edge {
	w.t.Helper()
	e := edgetest.Start(w.t, edgetest.Config{Server: w.plane.URL, JoinToken: w.joinToken(), Now: w.clock, Configure: configure})
	w.knows(e, "example.com")
	return e
}

// restart runs an edge again on the data that another one left.
func (w *world) restart(e *edgetest.Edge) *edgetest.Edge {
	w.t.Helper()
	e.Stop()
	return edgetest.Start(w.t, edgetest.Config{Server: w.plane.URL, Now: w.clock, DataDir: e.DataDir})
}

// knows waits until an edge lets mail of a domain pass RCPT.
func (w *world) knows(e *edgetest.Edge, domain string) {
	w.t.Helper()
	eventually(w.t, "policy of "+domain+" at the edge", func() bool {
		d := dial(w.t, e.Relay)
		defer d.close()
		d.say("MAIL FROM:<anna@" + domain + ">")
		return strings.HasPrefix(d.say("RCPT TO:<bob@example.net>"), "250 ")
	})
}

// enforces waits until an edge enforces all that was changed so far: it knows of a domain that comes after it.
func (w *world) enforces(e *edgetest.Edge) {
	w.t.Helper()
	w.call("PUT", "/v1/domains/last.example", `{"partner":"acme"}`, nil)
	w.call("POST", "/v1/relay-ips", `{"domain":"last.example","address":"127.0.0.1"}`, nil)
	w.knows(e, "last.example")
}

// stocked sends a first message and waits until the edge holds a reserve of units.
func (w *world) stocked(e *edgetest.Edge, subject string) {
	w.t.Helper()
	if r := send(w.t, e.Relay, "anna@example.com", subject); !strings.HasPrefix(r, "250 2.0.0 ") {
		w.t.Fatalf("reply %q", r)
	}
	eventually(w.t, "a reserve of units", func() bool {
		var quota struct{ Leases []struct{ Held, Spent int64 } }
		w.call("GET", "/v1/domains/example.com/quota", "", &quota)
		return len(quota.Leases) == 1 && quota.Leases[0].Held > 5 && quota.Leases[0].Spent == 1
	})
}

// ready answers the status of /readyz and of one of its checks.
func (w *world) ready(e *edgetest.Edge, check string) (status int, of string) {
	w.t.Helper()
	reply, err := http.Get("http://" + e.Admin + "/readyz")
	if err != nil {
		w.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer reply.Body.Close()
	var report struct {
		Checks []struct{ Name, Status string }
	}
	if err := json.NewDecoder(reply.Body).Decode(&report); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range report.Checks {
		if c.Name == check {
			of = c.Status
		}
	}
	return reply.StatusCode, of
}

// dialog is one SMTP connection.
type dialog struct {
	t    *testing.T
	conn net.Conn
	in   *textproto.Reader
}

func dial(t *testing.T, addr string) *dialog {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	d := &dialog{t: t, conn: conn, in: textproto.NewReader(bufio.NewReader(conn))}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if greeting := d.reply(); !strings.HasPrefix(greeting, "220 ") {
		t.Fatalf("greeting %q", greeting)
	}
	d.say("EHLO client.example")
	return d
}

func (d *dialog) close() { d.conn.Close() }

// say sends a line and answers the whole reply: its code, then its lines.
func (d *dialog) say(line string) string {
	d.t.Helper()
	if _, err := io.WriteString(d.conn, line+"\r\n"); err != nil {
		d.t.Fatal(err)
	}
	return d.reply()
}

func (d *dialog) reply() string {
	d.t.Helper()
	code, text, err := d.in.ReadResponse(0)
	if err != nil && code == 0 {
		d.t.Fatalf("read reply: %v", err)
	}
	return fmt.Sprintf("%d %s", code, text)
}

// send hands over one message and answers the reply that decided.
func send(t *testing.T, addr, from, subject string) string {
	t.Helper()
	d := dial(t, addr)
	defer d.close()
	for _, line := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<bob@example.net>", "DATA"} {
		if r := d.say(line); r[0] != '2' && r[0] != '3' {
			return r
		}
	}
	return d.say("From: " + from + "\r\nSubject: " + subject + "\r\n\r\nhello\r\n.")
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("%s did not come about in 30 s", what)
		}
	}
}

// subjects are those of the messages that a destination took.
func subjects(mx *relaytest.MX) []string {
	var out []string
	for _, m := range mx.Messages() {
		for line := range bytes.Lines(m.Body) {
			if subject, ok := strings.CutPrefix(strings.TrimRight(string(line), "\r\n"), "Subject: "); ok {
				out = append(out, subject)
			}
		}
	}
	return out
}

package e2e

import (
	"strings"
	"testing"

	"activerelay/relayd/relaytest"
)

// Matrix row 21: mail that goes round in a circle ends within thirty hops, and its sender is told once.
func TestRow21MailThatComesBackEndsAndItsSenderIsToldOnce(t *testing.T) {
	for _, circle := range []struct {
		name string
		// hops is how often the mail may be accepted.
		hops int
		make func(s *stack, dns string) *edgeProcess
	}{
		{name: "two edges that are each other's mail server", hops: 30, make: func(s *stack, dns string) *edgeProcess {
			here, there := "127.0.0.1:"+freePort(s.t), "127.0.0.1:"+freePort(s.t)
			first := s.addEdge("--listen", here, "--resolver", dns, "--mx-port", port(there))
			first.relay = here
			s.addEdge("--listen", there, "--resolver", dns, "--mx-port", port(here)).relay = there
			return first
		}},
		{name: "an edge that is its own mail server", hops: 1, make: func(s *stack, dns string) *edgeProcess {
			here := "127.0.0.1:" + freePort(s.t)
			edge := s.addEdge("--listen", here, "--resolver", dns, "--mx-port", port(here))
			edge.relay = here
			return edge
		}},
	} {
		t.Run(circle.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
			dns := nameServer(t, map[string]string{"example.net": "@ MX 10 mx\nmx A 127.0.0.1\n"})
			s := newStack(t)
			edge := circle.make(s, dns)
			s.seed(mx.Addr().String())
			s.deleteRoutes()
			s.ctl("route", "create", "--recipient-domain", "example.com", "--host", "127.0.0.1", "--port", port(mx.Addr().String()), "--tls", "none")
			s.synced()
			if r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", "")); r.code != 250 {
				t.Fatal(r)
			}
			eventually(t, "a notification", func() bool { return len(mx.Messages()) > 0 })
			for _, e := range s.edges {
				eventually(t, "an empty queue", func() bool { return e.metric(t, "relayd_queue_messages") == 0 })
			}
			messages := mx.Messages()
			if len(messages) != 1 || messages[0].From != "" || strings.Join(messages[0].Addresses(), " ") != "anna@example.com" || !strings.Contains(string(messages[0].Body), "5.4.6") {
				t.Errorf("arrived: %+v", messages)
			}
			accepted := 0.0
			for _, e := range s.edges {
				accepted += e.metric(t, "relayd_smtp_accepted_total")
			}
			t.Logf("accepted %v times", accepted)
			if accepted < 1 || int(accepted) > circle.hops {
				t.Errorf("accepted %v times, want at most %d", accepted, circle.hops)
			}
		})
	}
}

// A route that leads an edge to itself is a mistake that its operator can mend: the mail goes no further, waits, says why, and is
// delivered once the route is right.
func TestRow21MailWhoseRouteLeadsBackWaitsForTheOperator(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	s := newStack(t)
	first, second := s.addEdge(), s.addEdge()
	s.seed(second.relay)
	if r := dial(t, first.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", "")); r.code != 250 {
		t.Fatal(r)
	}
	eventually(t, "the reason in the queue of the fleet", func() bool {
		return strings.Contains(s.ctl("queue", "list", "-o", "json"), "leads back to this relay")
	})
	if n := first.metric(t, "relayd_smtp_accepted_total") + second.metric(t, "relayd_smtp_accepted_total"); n != 2 {
		t.Errorf("accepted %v times, want 2", n)
	}
	s.deleteRoutes()
	s.ctl("route", "create", "--domain", "example.com", "--host", "127.0.0.1", "--port", port(mx.Addr().String()), "--tls", "none")
	s.synced()
	s.ctl("queue", "retry", "--domain", "example.com", "--yes")
	eventually(t, "the message", func() bool { return len(mx.Messages()) > 0 })
	if m := mx.Messages()[0]; m.From != "anna@example.com" || strings.Count(string(m.Body), "Received: ") != 2 {
		t.Errorf("arrived %+v", m)
	}
}

// deleteRoutes deletes the routes of example.com.
func (s *stack) deleteRoutes() {
	s.t.Helper()
	var routes struct{ Items []struct{ ID string } }
	s.ctlJSON(&routes, "route", "list", "--domain", "example.com")
	for _, r := range routes.Items {
		s.ctl("route", "delete", r.ID, "--yes")
	}
}

package e2e

import (
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/bench"
	"activerelay/server/servertest"
)

// A customer's Postfix keeps what is over the limit, says why in its own queue, and hands it over once there is room again.
func TestPostfixKeepsWhatIsOverTheLimitAndDeliversItOnceThereIsRoom(t *testing.T) {
	sink, inbox := smtpSink(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink)
	s.ctl("quota", "override", "set", "example.com", "--limit", "1", "--reason", "test of the limit", "--expires-at", "2099-01-01T00:00:00Z")
	s.synced()
	customer := startPostfix(t, "relayhost = [127.0.0.1]:"+port(edge.relay))
	customer.submit(t, "anna@example.com", "bob@example.net", []byte("From: anna@example.com\nSubject: first\n\nfirst\n"))
	received(t, inbox, 1)
	customer.submit(t, "anna@example.com", "bob@example.net", []byte("From: anna@example.com\nSubject: second\n\nsecond\n"))
	over := regexp.MustCompile(`450-4\.7\.1 Relay limit reached for example\.com: 1 of 1 messages today; resets`)
	eventually(t, "the limit in Postfix's queue", func() bool { return over.MatchString(strings.Join(strings.Fields(customer.queued(t)), " ")) })

	s.ctl("quota", "override", "set", "example.com", "--limit", "5", "--reason", "room again", "--expires-at", "2099-01-01T00:00:00Z")
	s.synced()
	if got := received(t, inbox, 2); !strings.Contains(string(got[0])+string(got[1]), "second") {
		t.Errorf("arrived:\n%s\n%s", got[0], got[1])
	}
	eventually(t, "an empty queue at Postfix", func() bool { return strings.Contains(customer.queued(t), "Mail queue is empty") })
	if log := customer.log(t); !strings.Contains(log, "status=sent (250 2.0.0 Ok: queued as ") {
		t.Errorf("Postfix logged\n%s", log)
	}
}

// SIGTERM under load, five times: what is in flight is finished, so that nothing is lost and nothing doubled, and the program
// ends in peace (matrix row 8).
func TestMatrixRow8AnEdgeThatIsAskedToEndLosesAndDoublesNothing(t *testing.T) {
	const messages = 2000
	acknowledged := newTally()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	sink := bench.NewSink(listener, nil)
	defer sink.Close()
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink.Addr())
	s.ctl("domain", "update", "example.com", "--licensed-users", "100")
	s.synced()
	var outcome bench.Outcome
	var sending sync.WaitGroup
	sending.Go(func() {
		outcome, err = bench.Send(t.Context(), bench.Load{
			Server: edge.relay, From: "anna@example.com", To: "bob@example.net", Messages: messages, Sessions: 8, SizeBytes: 2000,
			RunID: "term", RetryAfter: 20 * time.Millisecond, Acknowledged: acknowledged.add,
		})
	})
	for stop := range 5 {
		eventually(t, "more messages", func() bool { return acknowledged.distinct() >= (stop+1)*messages/7 })
		if code := edge.stop(); code != 0 {
			t.Errorf("relayd ended with %d", code)
		}
		edge.start()
	}
	sending.Wait()
	must(t, err)
	if outcome.Accepted != messages {
		t.Fatalf("accepted %d; replies %v", outcome.Accepted, outcome.Replies)
	}
	eventually(t, "every message at the sink", func() bool { return sink.Messages() >= messages })
	if code := edge.stop(); code != 0 {
		t.Errorf("relayd ended with %d", code)
	}
	if code := s.server.stop(); code != 0 {
		t.Errorf("relay-server ended with %d", code)
	}
	if got := sink.Messages(); got != messages {
		t.Errorf("%d messages arrived for %d acknowledged", got, messages)
	}
}

// A real Postfix as the destination: what the edge hands over it takes, and hands on.
func TestARealPostfixTakesWhatTheEdgeDelivers(t *testing.T) {
	sink, inbox := smtpSink(t)
	destination := startPostfix(t, "relayhost = [127.0.0.1]:"+port(sink))
	s := newStack(t)
	edge := s.addEdge()
	s.seed(destination.addr())
	message := letter("anna@example.com", "") + "..two dots\r\n" + strings.Repeat("x", 990) + "\r\nend\r\n"
	if r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", message); r.code != 250 {
		t.Fatal(r)
	}
	got := string(received(t, inbox, 1)[0])
	if !strings.HasSuffix(strings.TrimRight(got, "\n"), "Hello Bob.\n.two dots\n"+strings.Repeat("x", 990)+"\nend") {
		t.Errorf("arrived\n%s", got)
	}
}

// The same system on PostgreSQL, with two control planes on one database: what one is told the other enforces.
func TestTwoControlPlanesOnPostgreSQLServeOneFleet(t *testing.T) {
	sink, inbox := smtpSink(t)
	database := servertest.PostgreSQL(t)
	s := newStack(t, "--database", database)
	edge := s.addEdge()
	s.seed(sink)
	second := s.replica(database)
	second.ctl("domain", "put", "second.example", "--partner", "acme")
	second.ctl("relay-ip", "request", "--domain", "second.example", "--address", "127.0.0.1")
	second.synced()
	for _, from := range []string{"anna@example.com", "ben@second.example"} {
		if r := dial(t, edge.relay, "127.0.0.1").send(from, "bob@example.net", letter(from, "")); r.code != 250 {
			t.Errorf("%s: %v", from, r)
		}
	}
	received(t, inbox, 1)
}

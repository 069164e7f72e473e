package smtpd

import (
	"strings"
	"testing"
	"time"

	"activerelay/api/reason"
)

// place waits until a connection that begins with the commands given is answered as wanted: one that has just ended may still be
// counted.
func (e *edge) place(want string) *client {
	e.t.Helper()
	for end := time.Now().Add(patience); ; {
		c := e.connect()
		got, err := c.reply()
		if err == nil && strings.HasPrefix(got, want) {
			return c
		}
		if time.Now().After(end) {
			e.t.Fatalf("a new connection is answered %q, %v; want %s", got, err, want)
		}
	}
}

func TestAllConnectionsTogetherAreLimited(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.limits.Connections, o.limits.ConnectionsPerIP = 3, 100 })
	first := e.dial()
	e.dial()
	e.dial()
	for range 2 {
		c := e.connect()
		c.want(said(421, "4.3.2", reason.TooManyConnections, "Too many connections to this server; try again later"))
		c.ended()
	}
	first.ask("QUIT", "221 .*")
	first.ended()
	e.place("220")
}

func TestConnectionsOfOneAddressAreLimited(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.limits.ConnectionsPerIP = 2 })
	first := e.dial()
	e.dial()
	c := e.connect()
	c.want(said(421, "4.7.0", reason.TooManyConnections, "Too many connections from 127.0.0.1; try again later"))
	c.ended()
	first.ask("QUIT", "221 .*")
	first.ended()
	e.place("220")
}

// The partner is that of the domain for which a relay IP or a user sends. Another partner is not in its way.
func TestConnectionsOfOnePartnerAreLimited(t *testing.T) {
	tooMany := said(421, "4.7.0", reason.TooManyConnections, "Too many connections from 127.0.0.1; try again later")
	for _, user := range []bool{false, true} {
		e := startEdge(t, func(o *setup) { o.limits.ConnectionsPerPartner = 2 })
		e.bank.setLimit("rival.test", 10)
		enter := func() *client {
			c := e.hello()
			if user {
				c.login("anna@ok.test", password, "235 .*")
			}
			c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
			return c
		}
		first := enter()
		first.ask("RCPT TO:<carl@sink.test>", "250 .*")
		first.ask("RCPT TO:<dora@sink.test>", "250 .*") // counted once
		first.data(text("anna@ok.test"), queuedAs)
		first.envelope("anna@ok.test", "carl@sink.test")
		enter().ask("RCPT TO:<carl@sink.test>", "250 .*")
		third := enter()
		third.ask("RCPT TO:<carl@sink.test>", tooMany)
		third.ended()
		e.hello().mail("x@rival.test", text("x@rival.test"), queuedAs)
		first.ask("QUIT", "221 .*")
		first.ended()
		for end := time.Now().Add(patience); ; {
			c := enter()
			c.send("RCPT TO:<carl@sink.test>")
			if got, err := c.reply(); err == nil && strings.HasPrefix(got, "250") {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the place of a connection that ended is not free")
			}
		}
	}
}

// From nine tenths of the connections on, each may make one mistake and send one useless command. That it may be silent for ten
// seconds only is tested in package smtpwire.
func TestUnderStressSessionsMayDoLess(t *testing.T) {
	const room = 10
	start := func(t *testing.T, open int) *edge {
		e := startEdge(t, func(o *setup) { o.limits.Connections, o.limits.ConnectionsPerIP = room, 2*room })
		for range open - 1 { // and the one that is looked at
			e.dial()
		}
		return e
	}
	ends := said(421, "4.7.0", reason.TooManyErrors, "Too many errors; closing the connection")
	for _, test := range []struct{ name, command, reply string }{
		{name: "errors", command: "FROB", reply: "(?s)500-.*"}, {name: "junk", command: "NOOP", reply: "250 .*"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := start(t, room*stressPercent/100).hello()
			c.ask(test.command, test.reply)
			c.ask(test.command, test.reply)
			c.want(ends)
			c.ended()
		})
		t.Run(test.name+" one connection below", func(t *testing.T) {
			c := start(t, room*stressPercent/100-1).hello()
			for range 5 {
				c.ask(test.command, test.reply)
			}
		})
	}
}

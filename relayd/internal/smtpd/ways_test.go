package smtpd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"activerelay/api/reason"
)

// way is a way in: a listener, and how a client gets as far as MAIL there. What the contract says holds on each.
type way struct {
	name     string
	kind     Kind
	startTLS bool
	user     bool
}

func ways() []way {
	return []way{
		{name: "relay IP", kind: Relay},
		{name: "relay IP with STARTTLS", kind: Relay, startTLS: true},
		{name: "submission", kind: Submission, startTLS: true, user: true},
		{name: "TLS from the first byte", kind: ImplicitTLS, user: true},
	}
}

func (w way) open(o *setup) { o.kind, o.tls = w.kind, true }

// on makes a client of a test of its own.
func (w way) on(t *testing.T, e *edge) *client {
	t.Helper()
	c := e.connect()
	c.t = t
	if w.kind == ImplicitTLS {
		c.secure(e.trust)
	}
	c.want(`220 .*`)
	c.ask("EHLO client.test", `(?s)250-.*`)
	if w.startTLS {
		c.startTLS(e.trust)
	}
	if w.user {
		c.login("anna@ok.test", password, "235 .*")
	}
	return c
}

// count is how many messages are stored.
func (e *edge) count() int {
	messages, _ := e.stored()
	return len(messages)
}

func TestOnEveryWayInNothingIsRunThatIsNotACommandAtItsPoint(t *testing.T) {
	const evil = "MAIL FROM:<x@other.test>\r\nRCPT TO:<victim@sink.test>\r\nDATA\r\nFrom: x@other.test\r\n\r\nevil\r\n.\r\n"
	envelope, letter := "MAIL FROM:<anna@ok.test>\r\nRCPT TO:<carl@sink.test>\r\n", text("anna@ok.test")
	auth := "AUTH PLAIN AGJvQG9rLnRlc3QAY29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==\r\n" // bo@ok.test
	vectors := []struct{ name, says, want string }{
		{name: "MAIL twice", says: "MAIL FROM:<anna@ok.test>\r\nMAIL FROM:<x@other.test>\r\nDATA\r\n", want: "250 503 503"},
		{
			name: "MAIL of somebody else within a message", says: envelope + "MAIL FROM:<x@other.test>\r\nDATA\r\n" + letter + ".\r\n",
			want: "250 250 503 354 250",
		},
		{name: "AUTH within a message", says: envelope + auth + "DATA\r\n" + letter + ".\r\n", want: "250 250 503 354 250"},
		{name: "BDAT", says: envelope + "BDAT 26\r\n" + evil + "RSET\r\n" + evil, want: "250 250 502 end"},
		{name: "BDAT LAST", says: envelope + "BDAT 0 LAST\r\n" + evil, want: "250 250 502 end"},
		{name: "QUIT and more", says: "QUIT\r\n" + evil, want: "221 end"},
		{name: "HTTP", says: "POST / HTTP/1.1\r\nHost: x\r\n\r\n" + evil, want: "421 end"},
		{name: "bare LF", says: strings.ReplaceAll(evil, "\r\n", "\n"), want: "end"},
		{name: "bare CR", says: strings.ReplaceAll(evil, "\r\n", "\r"), want: "end"},
		{name: "half a line", says: "MAIL FROM:<x@other.test>", want: "end"},
		{name: "half a message", says: envelope + "DATA\r\n" + letter, want: "250 250 354 end"},
		{name: "half the end of a message", says: envelope + "DATA\r\n" + letter + ".\r", want: "250 250 354 end"},
	}
	for _, w := range ways() {
		e := startEdge(t, w.open)
		for _, v := range vectors {
			t.Run(w.name+": "+v.name, func(t *testing.T) {
				before, c := e.count(), w.on(t, e)
				c.raw(v.says)
				if closer, ok := c.conn.(interface{ CloseWrite() error }); !ok || closer.CloseWrite() != nil {
					t.Fatal("cannot end what is sent")
				}
				var got []string
				for {
					reply, err := c.reply()
					if isDeadline(err) {
						t.Fatalf("the server hangs after %q", got)
					}
					if err != nil {
						break
					}
					got = append(got, reply[:3])
				}
				want := strings.TrimSpace(strings.TrimSuffix(v.want, "end"))
				if strings.Join(got, " ") != want {
					t.Errorf("was answered %q, want %s", got, v.want)
				}
				if stored := e.count() - before; stored != strings.Count(want, "354 250") {
					t.Errorf("%d messages stored", stored)
				}
			})
		}
		e.checkStoredIsOf(w)
	}
}

// checkStoredIsOf holds that all that was stored is anna's, of the user that logged in or of none, and can be relayed safely, and
// that nobody was heard who speaks for other.test.
func (e *edge) checkStoredIsOf(w way) {
	e.t.Helper()
	messages, texts := e.stored()
	for i, m := range messages {
		regular := strings.ReplaceAll(texts[i], "\r\n", "")
		if strings.ContainsAny(regular, "\r\n\x00") || !strings.HasSuffix(texts[i], "\r\n") {
			e.t.Errorf("%s: stored irregular line ends: %q", w.name, texts[i])
		}
		if m.From.String() != "anna@ok.test" || (m.User != "") != w.user || w.user && m.User != "anna@ok.test" {
			e.t.Errorf("%s: stored a message of %s, user %q", w.name, m.From, m.User)
		}
	}
	if strings.Contains(e.log.String(), "other.test") {
		e.t.Errorf("%s: what is no command was run:\n%s", w.name, e.log)
	}
}

// TLS has a deadline of its own to get wrong: what it has half decrypted, and whether anything can be said after it has passed.
func TestOnEveryWayInSilenceEndsTheSessionWithAWord(t *testing.T) {
	for _, w := range ways() {
		for _, half := range []string{"", "MAIL FROM:<x@other"} {
			t.Run(w.name+" after "+half, func(t *testing.T) {
				t.Parallel()
				e := startEdge(t, func(o *setup) {
					w.open(o)
					o.limits.CommandIdle = 3 * time.Second
				})
				c := w.on(t, e)
				c.raw(half)
				c.want(said(421, "4.4.2", "session-timeout", "Nothing was heard for too long; closing the connection"))
				c.ended()
			})
		}
	}
}

func TestOnEveryWayInShutdownLetsAMessageInFlightFinish(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			e := startEdge(t, w.open)
			idle, c := w.on(t, e), w.on(t, e)
			c.envelope("anna@ok.test", "carl@sink.test")
			c.ask("DATA", "354 .*")
			c.raw(text("anna@ok.test"))
			down := make(chan error, 1)
			go func() { down <- e.server.Shutdown(context.Background()) }()
			idle.want("(?s)421-4\\.3\\.2 .*reason=shutting-down .*")
			idle.ended()
			c.raw(".\r\n")
			c.want(queuedAs)
			c.want("(?s)421-4\\.3\\.2 .*")
			c.ended()
			if err := <-down; err != nil {
				t.Error(err)
			}
			if n := e.count(); n != 1 {
				t.Errorf("%d messages stored, want 1", n)
			}
		})
	}
}

// RFC 6409 4.3: submission is for users, also at an address that may relay.
func TestOnlyUsersSendOverTheListenersForSubmission(t *testing.T) {
	for _, kind := range []Kind{Submission, ImplicitTLS} {
		t.Run(kind.String(), func(t *testing.T) {
			e := startEdge(t, func(o *setup) { o.kind, o.tls = kind, true })
			stranger := way{kind: kind, startTLS: kind == Submission}
			noUser := said(530, "5.7.0", reason.AuthRequired, "Authentication is required")
			c := stranger.on(t, e)
			c.ask("MAIL FROM:<anna@ok.test>", noUser)
			c.login("anna@ok.test", "wrong", "(?s)535-.*")
			c.ask("MAIL FROM:<anna@ok.test>", noUser)
			c.ask("AUTH LOGIN", "334 .*")
			c.ask("*", "(?s)501-5\\.7\\.0 .*reason=auth-cancelled .*")
			c.ask("AUTH PLAIN =", "(?s)501-.*reason=command-syntax .*")
			c.ask("MAIL FROM:<>", noUser)
			c.ask("RCPT TO:<carl@sink.test>", "(?s)503-.*")
			c.ask("DATA", "(?s)503-.*")
			c.login("anna@ok.test", password, "235 .*")
			c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
			c.ask("MAIL FROM:<x@rival.test>", "250 .*")
			c.ask("RCPT TO:<carl@sink.test>", "(?s)550-.*reason=sender-domain-unknown .*")
			if n := e.count(); n != 1 {
				t.Errorf("%d messages stored, want 1", n)
			}
		})
	}
}

// RFC 8689 4.2.1: the promise is made where the message came over TLS, and it is kept with it.
func TestRequireTLSIsTakenAndKeptWhereThereIsTLS(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			e := startEdge(t, w.open)
			c := w.on(t, e)
			if _, secure := c.conn.(interface{ Handshake() error }); !secure {
				c.ask("MAIL FROM:<anna@ok.test> REQUIRETLS", "(?s)555-.*reason=parameter-unknown .*")
				return
			}
			c.ask("MAIL FROM:<anna@ok.test> REQUIRETLS=yes", "(?s)501-.*")
			c.ask("MAIL FROM:<anna@ok.test> REQUIRETLS", "250 .*")
			c.ask("RCPT TO:<carl@sink.test>", "250 .*")
			c.data(text("anna@ok.test"), queuedAs)
			if messages, _ := e.stored(); !messages[0].RequireTLS {
				t.Error("the promise was forgotten")
			}
		})
	}
}

// Parameters stand in words that hold neither spaces nor control bytes, also once they are decoded: they are written to the
// next server, and into notifications.
func TestOnEveryWayInMalformedParametersAreRefused(t *testing.T) {
	for _, w := range ways() {
		e := startEdge(t, func(o *setup) {
			w.open(o)
			o.limits.Errors = 100
		})
		c := w.on(t, e)
		for _, param := range []string{
			"ENVID=", "ENVID=a+", "ENVID=a+4", "ENVID=a+0D+0A", "ENVID=a+00", "ENVID=a+7F", "ENVID=a+FF", "ENVID=a+2b", "ENVID=a=b",
			"ENVID=" + strings.Repeat("x", 101), "ENVID=a ENVID=b", "ENVID=ä", "RET", "RET=", "RET=FULL,HDRS", "SIZE", "SIZE=", "SIZE=+1",
			"SIZE=1e3", "SIZE=0x10", "SIZE=123456789012345678901", "BODY", "BODY=BINARYMIME", "SMTPUTF8=", "SIZE=1\x00", "SIZE=1\tRET=HDRS",
			"NOTIFY=NEVER", "MT-PRIORITY=1", "=", "=x", "\x00", "X\nRCPT",
		} {
			c.ask("MAIL FROM:<anna@ok.test> "+param, `(?s)5[05][15]-[^\n]*\n5[05][15] [^\n]*`)
		}
		c.ask("MAIL FROM:<anna@ok.test>  size=10  Ret=hdrs ", "250 .*")
		for _, param := range []string{
			"ORCPT=", "ORCPT=rfc822", "ORCPT=rfc822;", "ORCPT=;a@b.test", "ORCPT=rfc822;a+0Ab@c.test", "ORCPT=rfc822;a+00@c.test",
			"ORCPT=rfc 822;a@b.test", "ORCPT=rfc822;é@b.test", `ORCPT=utf-8;\x{D800}@b.test`, `ORCPT=utf-8;\x{0A}@b.test`,
			`ORCPT=utf-8;\x{110000}@b.test`, `ORCPT=utf-8;\x{4`, `ORCPT=utf-8;a\b@c.test`, "ORCPT=utf-8;\xff@b.test",
			"ORCPT=rfc822;" + strings.Repeat("x", 500), "ORCPT=rfc822;a@b.test ORCPT=rfc822;a@b.test", "NOTIFY", "NOTIFY=", "NOTIFY=NEVER,FAILURE",
			"NOTIFY=FAILURE,", "NOTIFY=FAILURE,FAILURE", "NOTIFY=ALWAYS", "SIZE=1", "RET=HDRS", "NOTIFY=NEVER\nDATA",
		} {
			c.ask("RCPT TO:<carl@sink.test> "+param, `(?s)5[05][15]-[^\n]*\n5[05][15] [^\n]*`)
		}
		c.ask("DATA", "(?s)503-.*")
		c.ask("RCPT TO:<carl@sink.test> NOTIFY=failure,Delay ORCPT=RFC822;a+20b@c.test", "250 .*")
		c.data(text("anna@ok.test"), queuedAs)
		messages, _ := e.stored()
		if r := messages[0].Recipients[0]; r.ORCPT != "rfc822;a+20b@c.test" || fmt.Sprint(r.Notify) != "[FAILURE DELAY]" {
			t.Errorf("%s: kept %+v", w.name, r)
		}
	}
}

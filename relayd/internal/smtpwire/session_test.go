package smtpwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api/reason"

	"github.com/emersion/go-smtp"
)

func TestPipelinedCommandsAreAnsweredInOneWrite(t *testing.T) {
	d := &diary{}
	conn := play(t, d, nil, "EHLO c.test\r\n", "MAIL FROM:<a@ok.test>\r\nRCPT TO:<b@ok.test>\r\nRCPT TO:<denied@ok.test>\r\nDATA\r\n", "x\r\n.\r\n", "QUIT\r\n")
	if want := 5; conn.writes != want { // greeting, EHLO, envelope, message, QUIT
		t.Errorf("%d writes, want %d: %q", conn.writes, want, conn.out.String())
	}
}

func TestEveryLineOfARefusalHasItsEnhancedCode(t *testing.T) {
	out := play(t, &diary{}, nil, envelope[:strings.Index(envelope, "DATA")]+"RCPT TO:<denied@ok.test>\r\nFROB\r\n").out.String()
	for _, want := range []string{
		"550-5.7.1 No\r\n550 5.7.1 reason=x\r\n",
		"500-5.5.1 Command not recognised\r\n500 5.5.1 reason=command-unknown\r\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in %q", want, out)
		}
	}
}

func TestErrorsOfOursAreNotShown(t *testing.T) {
	var causes []error
	set := func(c *Config) {
		c.Refuse = func(_ *Conn, r Refusal) reason.Reply {
			causes = append(causes, r.Cause)
			return reason.Render(r.Slug, reason.Args{Ref: "incident"})
		}
	}
	out := play(t, &diary{}, set, "EHLO c.test\r\nMAIL FROM:<a@ok.test>\r\nRCPT TO:<poison@ok.test>\r\n").out.String()
	if strings.Contains(out, "/a/path") || !strings.Contains(out, "451 4.3.0 reason=internal ref=incident") {
		t.Error(out)
	}
	if len(causes) != 1 || !errors.Is(causes[0], errPoison) {
		t.Errorf("causes for the log: %v", causes)
	}
}

func TestAReplyCannotBecomeTwo(t *testing.T) {
	d := &diary{mail: func(string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "x\r250 2.0.0 Ok\x00\xff" + strings.Repeat("y", 2000)}
	}}
	got := codes(t, play(t, d, nil, "EHLO c.test\r\nMAIL FROM:<a@ok.test>\r\n").out.String())
	if len(got) != 3 || got[2] != "550 5.1.1" {
		t.Errorf("replies %q", got)
	}
}

func TestErrorsAndJunkEndTheConnection(t *testing.T) {
	cases := []struct {
		name, command string
		stressed      bool
		answered      int
	}{
		{name: "errors", command: "FROB\r\n", answered: 21},
		{name: "NOOP", command: "NOOP\r\n", answered: 101},
		{name: "RSET", command: "RSET\r\n", answered: 101},
		{name: "MAIL and RSET", command: "MAIL FROM:<a@ok.test>\r\nRSET\r\n", answered: 202},
		{name: "VRFY", command: "VRFY a\r\n", answered: 101},
		{name: "EHLO again", command: "EHLO c.test\r\n", answered: 101},
		{name: "errors under stress", command: "FROB\r\n", stressed: true, answered: 2},
		{name: "junk under stress", command: "NOOP\r\n", stressed: true, answered: 2},
		{name: "MAIL and RSET under stress", command: "MAIL FROM:<a@ok.test>\r\nRSET\r\n", stressed: true, answered: 4},
		{name: "lines too long", command: strings.Repeat("x", 5000) + "\r\n", answered: 21},
	}
	for _, c := range cases {
		set := func(config *Config) { config.Stressed = func() bool { return c.stressed } }
		got := codes(t, play(t, &diary{}, set, "EHLO c.test\r\n"+strings.Repeat(c.command, 300)).out.String())
		got = got[2:]
		if len(got) != c.answered+1 || got[len(got)-1] != "421 4.7.0" {
			t.Errorf("%s: %d replies, the last %q; want %d and then 421", c.name, len(got), got[len(got)-1], c.answered)
		}
	}
}

func TestJunkIsForgivenToWhoBringsMessages(t *testing.T) {
	message := "RSET\r\nNOOP\r\nMAIL FROM:<a@ok.test>\r\nRCPT TO:<b@ok.test>\r\nDATA\r\nx\r\n.\r\n"
	d := &diary{}
	play(t, d, nil, "EHLO c.test\r\n"+strings.Repeat(message, 120))
	if len(d.bodies) != 120 {
		t.Errorf("%d messages of 120 came through", len(d.bodies))
	}
}

func TestALineMayBeSoLong(t *testing.T) {
	line := func(front string, length int) string {
		return front + strings.Repeat("x", length-len(front)-2) + "\r\n"
	}
	base64 := func(length int) string { return strings.Repeat("A", length-2) + "\r\n" }
	cases := []struct {
		name, lines, want string
	}{
		{name: "command of 4 KiB", lines: line("NOOP ", maxCommandBytes), want: "250 2.0.0"},
		{name: "and one byte", lines: line("NOOP ", maxCommandBytes+1), want: "500 5.5.2"},
		{name: "longer than the buffer", lines: line("NOOP ", bigBuffer+500), want: "500 5.5.2"},
		{name: "almost too long to skip", lines: line("NOOP ", maxSkippedBytes), want: "500 5.5.2"},
		{name: "AUTH of 12 KiB", lines: line("AUTH NONE ", maxAuthBytes), want: "504 5.5.4"},
		{name: "and one byte", lines: line("AUTH NONE ", maxAuthBytes+1), want: "500 5.5.6"},
		{name: "response of 12 KiB", lines: "AUTH PLAIN\r\n" + base64(maxAuthBytes-2), want: "334,451 4.3.0"},
		{name: "longer response", lines: "AUTH PLAIN\r\n" + base64(maxAuthBytes+1), want: "334,500 5.5.6"},
	}
	for _, c := range cases {
		for _, chunks := range [][]string{{c.lines + "QUIT\r\n"}, strings.Split(c.lines+"QUIT\r\n", "")} {
			got := codes(t, play(t, &diary{}, nil, append([]string{"EHLO c.test\r\n"}, chunks...)...).out.String())
			if strings.Join(got[2:], ",") != c.want+",221 2.0.0" {
				t.Errorf("%s, %d chunks: %q, want %s and a living session", c.name, len(chunks), got[2:], c.want)
			}
		}
	}
	endless := strings.Repeat("x", maxSkippedBytes+1) + "\r\nQUIT\r\n"
	for _, chunks := range [][]string{{endless}, strings.Split(endless, "")} {
		got := codes(t, play(t, &diary{}, nil, chunks...).out.String())
		if strings.Join(got, ",") != "220,421 4.7.0" {
			t.Errorf("endless line in %d chunks: %q", len(chunks), got)
		}
	}
}

// However the network cuts a conversation, it is the same conversation.
func TestWhereTheNetworkCutsChangesNothing(t *testing.T) {
	conversation := "EHLO c.test\r\nMAIL FROM:<a@ok.test> SIZE=3\r\nRCPT TO:<denied@ok.test>\r\nFROB\nNOOP\r\nAUTH PLAIN\r\n" +
		"RCPT TO:<b@ok.test> NOTIFY=NEVER\r\nDATA\r\n.\r\r\n..x\r\n.y\r\r\n.\r\nRSET\r\nAUTH LOGIN\r\nYQ==\r\ncmlnaHQ=\r\nMAIL FROM:<>\r\nQUIT\r\nNOOP\r\n"
	whole := &diary{}
	want := play(t, whole, nil, conversation).out.String()
	for first := range len(conversation) {
		for _, second := range []int{first + 1, first + 2, first + 5, len(conversation)} {
			second = min(second, len(conversation))
			d := &diary{}
			got := play(t, d, nil, conversation[:first], conversation[first:second], conversation[second:]).out.String()
			if got != want || d.text() != whole.text() {
				t.Fatalf("cut at %d and %d:\n%s\nwant:\n%s", first, second, got, want)
			}
		}
	}
}

func TestAfterReplyTellsWhetherTheReplyWasWritten(t *testing.T) {
	for _, broken := range []bool{false, true} {
		var told []error
		backend := BackendFunc(func(c *Conn) (smtp.Session, error) {
			d := &diary{}
			d.read = func(r io.Reader) error {
				_, err := io.Copy(io.Discard, r)
				c.AfterReply(func(err error) { told = append(told, err) })
				if broken {
					c.Conn().(*deaf).Close()
				}
				return err
			}
			return d.session(c), nil
		})
		s, err := NewServer(backend, Config{Hostname: "mx.test"})
		if err != nil {
			t.Fatal(err)
		}
		conn := &deaf{script: script{chunks: [][]byte{[]byte(envelope + "x\r\n.\r\n")}}}
		s.enter(conn).serve()
		if len(told) != 1 || (told[0] != nil) != broken {
			t.Errorf("broken %v: told %v", broken, told)
		}
	}
}

// deaf is a script whose peer may be gone.
type deaf struct{ script }

func (d *deaf) Write(p []byte) (int, error) {
	if d.closed {
		return 0, net.ErrClosed
	}
	return d.script.Write(p)
}

func TestUnderStressAClientMayBeSilentForTenSeconds(t *testing.T) {
	for _, stressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			peer := dial(t, newServer(t, &diary{}, func(c *Config) { c.Stressed = func() bool { return stressed } }))
			peer.say("EHLO c.test\r\n")
			time.Sleep(10*time.Second - time.Millisecond)
			synctest.Wait()
			if got := peer.replies(); len(got) != 0 {
				t.Fatalf("stress %v: was told %q before its time", stressed, got)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			got := strings.Join(peer.replies(), ",")
			peer.hangUp()
			if stressed != (got == "421 4.4.2,close") {
				t.Errorf("stress %v: was told %q after ten seconds", stressed, got)
			}
		})
	}
}

// Anybody gets as far as that, with the null sender.
func TestUnderStressAStrangerMayBeSilentWithinAMessageForTenSeconds(t *testing.T) {
	for _, test := range []struct {
		name, first, from, drip string
		takes                   time.Duration
	}{
		{name: "a stranger", takes: 10 * time.Second},
		{name: "a stranger that drips", drip: "x", takes: 10 * time.Second},
		{name: "who may send from an address", from: "a@ok.test", takes: time.Minute},
		{name: "a user", first: "EHLO c.test\r\nAUTH PLAIN AGEAcmlnaHQ=\r\n", takes: time.Minute},
		{name: "who has brought a message", first: envelope + "x\r\n.\r\n", takes: time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer := dial(t, newServer(t, &diary{}, func(c *Config) { c.Stressed = func() bool { return true } }))
				time.Sleep(time.Millisecond) // a message is not accepted in the instant of the connection
				peer.say(test.first)
				peer.say(strings.Replace(envelope, "a@ok.test", test.from, 1))
				time.Sleep(test.takes / 2)
				if test.drip != "" {
					peer.say(test.drip)
				}
				time.Sleep(test.takes/2 - time.Millisecond)
				synctest.Wait()
				if got := peer.replies(); len(got) != 0 {
					t.Errorf("was told %q before its time", got)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if got := strings.Join(peer.replies(), ","); got != "451 4.3.0,close" {
					t.Errorf("was told %q after %v", got, test.takes)
				}
				peer.hangUp()
			})
		})
	}
}

func TestWhoWasIdleBeforeStressSetInHasTenSecondsFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stressed atomic.Bool
		var servers []*Server
		one := func() *client {
			servers = append(servers, newServer(t, &diary{}, func(c *Config) { c.Stressed = stressed.Load }))
			return dial(t, servers[len(servers)-1])
		}
		idle, dripping, busy := one(), one(), one()
		idle.say("EHLO c.test\r\n")
		dripping.say("EHLO c.test\r\nNO")
		time.Sleep(time.Minute)
		dripping.say("O")
		busy.say(envelope)
		stressed.Store(true)
		for _, s := range servers {
			s.Hurry()
		}
		for _, want := range []string{"", "421 4.4.2,close"} {
			synctest.Wait()
			for name, peer := range map[string]*client{"idle": idle, "dripping": dripping} {
				if got := strings.Join(peer.replies(), ","); got != want {
					t.Errorf("the %s client was told %q, want %q", name, got, want)
				}
			}
			time.Sleep(10*time.Second - time.Millisecond)
			if want == "" {
				dripping.say("O")
			}
			time.Sleep(2 * time.Millisecond)
		}
		idle.hangUp()
		dripping.hangUp()
		if got := strings.Join(busy.say("x\r\n.\r\n"), ","); !strings.HasPrefix(got, "250") {
			t.Errorf("the client in a message was told %q", got)
		}
		busy.hangUp()
	})
}

func TestSlowClientsAreLetGo(t *testing.T) {
	const command, data = 5 * time.Minute, 3 * time.Minute
	hello := []string{"EHLO c.test\r\n"}
	message := []string{envelope}
	cases := []struct {
		name  string
		first []string
		drip  string // said every pause
		pause time.Duration
		after time.Duration // the connection ends
		want  string
	}{
		{name: "silence after the greeting", after: command, want: "421 4.4.2"},
		{name: "silence between commands", first: hello, after: command, want: "421 4.4.2"},
		{name: "a command that drips", first: hello, drip: "N", pause: time.Minute, after: command, want: "421 4.4.2"},
		{name: "only NOOP", first: hello, drip: "NOOP\r\n", pause: 4 * time.Minute, after: 30 * time.Minute, want: "421 4.4.2"},
		{name: "AUTH and silence", first: append(hello, "AUTH LOGIN\r\n"), after: command, want: "421 4.4.2"},
		{name: "no EHLO", drip: "NOOP\r\n", pause: 2 * time.Minute, after: command, want: "421 4.4.2"},
		{name: "silence in a message", first: message, after: time.Minute, want: "451 4.3.0"},
		{name: "a message that drips", first: message, drip: "x", pause: 10 * time.Second, after: time.Minute, want: "451 4.3.0"},
		{name: "a pause in a message", first: append(message, strings.Repeat("x", 100<<10)), after: data, want: "451 4.3.0"},
		{
			name: "a message without end", first: message, drip: strings.Repeat("x\r\n", 10000), pause: 50 * time.Second,
			after: 30 * time.Minute, want: "451 4.3.0",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				notes := &diary{}
				peer := dial(t, newServer(t, notes, nil))
				began := time.Now()
				var heard []string
				for _, s := range c.first {
					heard = append(heard, peer.say(s)...)
				}
				for time.Since(began) < c.after+time.Second {
					if d := c.after + time.Second - time.Since(began); c.drip == "" || c.pause > d {
						time.Sleep(d)
						synctest.Wait()
					} else {
						time.Sleep(c.pause)
						heard = append(heard, peer.say(c.drip)...)
					}
					heard = append(heard, peer.replies()...)
					if slices.Contains(heard, "close") && time.Since(began) < c.after {
						t.Fatalf("closed after %v: %q", time.Since(began), heard)
					}
				}
				end := slices.Index(heard, "close")
				if end < 1 || heard[end-1] != c.want {
					t.Errorf("heard %q, want %s and the end", heard, c.want)
				}
				peer.hangUp()
			})
		})
	}
}

func TestWhatComesAfterAStalledMessageIsNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := &diary{}
		c := dial(t, newServer(t, notes, nil))
		c.say(envelope + "half")
		time.Sleep(5 * time.Minute)
		c.say("\r\n.\r\nMAIL FROM:<evil@ok.test>\r\n")
		c.hangUp()
		if strings.Contains(notes.text(), "evil") || len(notes.bodies) > 0 {
			t.Error(notes.text())
		}
	})
}

func TestShutdownLetsMessagesFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := &diary{}
		s := newServer(t, notes, nil)
		idle, busy := dial(t, s), dial(t, s)
		idle.say("EHLO c.test\r\n")
		busy.say(envelope + "half")
		idle.replies()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		if got := strings.Join(idle.replies(), ","); got != "421 4.3.2,close" {
			t.Errorf("the idle client heard %q", got)
		}
		select {
		case <-down:
			t.Fatal("Shutdown did not wait for the message")
		default:
		}
		got := strings.Join(busy.say(" and half\r\n.\r\nMAIL FROM:<next@ok.test>\r\n"), ",")
		if !strings.HasSuffix(got, "250 2.0.0,421 4.3.2,close") || len(notes.bodies) != 1 {
			t.Errorf("the busy client heard %q", got)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
		for _, c := range []*client{idle, busy} {
			if err := <-c.served; !errors.Is(err, smtp.ErrServerClosed) {
				t.Error(err)
			}
		}
	})
}

func TestShutdownLosesItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := &diary{}
		s := newServer(t, notes, nil)
		c := dial(t, s)
		c.say(envelope + "half")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("Shutdown took %v", took)
		}
		if len(notes.bodies) != 0 || !strings.HasSuffix(notes.text(), "logout") {
			t.Error(notes.text())
		}
		c.hangUp()
	})
}

func TestPanicsStayInTheirConnection(t *testing.T) {
	set := func(d *diary) { d.read = func(io.Reader) error { panic("as asked") } }
	d := &diary{}
	set(d)
	got := codes(t, play(t, d, nil, envelope+"x\r\n.\r\nNOOP\r\n").out.String())
	if got[len(got)-1] != "421 4.3.0" || len(got) != 6 {
		t.Errorf("in Data: %q", got)
	}
	d = &diary{made: func(Peer) error { panic("as asked") }}
	if got := codes(t, play(t, d, nil, "EHLO c.test\r\nNOOP\r\n").out.String()); strings.Join(got, ",") != "220,421 4.3.0" {
		t.Errorf("in NewSession: %q", got)
	}
}

func TestRejectAndRefusedSessions(t *testing.T) {
	d := &diary{made: func(p Peer) error { p.Reject(); return errors.New("rejected") }}
	if got := codes(t, play(t, d, nil, "EHLO c.test\r\nNOOP\r\n").out.String()); strings.Join(got, ",") != "220,421 4.7.0" {
		t.Errorf("Reject: %q", got)
	}
	d = &diary{made: func(Peer) error { return errPoison }}
	got := codes(t, play(t, d, nil, "EHLO c.test\r\nMAIL FROM:<a@ok.test>\r\n").out.String())
	if strings.Join(got, ",") != "220,451 4.3.0,503 5.5.1" {
		t.Errorf("an error: %q", got)
	}
}

func TestReadErrorsThatAreNotTimeoutsSayNothing(t *testing.T) {
	for _, said := range []string{"", "EHLO c.test\r\nNO", envelope + "half\r\n"} {
		s := newServer(t, &diary{}, nil)
		conn := &script{chunks: [][]byte{[]byte(said)}, end: os.ErrClosed}
		s.enter(conn).serve()
		if got := codes(t, conn.out.String()); len(got) > 0 && got[len(got)-1][0] != '2' && got[len(got)-1] != "354" {
			t.Errorf("after %q: %q", said, got)
		}
	}
}

// The reasons that only the engine gives, each on the wire.
func TestEveryReasonOfTheEngineIsSaid(t *testing.T) {
	hello := "EHLO c.test\r\n"
	long := strings.Repeat("x", MaxLineBytes+1) + "\r\n"
	cases := []struct {
		slug reason.Slug
		v    reason.Variant
		said string
	}{
		{slug: reason.NotSMTP, said: "GET / HTTP/1.1\r\n"},
		{slug: reason.CommandUnknown, said: "FROB\r\n"},
		{slug: reason.CommandNotOffered, said: "ETRN x\r\n"},
		{slug: reason.CommandSyntax, said: hello + "MAIL FROM:x\r\n"},
		{slug: reason.CommandSequence, said: "RCPT TO:<a@ok.test>\r\n"},
		{slug: reason.ParameterUnknown, said: hello + "MAIL FROM:<a@ok.test> X=1\r\n"},
		{slug: reason.TooManyErrors, said: strings.Repeat("FROB\r\n", 30)},
		{slug: reason.LineTooLong, said: strings.Repeat("x", maxCommandBytes) + "\r\n"},
		{slug: reason.LineTooLong, v: reason.InAuth, said: hello + "AUTH PLAIN\r\n" + strings.Repeat("x", maxAuthBytes) + "\r\n"},
		{slug: reason.LineTooLong, v: reason.InMessage, said: envelope + long + ".\r\n"},
		{slug: reason.AuthCancelled, said: hello + "AUTH PLAIN\r\n*\r\n"},
		{slug: reason.AuthMechanism, said: hello + "AUTH NTLM\r\n"},
		{slug: reason.MessageTooLarge, said: envelope + strings.Repeat("x\r\n", 40000) + ".\r\n"},
		{slug: reason.MessageTooLarge, said: hello + "MAIL FROM:<a@ok.test> SIZE=100001\r\n"},
		{slug: reason.Internal, v: reason.AtConnect, said: hello + "MAIL FROM:<a@ok.test>\r\nRCPT TO:<panic@ok.test>\r\n"},
	}
	for _, c := range cases {
		d := &diary{read: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }}
		out := play(t, d, func(config *Config) { config.MaxMessageBytes = 100000 }, c.said).out.String()
		row, _ := reason.Lookup(c.slug)
		code, _ := row.Under(c.v)
		want := fmt.Sprintf("%d %s reason=%s", code.SMTP, code.Enhanced, c.slug)
		if !strings.Contains(out, want) {
			t.Errorf("%s under %q: want %q in %q", c.slug, c.v, want, out)
		}
	}
}

package smtpd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"activerelay/api"
)

func normalise(s *api.Settings) { s.BareNewline = api.SettingsBareNewlineNormalise }

// vectors are the ends of data that servers have disagreed about.
func vectors() []string {
	return []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r.\n", "\r\n.\r", "\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
		"\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n.\r\r\n.\r\n", "\n\r.\n\r", "\r\n .\r\n", "\r\n. \r\n",
	}
}

// Whatever a message holds that looks like its end, it is one message or none,
// and what follows is never a message of somebody else.
func TestNoVectorMakesTwoMessagesOfOne(t *testing.T) {
	for _, w := range ways() {
		for _, mend := range []bool{false, true} {
			e := startEdge(t, func(o *setup) {
				w.open(o)
				if mend {
					o.world.settings(normalise)
				}
			})
			for _, vector := range vectors() {
				t.Run(fmt.Sprintf("%s %q normalise=%v", w.name, vector, mend), func(t *testing.T) {
					before, c := e.count(), w.on(t, e)
					c.envelope("anna@ok.test", "carl@sink.test")
					c.ask("DATA", "354 .*")
					c.raw(text("anna@ok.test") + "before" + vector + "MAIL FROM:<x@other.test>\r\nRCPT TO:<victim@sink.test>\r\n" +
						"DATA\r\nFrom: x@other.test\r\n\r\nsmuggled\r\n.\r\nQUIT\r\n")
					rest, err := io.ReadAll(c.in)
					if isDeadline(err) {
						t.Fatalf("the server hangs after %q", rest)
					}
					said, stored := strings.Count(string(rest), "queued as"), e.count()-before
					if stored > 1 || said != stored {
						t.Errorf("%d messages stored, %d acknowledged in %q", stored, said, rest)
					}
				})
			}
			e.checkStoredIsOf(w)
		}
	}
}

func TestMessageWithOddLineEndsIsTheLastOfItsConnection(t *testing.T) {
	for _, w := range ways() {
		for _, mend := range []bool{false, true} {
			e := startEdge(t, func(o *setup) {
				w.open(o)
				if mend {
					o.world.settings(normalise)
				}
			})
			odd := func() *client {
				c := w.on(t, e)
				c.mail("anna@ok.test", text("anna@ok.test")+"bare\nfeed\r\n", "(?s)250.*|550-.*")
				return c
			}
			odd().ask("QUIT", "221 .*")
			last := said(421, "4.7.0", "session-limit", "This connection has done enough; open a new one")
			c := odd()
			c.ask("MAIL FROM:<x@other.test>", last)
			c.ended()
			c = odd()
			c.ask("EHLO client.test", "(?s)250-.*") // which is no new beginning
			c.ask("MAIL FROM:<x@other.test>", last)
			c.ended()
		}
	}
}

// Whoever is refused early is looked at to the end: a message that is too large, has too long a line or finds no room must not
// open the way for line ends that would have ended the connection.
func TestOddLineEndsBehindARefusalAreNotForgotten(t *testing.T) {
	for _, test := range []struct{ name, filler, refusal string }{
		{name: "too large", filler: strings.Repeat("0123456789abcdef\r\n", 1<<16), refusal: "552"},
		{name: "too long a line", filler: strings.Repeat("x", 65<<10) + "\r\n", refusal: "554"},
		{name: "no room", filler: strings.Repeat("0123456789abcdef\r\n", 1<<15), refusal: "452"},
	} {
		for _, mend := range []bool{false, true} {
			for _, odd := range []string{"\n", "\r", "\x00"} {
				t.Run(fmt.Sprintf("%s %q normalise=%v", test.name, odd, mend), func(t *testing.T) {
					e := startEdge(t, func(o *setup) {
						if mend {
							o.world.settings(normalise)
						}
					})
					var full atomic.Bool
					full.Store(test.name == "no room")
					e.faults.Store(func(op, path string) error {
						if op == "write" && strings.Contains(path, "/spool/") && full.Load() {
							full.Store(false) // there is room again for what follows
							return syscall.ENOSPC
						}
						return nil
					})
					c := e.hello()
					c.envelope("anna@ok.test", "carl@sink.test")
					c.ask("DATA", "354 .*")
					c.raw(text("anna@ok.test") + test.filler + "odd" + odd + "\r\n.\r\nMAIL FROM:<x@other.test>\r\nRCPT TO:<victim@sink.test>\r\n" +
						"DATA\r\n" + text("x@other.test") + ".\r\nQUIT\r\n")
					c.want("(?s)" + test.refusal + "-.*")
					c.want("(?s)421-.*reason=session-limit .*")
					c.ended()
					if messages, _ := e.stored(); len(messages) != 0 {
						t.Errorf("%d messages stored, want none", len(messages))
					}
				})
			}
		}
	}
}

func TestARefusedMessageTakesNoRoomWhileTheRestOfItComes(t *testing.T) {
	e := startEdge(t, nil)
	dirs := make(chan string, 1)
	e.faults.Store(func(op, path string) error {
		if op == "create" && strings.HasSuffix(path, "/spool") {
			dirs <- path
		}
		return nil
	})
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.ask("DATA", "354 .*")
	c.raw(text("anna@ok.test") + strings.Repeat("0123456789abcdef\r\n", 1<<16)) // too large, and there is more to come
	dir := <-dirs
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		files, err := os.ReadDir(dir)
		e.must(err)
		if len(e.lines("message-too-large")) > 0 && len(files) == 0 {
			break
		}
		if tries == 500 {
			t.Fatalf("%d files are left after the refusal", len(files))
		}
		<-tick.C
	}
	c.raw(".\r\n")
	c.want("(?s)552-.*")
	c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
}

// What is in order is not the last of its connection because it was refused.
func TestARefusedMessageWithRegularLinesIsNotTheLastOfItsConnection(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.mail("anna@ok.test", text("anna@ok.test")+strings.Repeat("0123456789abcdef\r\n", 1<<16), "(?s)552-.*")
	c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
}

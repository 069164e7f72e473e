package smtpd

import (
	"encoding/base64"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/spool"
)

// spoken is a client that says what it has to say and hangs up: a connection in memory, each chunk one read.
type spoken struct {
	chunks []string
	heard  strings.Builder
	closed chan struct{}
}

func (s *spoken) Read(p []byte) (int, error) {
	if len(s.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	if s.chunks[0] = s.chunks[0][n:]; s.chunks[0] == "" {
		s.chunks = s.chunks[1:]
	}
	return n, nil
}

func (s *spoken) Write(p []byte) (int, error)      { return s.heard.Write(p) }
func (s *spoken) Close() error                     { close(s.closed); return nil }
func (s *spoken) LocalAddr() net.Addr              { return loopback() }
func (s *spoken) RemoteAddr() net.Addr             { return loopback() }
func (s *spoken) SetDeadline(time.Time) error      { return nil }
func (s *spoken) SetReadDeadline(time.Time) error  { return nil }
func (s *spoken) SetWriteDeadline(time.Time) error { return nil }

func loopback() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

// memory is a listener for them.
type memory chan net.Conn

func (m memory) Accept() (net.Conn, error) {
	if conn, open := <-m; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (m memory) Close() error   { return nil }
func (m memory) Addr() net.Addr { return loopback() }

// serveMemory is for clients in memory, of a server that is never slow on purpose.
func serveMemory(f *testing.F) (*edge, memory) {
	e := startEdge(f, func(o *setup) {
		o.limits.AuthFailuresPerMinute, o.limits.UserMessagesPerMinute = 1<<30, 1<<30
		o.limits.QuotaWait = 10 * time.Millisecond
	})
	e.bank.setLimit("ok.test", 1<<40)
	for began := time.Now(); len(e.queued) == 0; { // units are there from now on
		e.hello().mail("anna@ok.test", text("anna@ok.test"), "(?s).*")
		if time.Since(began) > patience {
			f.Fatal("no units are lent")
		}
	}
	e.emptied()
	<-e.queued
	clients, served := make(memory), make(chan struct{})
	go func() {
		defer close(served)
		_ = e.server.Serve(clients, Relay) // its listener is closed
	}()
	f.Cleanup(func() {
		close(clients)
		<-served
	})
	return e, clients
}

// emptied returns the messages in the spool and their texts, and forgets them, and the log.
func (e *edge) emptied() (messages []*spool.Message, texts []string, log string) {
	e.t.Helper()
	messages, texts = e.stored()
	if len(messages) > 0 {
		b := e.journal.NewBatch()
		defer b.Discard()
		for _, m := range messages {
			e.spool.Remove(b, m.ID)
		}
		e.must(e.journal.Commit(b))
	}
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	log = e.log.buf.String()
	e.log.buf.Reset()
	return messages, texts, log
}

var (
	replyLine = regexp.MustCompile(`^([2-5][0-5][0-9])([ -])[ -~]*$`)
	queued    = regexp.MustCompile(`(?m)^250 2\.0\.0 Ok: queued as ([0-9A-Z]{26})\r$`)
)

// Whatever a client sends to a server with everything real around it: what is answered 250 is in the spool as it came, and nothing
// else is; every reply is one; nothing panics; no trouble of our own is logged.
func FuzzSession(f *testing.F) {
	const hello, envelope = "EHLO client.test\r\n", "MAIL FROM:<anna@ok.test>\r\nRCPT TO:<carl@sink.test>\r\n"
	login := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00anna@ok.test\x00"+password)) + "\r\n"
	letter := text("anna@ok.test")
	for _, said := range []string{
		hello + envelope + "DATA\r\n" + letter + ".\r\n" + envelope + "DATA\r\n" + letter + "..x\r\n.\r\nQUIT\r\n",
		hello + login + envelope + "DATA\r\n" + letter + ".\r\n",
		hello + "AUTH LOGIN\r\nYW5uYUBvay50ZXN0\r\nd3Jvbmc=\r\n" + envelope + "DATA\r\n" + letter + "\n.\r\n.\r\n" + envelope + "DATA\r\n",
		"HELO x\r\nMAIL FROM:<> SIZE=10\r\nRCPT TO:<\"c d\"@sink.test>\r\nRSET\r\nVRFY x\r\nHELP\r\nNOOP\r\nEXPN y\r\nETRN\r\nSTARTTLS\r\n",
		hello + "MAIL FROM:<anna@ok.test> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb REQUIRETLS\r\n" +
			"RCPT TO:<c\xc3\xa4rl@sink.test> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;c\\x{E4}rl@sink.test\r\nDATA\r\n" + letter + "\xc3\xa4\r\n.\r\n",
		hello + "MAIL FROM:<>\r\nRCPT TO:<carl@sink.test>\r\nDATA\r\nFrom: =?utf-8?q?a?= (c) <anna@ok.test>\r\nList-Id: x\r\n\r\n\r\n.\r\n",
		hello + envelope + "DATA\r\nFrom: anna@ok.test\r\nFrom: bo@ok.test\r\n\r\n.\r\n" + envelope + "BDAT 3 LAST\r\nabc",
		hello + envelope + "DATA\r\nFrom: anna@ok.test\r\nX5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\r\n.\r\n",
		hello + "MAIL FROM:<x@suspended.test>\r\nRCPT TO:<a@sink.test>\r\nRCPT TO:<b@sink.test>\r\nDATA\r\nMAIL FROM:<x@unlent.test>\r\n",
		hello + envelope + "DATA\r\n" + letter + strings.Repeat("z", 600) + "\r\n.\r",
	} {
		f.Add(said, uint16(9))
		f.Add(said, uint16(699))
	}
	e, clients := serveMemory(f)
	f.Fuzz(func(t *testing.T, said string, size uint16) {
		e.t = t
		c := &spoken{closed: make(chan struct{})}
		for rest := said; rest != ""; {
			n := min(int(size)%700+1, len(rest))
			c.chunks, rest = append(c.chunks, rest[:n]), rest[n:]
		}
		clients <- c
		<-c.closed
		messages, texts, log := e.emptied()
		heard := c.heard.String()
		if strings.Contains(log, "level=ERROR") {
			t.Errorf("logged\n%s", log)
		}
		checkReplies(t, heard)
		var acknowledged, kept, delivered []string // ids of one millisecond are in no order
		for _, m := range queued.FindAllStringSubmatch(heard, -1) {
			acknowledged = append(acknowledged, m[1])
		}
		for i, m := range messages {
			kept = append(kept, m.ID)
			if len(m.Recipients) == 0 || !cameAs(t, said, texts[i], m.User != "") {
				t.Errorf("for %d recipients was stored, without having come:\n%q", len(m.Recipients), texts[i])
			}
		}
		for len(e.queued) > 0 {
			delivered = append(delivered, <-e.queued)
		}
		slices.Sort(acknowledged)
		slices.Sort(kept)
		slices.Sort(delivered)
		if !slices.Equal(acknowledged, kept) || !slices.Equal(delivered, kept) {
			t.Errorf("acknowledged %q, stored %q, to be delivered %q", acknowledged, kept, delivered)
		}
		if t.Failed() {
			t.Logf("said %q\nheard %s", said, heard)
		}
	})
}

// checkReplies holds that every line is a reply, or a part of one of several lines with the same code.
func checkReplies(t *testing.T, heard string) {
	t.Helper()
	if heard != "" && !strings.HasSuffix(heard, "\r\n") {
		t.Errorf("the last reply is no line")
	}
	begun := ""
	for line := range strings.Lines(heard) {
		m := replyLine.FindStringSubmatch(strings.TrimSuffix(line, "\r\n"))
		if m == nil || len(line) > 512 || begun != "" && m[1] != begun {
			t.Errorf("%q is no reply, or another one than %q", line, begun)
			return
		}
		if begun = ""; m[2] == "-" {
			begun = m[1]
		}
	}
	if begun != "" {
		t.Errorf("reply %s has no end", begun)
	}
}

// cameAs reports whether a stored text, without the fields that we add, is what a client said, without the dots of RFC 5321 4.5.2.
func cameAs(t *testing.T, said, stored string, user bool) bool {
	t.Helper()
	lines := strings.Split(said, "\r\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], ".")
	}
	came, rest := strings.Join(lines, "\r\n"), below(t, stored)
	for added := 2; user && added > 0 && !strings.Contains(came, rest); added-- { // Date and Message-ID
		_, rest, _ = strings.Cut(rest, "\r\n")
	}
	return strings.HasSuffix(rest, "\r\n") && strings.Contains(came, rest)
}

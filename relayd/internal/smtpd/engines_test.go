package smtpd

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"activerelay/relayd/internal/smtpwire"

	"github.com/emersion/go-smtp"
)

// stockConn makes a connection of go-smtp what a session asks for, as far as that
// engine lets it.
type stockConn struct{ smtpwire.Peer }

func (stockConn) Context() context.Context { return context.Background() }
func (stockConn) AfterReply(func(error))   {}

// onStock serves the sessions of an edge with the engine of go-smtp too.
func (e *edge) onStock() {
	e.t.Helper()
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return e.server.newSession(Relay, stockConn{c}), nil
	}))
	s.Domain = e.server.Hostname
	s.AllowInsecureAuth = true
	s.EnableSMTPUTF8, s.EnableDSN, s.EnableREQUIRETLS = true, true, true
	s.ReadTimeout, s.WriteTimeout, s.MaxLineLength = patience, patience, smtpwire.MaxLineBytes
	s.ErrorLog = stockLog{e.log}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	e.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	e.t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
}

// stockLog takes the complaints of go-smtp.
type stockLog struct{ w io.Writer }

func (l stockLog) Printf(format string, args ...any) { fmt.Fprintf(l.w, format, args...) }
func (l stockLog) Println(args ...any)               { fmt.Fprintln(l.w, args...) }

// talk says all at once, hangs up and returns what came of it: the codes of the
// replies and the messages that were stored, in the order of acceptance.
func (e *edge) talk(says string) string {
	e.t.Helper()
	c := e.connect()
	if _, err := c.reply(); err != nil {
		e.t.Fatal(err)
	}
	c.raw(says)
	e.must(c.conn.(*net.TCPConn).CloseWrite())
	var out []string
	for {
		got, err := c.reply()
		if isDeadline(err) {
			e.t.Fatalf("hangs after %q", out)
		}
		if err != nil {
			break
		}
		out = append(out, got[:3])
	}
	messages, texts := e.stored()
	lines := map[string]string{}
	for i, m := range messages {
		lines[m.ID] = fmt.Sprintf("<%s> %v %q", m.From, m.Recipients[0].Address, below(e.t, texts[i]))
	}
	for range messages { // ids of one millisecond have no order: the queue has
		out = append(out, lines[<-e.queued])
	}
	return strings.Join(out, "\n")
}

// dialogs are the conversations of the engine's own tests, and some with mail
// that is accepted.
func dialogs(t *testing.T) map[string]string {
	t.Helper()
	envelope := "EHLO c.test\r\nMAIL FROM:<anna@ok.test>\r\nRCPT TO:<carl@sink.test>\r\nDATA\r\n"
	letter := text("anna@ok.test")
	all := map[string]string{
		"a letter":            envelope + letter + ".\r\nQUIT\r\n",
		"two letters":         envelope + letter + ".\r\n" + envelope[len("EHLO c.test\r\n"):] + letter + "..dots\r\n.\r\nQUIT\r\n",
		"a refused letter":    envelope + text("x@rival.test") + ".\r\nQUIT\r\n",
		"a stranger":          "EHLO c.test\r\nMAIL FROM:<x@nowhere.test>\r\nRCPT TO:<carl@sink.test>\r\nQUIT\r\n",
		"a letter cut off":    envelope + letter,
		"a letter and RSET":   envelope + letter + ".\r\nRSET\r\nNOOP\r\nQUIT\r\n",
		"bare LF in a letter": envelope + letter + "a\nb\r\n.\r\nQUIT\r\n",
		"SMTPUTF8":            "EHLO c.test\r\nMAIL FROM:<müller@ok.test> SMTPUTF8\r\nRCPT TO:<jürgen@bücher.test>\r\nDATA\r\n" + text("müller@ok.test") + ".\r\nQUIT\r\n",
		"DSN":                 "EHLO c.test\r\nMAIL FROM:<anna@ok.test> RET=HDRS ENVID=a+2Bb\r\nRCPT TO:<carl@sink.test> NOTIFY=DELAY\r\nDATA\r\n" + letter + ".\r\nQUIT\r\n",
	}
	files, err := filepath.Glob("../smtpwire/testdata/*.dialog")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogs", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var says strings.Builder
		for line := range strings.Lines(string(raw)) {
			if quoted, ok := strings.CutPrefix(strings.TrimSpace(line), "> "); ok {
				said, err := strconv.Unquote(`"` + strings.ReplaceAll(quoted, `"`, `\"`) + `"`)
				if err != nil {
					t.Fatal(file, err)
				}
				says.WriteString(said)
			}
		}
		all[strings.TrimSuffix(filepath.Base(file), ".dialog")] = says.String()
	}
	return all
}

// The same session runs on both engines. Where they differ, it is known why.
func TestSessionsRunOnBothEngines(t *testing.T) {
	differ := map[string]string{
		"a letter cut off": "go-smtp says the session's 421 to a client that hung up; nobody is there, says ours",
		"addresses":        "go-smtp takes off source routes and needless quotes, and takes paths without brackets",
		"auth":             "go-smtp has codes of its own for what is not base64 (454) and for unknown mechanisms",
		"crcrlf":           "go-smtp does not see the end of data",
		"helo":             "go-smtp takes parameters after HELO",
		"http":             "go-smtp has no word for HTTP",
		"lines":            "go-smtp takes commands that end in a bare LF, and does not bound them",
		"order":            "go-smtp takes MAIL and AUTH within a message, and says 502 where RFC 5321 has 503",
		"params":           "go-smtp takes some parameters that are malformed, double or not offered",
		"partial":          "go-smtp runs a command that the end of the connection cut off",
		"passwords":        "go-smtp does not count wrong passwords",
		"small-talk":       "go-smtp has codes of its own for commands that are not offered or have an argument too many",
		"tls-hello":        "go-smtp has no word for TLS on the wrong port",
	}
	for name, says := range dialogs(t) {
		if name == "chunking" {
			continue // go-smtp runs Data beside the other methods, which a session is not made for
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, stock := startEdge(t, nil), startEdge(t, nil)
			stock.onStock()
			got, other := ours.talk(says), stock.talk(says)
			switch why := differ[name]; {
			case got != other && why == "":
				t.Errorf("our engine:\n%s\ngo-smtp:\n%s", got, other)
			case got == other && why != "":
				t.Errorf("the engines agree though it is said: %s", why)
			}
		})
	}
}

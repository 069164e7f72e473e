package smtpwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
)

// A dialog is a file of steps, run on our engine and on that of go-smtp:
//
//	# what it shows
//	> EHLO c.test\r\n          what the client sends, as a Go string without quotes
//	< 250                      a reply of ours: code, enhanced code
//	~ 250; 501 | why           instead, what the other engine replies to this step
//	= mail "a@ok.test"         in the end: what our session was asked
//	~= mail "x" | why          in the end: what the other engine's session was asked
//
// Where nothing is said of the other engine, its codes (without enhanced codes)
// and its session are the same. "close" is a connection that was closed.
type dialog struct {
	steps        []dialogStep
	ours, theirs []string
}

type dialogStep struct {
	send         string
	ours, theirs []string
	reason       string // why theirs differs; "" when it does not
}

func readDialog(t *testing.T, file string) dialog {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := dialog{steps: []dialogStep{{}}}
	for i, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		mark, text, _ := strings.Cut(line, " ")
		last := &d.steps[len(d.steps)-1]
		switch mark {
		case "#", "":
		case ">":
			send, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
			d.steps = append(d.steps, dialogStep{send: send})
		case "<":
			last.ours = append(last.ours, text)
		case "~":
			replies, why, found := strings.Cut(text, " | ")
			if !found || why == "" {
				t.Fatalf("%s:%d: a difference without its reason", file, i+1)
			}
			last.reason = why
			if replies != "nothing" {
				last.theirs = strings.Split(replies, "; ")
			}
		case "=":
			d.ours = append(d.ours, text)
		case "~=":
			what, why, found := strings.Cut(text, " | ")
			if !found || why == "" {
				t.Fatalf("%s:%d: a difference without its reason", file, i+1)
			}
			d.theirs = append(d.theirs, what)
		default:
			t.Fatalf("%s:%d: unknown mark %q", file, i+1, mark)
		}
	}
	if d.theirs == nil {
		d.theirs = d.ours
	}
	return d
}

func TestDialogsOnBothEngines(t *testing.T) {
	files, err := filepath.Glob("testdata/*.dialog")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogs", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".dialog"), func(t *testing.T) {
			d := readDialog(t, file)
			checkDialog(t, "ours", d, ours(nil))
			checkDialog(t, "go-smtp", d, stock)
		})
	}
}

// engine is either one, as far as a dialog needs it.
type engine interface {
	Serve(net.Listener) error
	Close() error
}

func ours(change func(*Config)) func(testing.TB, *diary) engine {
	return func(tb testing.TB, d *diary) engine { return newServer(tb, d, change) }
}

func stock(_ testing.TB, d *diary) engine {
	s := smtp.NewServer(onStock(d.newSession))
	s.Domain = "mx.test"
	s.AllowInsecureAuth = true
	s.EnableSMTPUTF8, s.EnableDSN, s.EnableREQUIRETLS = true, true, true
	s.ReadTimeout, s.WriteTimeout = 5*time.Minute, time.Minute
	s.MaxLineLength = 64 << 10
	s.ErrorLog = quiet{}
	return s
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func checkDialog(t *testing.T, name string, d dialog, build func(testing.TB, *diary) engine) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		notes := &diary{}
		c := dial(t, build(t, notes))
		for _, step := range d.steps {
			want, got := step.ours, c.say(step.send)
			if name != "ours" {
				want, got = plain(want), plain(got)
				if step.reason != "" {
					want = step.theirs
				}
			}
			if strings.Join(got, "; ") != strings.Join(want, "; ") {
				t.Errorf("%s, after %q: %q, want %q", name, step.send, got, want)
			}
			if name != "ours" && step.reason != "" && strings.Join(got, "; ") == strings.Join(plain(step.ours), "; ") {
				t.Errorf("after %q go-smtp does what we do: the difference is out of date", step.send)
			}
		}
		c.hangUp()
		want := d.ours
		if name != "ours" {
			want = d.theirs
		}
		got := strings.ReplaceAll(notes.text(), "\nlogout", "")
		if got != strings.Join(want, "\n") {
			t.Errorf("%s: the session was asked:\n%s\nwant:\n%s", name, got, strings.Join(want, "\n"))
		}
	})
}

// plain takes the enhanced codes off.
func plain(replies []string) []string {
	var short []string
	for _, r := range replies {
		code, _, _ := strings.Cut(r, " ")
		short = append(short, code)
	}
	return short
}

// client is the other end of a connection in a bubble of synctest, where
// "nothing more will come" can be seen.
type client struct {
	tb     testing.TB
	conn   net.Conn
	server engine
	served chan error

	mu     sync.Mutex
	heard  bytes.Buffer
	closed bool
}

func dial(tb testing.TB, s engine) *client {
	theirs, mine := net.Pipe()
	l := &oneConn{conn: theirs, done: make(chan struct{})}
	c := &client{tb: tb, conn: mine, server: s, served: make(chan error, 1)}
	go func() { c.served <- s.Serve(l) }()
	go c.listen()
	return c
}

func (c *client) listen() {
	p := make([]byte, 4096)
	for {
		n, err := c.conn.Read(p)
		c.mu.Lock()
		c.heard.Write(p[:n])
		c.closed = c.closed || err != nil
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// say sends and returns every reply that comes of it.
func (c *client) say(s string) []string {
	go io.WriteString(c.conn, s)
	synctest.Wait()
	return c.replies()
}

func (c *client) replies() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := codes(c.tb, c.heard.String())
	c.heard.Reset()
	if c.closed {
		got = append(got, "close")
	}
	return got
}

func (c *client) hangUp() {
	c.conn.Close()
	synctest.Wait()
	if err := c.server.Close(); err != nil && !errors.Is(err, smtp.ErrServerClosed) {
		c.tb.Error(err)
	}
	<-c.served
	synctest.Wait()
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.done
	return nil, fmt.Errorf("accept: %w", net.ErrClosed)
}

func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

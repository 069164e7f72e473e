package smtpwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// diary is a session that writes down what it is asked.
type diary struct {
	mu      sync.Mutex
	entries []string
	bodies  []string
	// read replaces reading the whole message.
	read func(io.Reader) error
	mail func(string) error
	made func(Peer) error
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, fmt.Sprintf(format, args...))
}

func (d *diary) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.entries, "\n")
}

func (d *diary) newSession(p Peer) (smtp.Session, error) {
	if d.made != nil {
		if err := d.made(p); err != nil {
			return nil, err
		}
	}
	d.add("hello %s", p.Hostname())
	return d.session(p), nil
}

func (d *diary) session(p Peer) *diarySession { return &diarySession{diary: d, peer: p} }

type diarySession struct {
	*diary
	peer Peer
}

var errPoison = errors.New("an error of ours with /a/path")

func (s *diarySession) Reset()        {}
func (s *diarySession) Logout() error { s.add("logout"); return nil }
func (s *diarySession) Mail(from string, o *smtp.MailOptions) error {
	if s.mail != nil {
		if err := s.mail(from); err != nil {
			return err
		}
	}
	s.add("mail %q", from)
	return nil
}

func (s *diarySession) Rcpt(to string, o *smtp.RcptOptions) error {
	switch {
	case strings.HasPrefix(to, "denied@"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "No\nreason=x"}
	case strings.HasPrefix(to, "poison@"):
		return errPoison
	case strings.HasPrefix(to, "panic@"):
		panic("as asked")
	}
	s.add("rcpt %q", to)
	return nil
}

func (s *diarySession) Data(r io.Reader) error {
	if s.read != nil {
		return s.read(r)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, struct{ io.Reader }{r}); err != nil {
		s.add("data failed: %v", err)
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Broken"}
	}
	s.mu.Lock()
	s.bodies = append(s.bodies, b.String())
	s.mu.Unlock()
	s.add("data %q", b.String())
	return nil
}

func (s *diarySession) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

func (s *diarySession) Auth(mechanism string) (sasl.Server, error) {
	if mechanism == sasl.Login {
		return &loginServer{s: s}, nil
	}
	return sasl.NewPlainServer(func(identity, user, password string) error {
		return s.login(user, password)
	}), nil
}

func (s *diarySession) login(user, password string) error {
	if password != "right" {
		return smtp.ErrAuthFailed
	}
	s.add("login %s", user)
	return nil
}

type loginServer struct {
	s    *diarySession
	user *string
}

func (l *loginServer) Next(response []byte) ([]byte, bool, error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case l.user == nil:
		user := string(response)
		l.user = &user
		return []byte("Password:"), false, nil
	}
	return nil, true, l.s.login(*l.user, string(response))
}

// script is a client that says what it has to say and hangs up: a net.Conn in
// memory, each chunk one read.
type script struct {
	chunks [][]byte
	out    bytes.Buffer
	writes int
	closed bool
	end    error // what reads give at the end; nil: io.EOF
}

func (s *script) Read(p []byte) (int, error) {
	for len(s.chunks) > 0 && len(s.chunks[0]) == 0 {
		s.chunks = s.chunks[1:]
	}
	if len(s.chunks) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	s.chunks[0] = s.chunks[0][n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) { s.writes++; return s.out.Write(p) }
func (s *script) Close() error                { s.closed = true; return nil }
func (s *script) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2525} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// forPeer is the Backend of sessions that need no more than a Peer, onStock the
// same for the engine of go-smtp.
func forPeer(newSession func(Peer) (smtp.Session, error)) Backend {
	return BackendFunc(func(c *Conn) (smtp.Session, error) { return newSession(c) })
}

func onStock(newSession func(Peer) (smtp.Session, error)) smtp.Backend {
	return smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return newSession(c) })
}

func newServer(tb testing.TB, d *diary, change func(*Config)) *Server {
	tb.Helper()
	config := Config{Hostname: "mx.test", AllowInsecureAuth: true}
	if change != nil {
		change(&config)
	}
	s, err := NewServer(forPeer(d.newSession), config)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// play runs one connection whose client says all the chunks.
func play(tb testing.TB, d *diary, change func(*Config), chunks ...string) *script {
	tb.Helper()
	s := newServer(tb, d, change)
	conn := &script{}
	for _, chunk := range chunks {
		conn.chunks = append(conn.chunks, []byte(chunk))
	}
	s.enter(conn).serve()
	if !conn.closed {
		tb.Error("the connection was left open")
	}
	return conn
}

// codes are the replies in short: "250 2.1.0", or "250" for one without an
// enhanced code. A reply of several lines counts once, and must be of one code.
func codes(tb testing.TB, out string) []string {
	tb.Helper()
	if out != "" && !strings.HasSuffix(out, "\r\n") {
		tb.Errorf("the last reply is not a line: %q", out)
	}
	var short []string
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\r\n"), "\r\n") {
		if line == "" {
			continue
		}
		if len(line) < 4 {
			tb.Errorf("not a reply: %q", line)
			continue
		}
		if len(line)+2 > 512 {
			tb.Errorf("a reply of %d bytes", len(line)+2)
		}
		if line[3] == '-' {
			continue
		}
		code := line[:3]
		if word, _, _ := strings.Cut(line[4:], " "); strings.Count(word, ".") == 2 && word[0] == line[0] {
			code += " " + word
		}
		short = append(short, code)
	}
	return short
}

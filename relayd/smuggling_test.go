package relayd_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Matrix row 12, end to end: whatever a message ends in, it is one message at the next hop, as it was sent, or it was refused
// and is none.
func TestRow12OneMessageInIsOneMessageOutWhateverItEndsIn(t *testing.T) { oneInOneOut(t, 6) }

// The long form: 350,000 bodies in each mode.
func TestSoakRow12OneMessageInIsOneMessageOutWhateverItEndsIn(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED soak: run make soak")
	}
	oneInOneOut(t, 9)
}

func oneInOneOut(t *testing.T, length int) {
	for _, mode := range []string{"refuse", "normalise"} {
		t.Run(mode, func(t *testing.T) {
			sink := startWarySink(t)
			w := newWorld(t)
			w.call("PATCH", "/v1/settings", fmt.Sprintf(`{"quota_floor":1000000,"bare_newline":%q}`, mode), nil)
			w.call("POST", "/v1/routes", fmt.Sprintf(`{"domain":"example.com","recipient_domain":"example.net","host":"127.0.0.1","port":%d,"tls":"none"}`, sink.port()), nil)
			e := w.addEdge(nil)
			w.enforces(e)
			s := &smuggler{edge: e.Relay, mend: mode == "normalise", want: map[string]string{}}
			s.sendAll(t, length)
			if t.Failed() {
				return
			}
			sink.await(t, len(s.want))
			sink.compare(t, s.want)
			t.Logf("%d bodies, %d accepted, %d refused", s.sent, len(s.want), s.sent-len(s.want))
		})
	}
}

// smuggler sends bodies that could be read in two ways.
type smuggler struct {
	edge string
	mend bool

	mu   sync.Mutex
	sent int
	want map[string]string // what must arrive, by subject
}

// sendAll sends every string over the four letters up to a length, over several connections at once.
func (s *smuggler) sendAll(t *testing.T, length int) {
	tails := make(chan string)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for tail := range tails {
				if err := s.send(tail); err != nil {
					t.Errorf("%q: %v", tail, err)
				}
			}
		})
	}
	tail := make([]byte, 0, length)
	var grow func()
	grow = func() {
		tails <- string(tail)
		if len(tail) == length {
			return
		}
		for _, letter := range []byte("\r\n.a") {
			tail = append(tail, letter)
			grow()
			tail = tail[:len(tail)-1]
		}
	}
	grow()
	close(tails)
	workers.Wait()
}

var queued = regexp.MustCompile(`(?m)^250 2\.0\.0 Ok: queued as`)

// send says all at once, as an attacker does whose words another server passes on.
func (s *smuggler) send(tail string) error {
	subject := fmt.Sprintf("t-%x", tail)
	head := "From: anna@example.com\r\nSubject: " + subject + "\r\n\r\n"
	conn, err := net.DialTimeout("tcp", s.edge, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "EHLO c.example\r\nMAIL FROM:<anna@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"+head+tail+"\r\n.\r\n"); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	replies, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	body, regular := read(tail)
	accepted, expected := len(queued.FindAll(replies, -1)), 0
	if regular || s.mend {
		expected = 1
	}
	if accepted != expected || expected == 0 && !bytes.Contains(replies, []byte("\r\n550 5.5.2 reason=bare-newline ")) {
		return fmt.Errorf("accepted %d times, want %d: %q", accepted, expected, replies)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	if expected == 1 {
		s.want[subject] = head + body
	}
	return nil
}

// read is what RFC 5321 makes of a body that begins like that, and whether its line ends are all CR LF: it goes to the first
// CR LF . CR LF, dots at the beginning of lines come off, and what is a bare CR or LF becomes a line end.
func read(tail string) (body string, regular bool) {
	wire := "\r\n" + tail + "\r\n.\r\n"
	wire = wire[:strings.Index(wire, "\r\n.\r\n")+len("\r\n")]
	body = strings.ReplaceAll(wire, "\r\n.", "\r\n")[len("\r\n"):]
	regular = !strings.ContainsAny(strings.ReplaceAll(body, "\r\n", ""), "\r\n")
	body = strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(body)
	return body, regular
}

// warySink is a next hop that would notice everything that any server could take for the end of a message: it takes only
// lines that end in CR LF and hold neither CR nor LF.
type warySink struct {
	t        *testing.T
	listener net.Listener
	wait     sync.WaitGroup

	mu       sync.Mutex
	messages map[string]int // how often, by text
}

func startWarySink(t *testing.T) *warySink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &warySink{t: t, listener: l, messages: map[string]int{}}
	s.wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() { s.serve(conn) })
		}
	})
	// Registered before the edge's, so it runs after the edge has ended its connections.
	t.Cleanup(func() {
		l.Close()
		s.wait.Wait()
	})
	return s
}

func (s *warySink) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *warySink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}

// await waits for a number of messages, for as long as they keep coming.
func (s *warySink) await(t *testing.T, n int) {
	t.Helper()
	for s.count() < n {
		before := s.count()
		eventually(t, "another message at the next hop", func() bool { return s.count() > before || s.count() >= n })
	}
}

func (s *warySink) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	_, err := io.WriteString(conn, "220 sink\r\n")
	for err == nil {
		var line string
		if line, err = in.ReadString('\n'); err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		switch verb {
		case "EHLO", "HELO", "MAIL", "RCPT", "RSET", "NOOP":
			_, err = io.WriteString(conn, "250 2.0.0 ok\r\n")
		case "DATA":
			if _, err = io.WriteString(conn, "354 go\r\n"); err == nil {
				s.take(in)
				_, err = io.WriteString(conn, "250 2.0.0 ok\r\n")
			}
		case "QUIT":
			_, _ = io.WriteString(conn, "221 2.0.0 bye\r\n") // nobody waits for it
			return
		default:
			s.t.Errorf("the next hop was told %q", line)
			return
		}
	}
}

func (s *warySink) take(in *bufio.Reader) {
	var text strings.Builder
	for {
		line, err := in.ReadString('\n')
		content, whole := strings.CutSuffix(line, "\r\n")
		if err != nil || !whole || strings.ContainsAny(content, "\r\n\x00") {
			s.t.Errorf("the next hop got a line %q (%v)", line, err)
			return
		}
		if content == "." {
			break
		}
		text.WriteString(strings.TrimPrefix(content, ".") + "\r\n")
	}
	// Below the fields that the edge adds.
	_, message, _ := strings.Cut(text.String(), "\r\nFrom: ")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages["From: "+message]++
}

// compare holds that what arrived is what was accepted, each once and as it was sent.
func (s *warySink) compare(t *testing.T, want map[string]string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for subject, text := range want {
		if s.messages[text] != 1 {
			t.Errorf("%s arrived %d times as %q", subject, s.messages[text], text)
		}
		delete(s.messages, text)
	}
	for text := range s.messages {
		t.Errorf("nobody sent %q", text)
	}
}

package deliver

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

// recorder is a connection that keeps what is written.
type recorder struct {
	net.Conn
	bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error)      { return r.Buffer.Write(p) }
func (r *recorder) Read(p []byte) (int, error)       { return r.Buffer.Read(p) }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// Matrix row 12, at the client: whatever a message is made of and wherever its
// blocks end, the server sees one end of data, last, and the message before it.
func TestRow12EveryShortMessageIsStuffedWhereverItsBlocksEnd(t *testing.T) {
	out := &recorder{}
	c := &conn{wire: &wire{Conn: out}, timeouts: Timeouts{}.withDefaults()}
	c.net = out
	var try func(text []byte, left int)
	try = func(text []byte, left int) {
		for split := range len(text) + 1 {
			out.Reset()
			s := &dotStuffer{c: c, lineStart: true}
			if split > 0 {
				if err := s.block(text[:split], false); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.block(text[split:], true); err != nil {
				t.Fatal(err)
			}
			checkStuffed(t, string(text), split, out.String())
		}
		if left == 0 {
			return
		}
		for _, b := range []byte("\r\n.a") {
			try(append(text[:len(text):len(text)], b), left-1)
		}
	}
	try(nil, 6)
}

// checkStuffed undoes RFC 5321 4.5.2 as a server would that takes a bare LF for
// a line end, the most dangerous kind.
func checkStuffed(t *testing.T, text string, split int, sent string) {
	t.Helper()
	body, ended := strings.CutSuffix(sent, ".\r\n")
	if !ended || body != "" && !strings.HasSuffix(body, "\r\n") {
		t.Fatalf("%q in blocks at %d: sent %q, which does not end", text, split, sent)
	}
	var got strings.Builder
	for line := range strings.Lines(body) {
		if strings.TrimRight(line, "\r\n") == "." {
			t.Fatalf("%q in blocks at %d: sent %q, which ends early", text, split, sent)
		}
		got.WriteString(strings.TrimPrefix(line, "."))
	}
	want := text
	if want != "" && !strings.HasSuffix(want, "\r\n") {
		want += "\r\n"
	}
	if got.String() != want {
		t.Fatalf("%q in blocks at %d: sent %q, which reads %q", text, split, sent, got.String())
	}
}

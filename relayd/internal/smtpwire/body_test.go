package smtpwire

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

const envelope = "EHLO c.test\r\nMAIL FROM:<a@ok.test>\r\nRCPT TO:<b@ok.test>\r\nDATA\r\n"

// model says what a stream of bytes after DATA means, by other means than the
// engine: whole-string search and replacement.
func model(stream string) (content, rest string, whole bool) {
	raw := "\r\n" + stream
	end := strings.Index(raw, "\r\n.\r\n")
	if end < 0 {
		return "", "", false
	}
	return strings.ReplaceAll(raw[:end+2], "\r\n.", "\r\n")[2:], raw[end+5:], true
}

// lines is how many commands a stream holds: each is answered once.
func lines(stream string) int { return strings.Count(stream, "\r\n") }

// tails are all strings over the alphabet up to a length.
func tails(alphabet string, length int) []string {
	all, last := []string{""}, []string{""}
	for range length {
		var next []string
		for _, s := range last {
			for i := range len(alphabet) {
				next = append(next, s+alphabet[i:i+1])
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

func TestOneMessageInIsOneMessageOutForEveryTail(t *testing.T) {
	length := 6
	if testing.Short() {
		length = 4
	}
	for _, tail := range tails("\r\n.a", length) {
		for _, before := range []string{"", "x\r\n"} {
			checkTail(t, before+tail)
		}
	}
}

func checkTail(t *testing.T, body string) {
	t.Helper()
	stream := body + "\r\n.\r\nNOOP\r\nMAIL FROM:<next@ok.test>\r\n"
	content, rest, _ := model(stream)
	want := []string{"220", "250", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"}
	// In every form in which the bytes can come.
	for _, chunks := range [][]string{
		{envelope + stream},
		{envelope, stream},
		append([]string{envelope}, strings.Split(stream, "")...),
		{envelope + stream[:len(body)], stream[len(body):]},
		{envelope, stream[:len(body)+1], stream[len(body)+1:]},
		{envelope, stream[:len(body)+2], stream[len(body)+2:]},
		{envelope, stream[:len(body)+3], stream[len(body)+3:]},
	} {
		d := &diary{}
		got := codes(t, play(t, d, nil, chunks...).out.String())
		if len(d.bodies) != 1 || d.bodies[0] != content {
			t.Fatalf("%q in %d chunks: got %q, want %q", body, len(chunks), d.bodies, content)
		}
		if len(got) != len(want)+lines(rest) || strings.Join(got[:len(want)], ",") != strings.Join(want, ",") {
			t.Fatalf("%q in %d chunks: %d lines follow (%q), replies %q", body, len(chunks), lines(rest), rest, got)
		}
		if !strings.HasSuffix(d.text(), "mail \"next@ok.test\"\nlogout") {
			t.Fatalf("%q: the command behind the message did not run: %s", body, d.text())
		}
	}
}

// The vectors by which one message was made two elsewhere.
func TestNoVectorEndsTheMessageEarly(t *testing.T) {
	for _, eod := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r.\n", "\r\n.\r", "\n.\r", "\r\n\x00.\r\n",
		"\r\n.\x00\r\n", "\r\n.\r\r\n", "\n\r.\n\r", "\r\n .\r\n", "\r\n. \r\n",
	} {
		smuggled := "MAIL FROM:<evil@other.test>\r\nRCPT TO:<c@ok.test>\r\nDATA\r\nSubject: 2\r\n\r\nx"
		stream := "Subject: 1\r\n\r\nx" + eod + smuggled + "\r\n.\r\nQUIT\r\n"
		content, rest, _ := model(stream)
		if rest != "QUIT\r\n" {
			t.Fatalf("%q: the model ends early", eod)
		}
		d := &diary{}
		play(t, d, nil, envelope+stream)
		if len(d.bodies) != 1 || d.bodies[0] != content || strings.Contains(d.text(), "mail \"evil") {
			t.Errorf("%q: %s", eod, d.text())
		}
	}
}

// What the engine of go-smtp misses: the end of a message whose last line ends
// CR CR LF.
func TestALastLineThatEndsCRCRLFEndsTheMessage(t *testing.T) {
	for _, eod := range []string{"\r\r\n.\r\n", "\r\n.\r\r\n.\r\n", "\r\n.\r\n"} {
		d := &diary{}
		play(t, d, nil, envelope+"x"+eod+"QUIT\r\n")
		if want, _, _ := model("x" + eod); len(d.bodies) != 1 || d.bodies[0] != want {
			t.Errorf("%q: got %q, want %q", eod, d.bodies, want)
		}
	}
}

func TestAMessageWithoutItsEndIsNothing(t *testing.T) {
	for _, stream := range []string{"", "x", "x\r\n", "x\r\n.", "x\r\n.\r", "x\r\n..\r\n", ".", ".\r"} {
		for _, chunks := range [][]string{{envelope + stream}, {envelope, stream}} {
			d := &diary{}
			conn := play(t, d, nil, chunks...)
			if len(d.bodies) != 0 || !strings.Contains(d.text(), "data failed: unexpected EOF") {
				t.Errorf("%q: %s", stream, d.text())
			}
			if got := codes(t, conn.out.String()); got[len(got)-1] != "354" {
				t.Errorf("%q: replies %q", stream, got)
			}
		}
	}
}

func TestLongBodiesComeThroughEveryBufferBoundary(t *testing.T) {
	line := strings.Repeat("a", 76) + "\r\n..dots\r\n.\r\r\n"
	for shift := range 40 {
		stream := strings.Repeat("b", shift) + "\r\n" + strings.Repeat(line, 3*bigBuffer/len(line)) + ".\r\n"
		content, _, _ := model(stream)
		d := &diary{}
		play(t, d, nil, envelope, stream)
		if len(d.bodies) != 1 || d.bodies[0] != content {
			t.Fatalf("shift %d: content differs", shift)
		}
	}
}

func TestAMessageLineMayBe64KiBLong(t *testing.T) {
	long := strings.Repeat("a", MaxLineBytes-2) + "\r\n"
	cases := []struct {
		body, want string
	}{
		{body: long + "x\r\n", want: "250 2.0.0"},
		{body: "x\r\n" + long, want: "250 2.0.0"},
		{body: "a" + long, want: "554 5.6.0"},
		{body: "x\r\na" + long, want: "554 5.6.0"},
		{body: "a" + strings.Repeat(long, 2), want: "554 5.6.0"},
	}
	for _, c := range cases {
		d := &diary{read: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }}
		got := codes(t, play(t, d, nil, envelope, c.body+".\r\nNOOP\r\n").out.String())
		if len(got) != 7 || got[5] != c.want || got[6] != "250 2.0.0" {
			t.Errorf("%d bytes: %q, want %s and a living session", len(c.body), got, c.want)
		}
	}
}

func TestASessionCannotSayYesToHalfAMessage(t *testing.T) {
	body := strings.Repeat("x", 3000) + "\r\n.\r\nNOOP\r\n"
	cases := []struct {
		name, want string
		limit      int64
		read       func(io.Reader) error
	}{
		{name: "reads nothing", want: "451 4.3.0", read: func(io.Reader) error { return nil }},
		{name: "reads a part", want: "451 4.3.0", read: func(r io.Reader) error {
			_, err := io.ReadFull(r, make([]byte, 10))
			return err
		}},
		{name: "swallows the refusal", want: "552 5.3.4", limit: 1000, read: func(r io.Reader) error {
			_, _ = io.Copy(io.Discard, r)
			return nil
		}},
		{name: "says yes by an error", want: "451 4.3.0", read: func(io.Reader) error {
			return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok"}
		}},
		{name: "refuses before the end", want: "550 5.7.1", read: func(io.Reader) error {
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "No"}
		}},
	}
	for _, c := range cases {
		d := &diary{read: c.read}
		set := func(config *Config) { config.MaxMessageBytes = c.limit }
		got := codes(t, play(t, d, set, envelope, body).out.String())
		if len(got) != 7 || got[5] != c.want || got[6] != "250 2.0.0" {
			t.Errorf("%s: replies %q, want %s and a living session", c.name, got, c.want)
		}
	}
}

func TestReadAndWriteToGiveTheSame(t *testing.T) {
	stream := strings.Repeat("line\r\n..dot\r\n", 4000) + ".\r\n"
	content, _, _ := model(stream)
	readers := map[string]func(io.Reader) ([]byte, error){
		"WriteTo":       func(r io.Reader) ([]byte, error) { var b bytes.Buffer; _, err := io.Copy(&b, r); return b.Bytes(), err },
		"ReadAll":       io.ReadAll,
		"small buffers": func(r io.Reader) ([]byte, error) { return readBy(r, 3) },
		"huge buffers":  func(r io.Reader) ([]byte, error) { return readBy(r, 1<<20) },
	}
	for name, read := range readers {
		var got []byte
		d := &diary{read: func(r io.Reader) (err error) {
			if got, err = read(r); err == nil && !r.(*Body).Ended() {
				t.Errorf("%s: not ended at the end", name)
			}
			return err
		}}
		play(t, d, nil, envelope, stream)
		if string(got) != content {
			t.Errorf("%s: %d bytes, want %d", name, len(got), len(content))
		}
	}
}

func readBy(r io.Reader, size int) (all []byte, err error) {
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

package scan_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/scan"
)

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// fakeClamd accepts connections, reads until the empty chunk (or PING), writes
// answer and closes. It returns its address.
func fakeClamd(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answerOnce(conn, answer)
		}
	}()
	return l.Addr().String()
}

func answerOnce(conn net.Conn, answer string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.HasSuffix(got.String(), "\x00\x00\x00\x00") && got.String() != "zPING\x00" {
		n, err := conn.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			return
		}
	}
	_, _ = io.WriteString(conn, answer)
}

func TestOnlyTwoAnswersAreVerdicts(t *testing.T) {
	cases := []struct {
		name, answer string
		want         scan.Verdict
	}{
		{name: "clean", answer: "stream: OK\x00", want: scan.Verdict{Outcome: scan.Clean}},
		{name: "found", answer: "stream: Win.Test FOUND\x00", want: scan.Verdict{Outcome: scan.Malware, Signature: "Win.Test"}},
		{name: "odd name", answer: "stream: a b: OK FOUND\x00", want: scan.Verdict{Outcome: scan.Malware, Signature: "a b: OK"}},
		{name: "nothing", answer: ""},
		{name: "no end", answer: "stream: OK"},
		{name: "newline for an end", answer: "stream: OK\n"},
		{name: "empty", answer: "\x00"},
		{name: "other prefix", answer: "file: OK\x00"},
		{name: "OK with more", answer: "stream: OKAY\x00"},
		{name: "OK in an error", answer: "stream: Can't allocate memory ERROR\x00"},
		{name: "found nothing", answer: "stream:  FOUND\x00"},
		{name: "found without a name", answer: "stream: FOUND\x00"},
		{name: "lower case", answer: "stream: ok\x00"},
		{name: "size", answer: "INSTREAM size limit exceeded. ERROR\x00"},
		{name: "unknown command", answer: "UNKNOWN COMMAND\x00"},
		{name: "HTTP", answer: "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{name: "endless", answer: strings.Repeat("x", 1<<20)},
		{name: "OK far too late", answer: strings.Repeat("x", 1<<20) + "stream: OK\x00"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := clamd(t, scan.ClamdConfig{Address: fakeClamd(t, c.answer), Timeout: 30 * time.Second})
			got, err := d.Scan(t.Context(), message([]byte("hello")))
			if got != c.want {
				t.Fatalf("answer %q gave %+v, %v; want %+v", c.answer, got, err, c.want)
			}
			if (err != nil) != (c.want.Outcome == scan.Undecided) || err != nil && !errors.Is(err, scan.ErrUnavailable) {
				t.Fatalf("answer %q gave error %v", c.answer, err)
			}
		})
	}
}

func TestAddressesOfScannersAreChecked(t *testing.T) {
	for _, good := range []string{"unix:/run/s", "/run/s", "tcp:127.0.0.1:3310", "localhost:3310"} {
		clamd(t, scan.ClamdConfig{Address: good})
	}
	for _, bad := range []string{"", "unix:", "tcp:", "run/s", "127.0.0.1"} {
		if _, err := scan.NewClamd(scan.ClamdConfig{Address: bad}); err == nil {
			t.Errorf("address %q was taken", bad)
		}
	}
	if _, err := scan.NewClamd(scan.ClamdConfig{Address: "/s", Timeout: -1}); err == nil {
		t.Error("a negative timeout was taken")
	}
}

// scripted answers what it was told to.
type scripted struct {
	name    string
	verdict scan.Verdict
	err     error
	asked   *[]string
}

func (s scripted) Name() string { return s.name }

func (s scripted) Scan(context.Context, scan.Message) (scan.Verdict, error) {
	*s.asked = append(*s.asked, s.name)
	return s.verdict, s.err
}

func TestAChainPassesOnlyWhatEveryScannerCleared(t *testing.T) {
	clean, malware := scan.Verdict{Outcome: scan.Clean}, scan.Verdict{Outcome: scan.Malware, Signature: "x"}
	cases := []struct {
		name  string
		chain []scripted
		want  scan.Verdict
		asked string
	}{
		{name: "no scanner"},
		{name: "all clear", chain: []scripted{{name: "a", verdict: clean}, {name: "b", verdict: clean}}, want: clean, asked: "a b"},
		{
			name: "first objects", chain: []scripted{{name: "a", verdict: malware}, {name: "b", verdict: clean}},
			want: scan.Verdict{Outcome: scan.Malware, Signature: "x", Scanner: "a"}, asked: "a",
		},
		{
			name: "second objects", chain: []scripted{{name: "a", verdict: clean}, {name: "b", verdict: malware}},
			want: scan.Verdict{Outcome: scan.Malware, Signature: "x", Scanner: "b"}, asked: "a b",
		},
		{name: "first fails", chain: []scripted{{name: "a", verdict: clean, err: io.EOF}, {name: "b", verdict: malware}}, asked: "a"},
		{name: "second fails", chain: []scripted{{name: "a", verdict: clean}, {name: "b", err: io.EOF}}, asked: "a b"},
		{name: "no verdict", chain: []scripted{{name: "a"}}, asked: "a"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var asked []string
			var chain scan.Chain
			for _, s := range c.chain {
				s.asked = &asked
				chain = append(chain, s)
			}
			got, err := chain.Scan(t.Context(), message(nil))
			if got != c.want || strings.Join(asked, " ") != c.asked {
				t.Fatalf("got %+v, %v after asking %v; want %+v after %q", got, err, asked, c.want, c.asked)
			}
			if (err != nil) != (c.want.Outcome == scan.Undecided) || err != nil && !errors.Is(err, scan.ErrUnavailable) {
				t.Fatalf("error %v", err)
			}
			if errors.Is(err, scan.ErrNoScanner) != (len(c.chain) == 0) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

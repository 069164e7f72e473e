package deliver

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func replyIn(text string) (reply, error) {
	return readReply(bufio.NewReaderSize(strings.NewReader(text), readBufferBytes))
}

func TestRepliesAreReadOrRefused(t *testing.T) {
	for _, c := range []struct {
		name, in string
		code     int
		enhanced string
		text     string
		err      error
	}{
		{name: "usual", in: "250 2.1.0 ok\r\n", code: 250, enhanced: "2.1.0", text: "ok"},
		{name: "bare code", in: "250\r\n", code: 250},
		{name: "bare code and space", in: "250 \r\n", code: 250},
		{name: "bare LF", in: "250 ok\n", code: 250, text: "ok"},
		{name: "many lines", in: "550-5.7.1 no\r\n550-5.7.1 really\r\n550 5.7.1 no\r\n", code: 550, enhanced: "5.7.1", text: "no really no"},
		{name: "an empty line among them", in: "250-a\r\n250-\r\n250 b\r\n", code: 250, text: "a b"},
		{name: "status of another class", in: "450 5.1.1 x\r\n", code: 450, text: "5.1.1 x"},
		{name: "status too long", in: "450 4.1.1111 x\r\n", code: 450, text: "4.1.1111 x"},
		{name: "no text after the status", in: "250 2.0.0\r\n", code: 250, enhanced: "2.0.0"},
		{name: "two codes", in: "250-a\r\n550 b\r\n", err: errReplyMixed},
		{name: "no code", in: "hello\r\n", err: errReplyShape},
		{name: "code of no class", in: "650 x\r\n", err: errReplyShape},
		{name: "1yz", in: "150 x\r\n", err: errReplyShape},
		{name: "short", in: "25\r\n", err: errReplyShape},
		{name: "odd separator", in: "250:x\r\n", err: errReplyShape},
		{name: "empty", in: "\r\n", err: errReplyShape},
		{name: "cut", in: "250 ok", err: io.EOF},
		{name: "cut among lines", in: "250-ok\r\n", err: io.EOF},
		{name: "longest line", in: "250 " + strings.Repeat("x", 2042) + "\r\n", code: 250, text: strings.Repeat("x", 1000)},
		{name: "line too long", in: "250 " + strings.Repeat("x", 2043) + "\r\n", err: errReplyLine},
		{name: "line without end", in: strings.Repeat("2", 10_000), err: errReplyLine},
		{name: "most lines", in: strings.Repeat("250-\r\n", 99) + "250 x\r\n", code: 250, text: "x"},
		{name: "too many lines", in: strings.Repeat("250-x\r\n", 100) + "250 x\r\n", err: errReplyLines},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := replyIn(c.in)
			if !errors.Is(err, c.err) || got.code != c.code || got.enhanced != c.enhanced || got.text != c.text {
				t.Errorf("got %d %q %q %v, want %d %q %q %v", got.code, got.enhanced, got.text, err, c.code, c.enhanced, c.text, c.err)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250\r\n", "250-a\r\n550 b\r\n", "550-5.1.1 a\r\n550 5.1.1 b\r\n", "421 4.3.2 \x1b[2J\x00\r\n",
		"250-" + strings.Repeat("x", 3000) + "\r\n", "\xff\xfe\r\n", "250 \u202egro.live\r\n", "250-size 5\r\n250 AUTH=PLAIN login\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, err := replyIn(in)
		if err != nil {
			return
		}
		if r.code < 200 || r.code > 599 || len(r.lines) == 1 || len(r.lines) > maxReplyLines {
			t.Fatalf("code %d, %d lines", r.code, len(r.lines))
		}
		if len(r.text) > maxReplyTextBytes || !utf8.ValidString(r.text) || strings.ContainsFunc(r.text, unicode.IsControl) {
			t.Fatalf("text %q", r.text)
		}
		if r.enhanced != "" && int(r.enhanced[0]-'0') != r.code/100 {
			t.Fatalf("status %q of code %d", r.enhanced, r.code)
		}
		parseExtensions(r.lines)
		brief, err := readVerdict(bufio.NewReaderSize(strings.NewReader(in), readBufferBytes))
		if err != nil || brief.code != r.code || r.code >= 400 && (brief.enhanced != r.enhanced || brief.text != r.text) {
			t.Fatalf("the verdict is %v (%v), the reply %v", brief, err, r)
		}
	})
}

package smtpwire

import (
	"strings"
	"testing"
)

// Whatever a client sends, the session ends, and where the network cuts the bytes
// does not matter.
func FuzzSession(f *testing.F) {
	f.Add("EHLO c.test\r\nMAIL FROM:<a@ok.test> SIZE=1\r\nRCPT TO:<b@ok.test> ORCPT=utf-8;\\x{E9}@x\r\nDATA\r\nx\r\n..\r\n.\r\nQUIT\r\n", uint16(7))
	f.Add("EHLO c.test\r\nAUTH PLAIN\r\nAGEAcmlnaHQ=\r\nAUTH LOGIN YQ==\r\n*\r\n", uint16(3))
	f.Add(envelope+"a\r\r\n.\r\n\r\n.\r\nNOOP\nNOOP\r\n", uint16(1))
	f.Add("HELO x\r\nMAIL FROM:<\"a b\\\">\"@ok.test> FOO\r\nVRFY\r\nBDAT 3 LAST\r\nabc", uint16(2))
	f.Add("POST / HTTP/1.1\r\n\x16\x03\x01", uint16(5))
	f.Add(envelope+strings.Repeat("y", 600)+"\r\n.\r", uint16(511))
	f.Fuzz(func(t *testing.T, said string, size uint16) {
		whole, cut := &diary{}, &diary{}
		want := play(t, whole, nil, said)
		var chunks []string
		for rest := said; len(rest) > 0; {
			n := min(int(size)%700+1, len(rest))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		got := play(t, cut, nil, chunks...)
		if got.out.String() != want.out.String() || whole.text() != cut.text() {
			t.Fatalf("in chunks of %d:\n%s\n%s\nwant:\n%s\n%s", size%700+1, got.out.String(), cut.text(), want.out.String(), whole.text())
		}
		for _, code := range codes(t, want.out.String()) {
			if code[0] < '2' || code[0] > '5' {
				t.Fatalf("reply %q", code)
			}
		}
		// No more messages than there are ends of data.
		if ends := strings.Count("\r\n"+strings.ReplaceAll(said, "\r\n", "\r\n\r\n"), "\r\n.\r\n"); len(whole.bodies) > ends {
			t.Fatalf("%d messages from %d ends of data", len(whole.bodies), ends)
		}
	})
}

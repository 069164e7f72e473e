package smtpwire

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// What lies unread while the engine waits for more moves from one buffer to another: nothing of it may be lost or mixed up.
func TestAPauseOnARealConnectionChangesNothing(t *testing.T) {
	lines := "\r\n..dots\r\n.\r\r\n" + strings.Repeat("b", 100) + "\r\n"
	body := lines + strings.Repeat(lines, bigBuffer/len(lines)) + strings.Repeat("c", bigBuffer) + "\r\n.\r\n"
	conversation := "EHLO c.test\r\nNOOP " + strings.Repeat("x", maxCommandBytes-10) + "\r\nNOOP " + strings.Repeat("x", maxCommandBytes) +
		"\r\nAUTH NONE " + strings.Repeat("A", maxAuthBytes-20) + "\r\n" + strings.Repeat("NOOP\r\n", smallBuffer/3) +
		"MAIL FROM:<a@ok.test>\r\nRCPT TO:<b@ok.test>\r\nDATA\r\n" + body + "MAIL FROM:<>\r\nRCPT TO:<b@ok.test>\r\nDATA\r\n.x" + body + "QUIT\r\n"
	patient := func(c *Config) { c.Limits.Junk = len(conversation) }
	whole := &diary{}
	want := play(t, whole, patient, conversation).out.String()
	if len(whole.bodies) != 2 {
		t.Fatalf("%d messages came\n%s", len(whole.bodies), want)
	}
	for _, size := range []int{701, maxAuthBytes - 1, bigBuffer + 1} {
		d := &diary{}
		var all *keeper
		address := listen(t, newServer(t, d, patient), func(l net.Listener) net.Listener {
			all = &keeper{Listener: l}
			return all
		})
		c := connect(t, address)
		heard := make(chan string, 1)
		go func() {
			all, _ := io.ReadAll(c.in) // what is missing shows below
			heard <- string(all)
		}()
		for chunk := range slices.Chunk([]byte(conversation), size) {
			c.send(string(chunk))
			all.drained(t)
		}
		if got := <-heard; got != want || d.text() != whole.text() || !slices.Equal(d.bodies, whole.bodies) {
			t.Errorf("in pieces of %d bytes: %d bytes of replies, want %d", size, len(got), len(want))
		}
	}
}

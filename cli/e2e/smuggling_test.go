package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Matrix row 12 at real next hops: as many messages arrive at Postfix, Exim, OpenSMTPD and aiosmtpd as the edge accepted, each of
// them one that was sent, though each is followed by what would be a second one if its end were found too early.
func TestRow12FourMailServersTakeAsManyMessagesAsTheEdgeAccepted(t *testing.T) {
	for _, mode := range []string{"refuse", "normalise"} {
		t.Run(mode, func(t *testing.T) {
			sink, inbox := smtpSink(t)
			hop := startPostfix(t, "relayhost = [127.0.0.1]:"+port(sink))
			s := newStack(t)
			edge := s.addEdge()
			s.seed(hop.addr())
			s.ctl("settings", "update", "--bare-newline", mode, "--quota-floor", "100000")
			s.synced()
			accepted := smuggle(t, edge.relay, "bob@example.net", tails(4))
			eventually(t, fmt.Sprintf("%d whole messages behind Postfix", accepted), func() bool { return whole(received(t, inbox, accepted)) })
			checkArrivals(t, "Postfix", toStrings(received(t, inbox, accepted)), accepted)
			if got := strings.Count(hop.log(t), ": client="); got != accepted {
				t.Errorf("Postfix took %d messages, want %d", got, accepted)
			}
			others := func(name string, hop func(t *testing.T) (port string, texts func() []string)) {
				t.Run(name, func(t *testing.T) {
					port, texts := hop(t)
					to := strings.ToLower(name) + ".example"
					s.ctl("route", "create", "--domain", "example.com", "--recipient-domain", to, "--host", "127.0.0.1", "--port", port, "--tls", "none")
					s.synced()
					accepted := smuggle(t, edge.relay, "bob@"+to, tails(3))
					eventually(t, fmt.Sprintf("%d messages at %s", accepted, name), func() bool { return len(texts()) >= accepted })
					checkArrivals(t, name, texts(), accepted)
				})
			}
			others("Exim", func(t *testing.T) (string, func() []string) {
				hop := startExim(t, nil, "tls_advertise_hosts =")
				return hop.port, func() []string { return hop.kept(t) }
			})
			others("OpenSMTPD", func(t *testing.T) (string, func() []string) {
				behind := keepingSink(t)
				return startOpenSMTPD(t, behind.addr).port, func() []string { return kept(t, behind.dir) }
			})
			others("aiosmtpd", func(t *testing.T) (string, func() []string) {
				port, dir := startAiosmtpd(t)
				return port, func() []string { return kept(t, dir) }
			})
		})
	}
}

// tails are the ends of data that servers have disagreed about, and every string of up to so many of the letters that they are
// made of.
func tails(letters int) []string {
	all := []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r.\n", "\r\n.\r", "\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
		"\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n.\r\r\n.\r\n", "\n\r.\n\r", "\r\n .\r\n", "\r\n. \r\n", "\r\n..\r\n", "\r\n..\n", "\n..\r\n",
	}
	short := []string{""}
	for range letters {
		for _, s := range short {
			for _, letter := range []string{"\r", "\n", ".", "a"} {
				all = append(all, s+letter)
			}
		}
		short = slices.Clone(all[len(all)-4*len(short):])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// smuggle sends a message for each tail, with another transaction behind it, and answers how many the edge accepted.
func smuggle(t *testing.T, relay, to string, tails []string) int {
	t.Helper()
	work := make(chan string)
	accepted := make([]int, 8)
	var workers sync.WaitGroup
	for i := range accepted {
		workers.Go(func() {
			for tail := range work {
				n, err := smuggleOne(relay, to, tail)
				if err != nil {
					t.Errorf("%q: %v", tail, err)
				}
				accepted[i] += n
			}
		})
	}
	for _, tail := range tails {
		work <- tail
	}
	close(work)
	workers.Wait()
	sum := 0
	for _, n := range accepted {
		sum += n
	}
	t.Logf("%d messages sent to %s, %d accepted", len(tails), to, sum)
	return sum
}

var queuedReply = regexp.MustCompile(`(?m)^250 2\.0\.0 Ok: queued as`)

func smuggleOne(relay, to, tail string) (accepted int, err error) {
	conn, err := net.DialTimeout("tcp", relay, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		return 0, err
	}
	message := func(from, subject, body string) string {
		return "MAIL FROM:<" + from + ">\r\nRCPT TO:<" + to + ">\r\nDATA\r\nFrom: " + from + "\r\nSubject: " + subject + "\r\n\r\n" + body
	}
	says := "EHLO client.example\r\n" + message("anna@example.com", fmt.Sprintf("t-%x", tail), "before"+tail) +
		message("ceo@victim.example", "smuggled", "text\r\n.\r\nQUIT\r\n")
	if _, err := io.WriteString(conn, says); err != nil {
		return 0, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	replies, err := io.ReadAll(in)
	return len(queuedReply.FindAll(replies, -1)), err
}

var firstSubject = regexp.MustCompile(`Subject: (\S+)`)

// checkArrivals holds that each message arrived once, and that none is the second of a pair.
func checkArrivals(t *testing.T, hop string, texts []string, accepted int) {
	t.Helper()
	if len(texts) != accepted {
		t.Errorf("%d messages at %s, want %d", len(texts), hop, accepted)
	}
	seen := map[string]bool{}
	for _, text := range texts {
		match := firstSubject.FindStringSubmatch(text)
		if match == nil || !strings.HasPrefix(match[1], "t-") || seen[match[1]] {
			t.Errorf("%s has a message that was not sent, or has it twice:\n%s", hop, text)
			continue
		}
		seen[match[1]] = true
	}
}

// whole says that the sink has written its files as far as the subject.
func whole(texts [][]byte) bool {
	for _, text := range texts {
		if !firstSubject.Match(text) {
			return false
		}
	}
	return true
}

func toStrings(texts [][]byte) []string {
	out := make([]string, len(texts))
	for i := range texts {
		out[i] = string(texts[i])
	}
	return out
}

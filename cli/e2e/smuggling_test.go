package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Matrix row 12 at real next hops: as many messages arrive at Postfix, Exim, OpenSMTPD and aiosmtpd as the edge accepted, each of
// them one that was sent, with the text that RFC 5321 makes of it, though each is followed by what would be a second one if its
// end were found too early. Postfix gets every end of up to six letters, the others those of up to three and a sample.
func TestRow12FourMailServersTakeAsManyMessagesAsTheEdgeAccepted(t *testing.T) {
	smuggleThrough(t, tails(6), sampled(tails(3), 100, 4, 6))
}

// The long form: Postfix gets every end of up to nine letters, 350,000 in each mode.
func TestSoakRow12FourMailServersTakeAsManyMessagesAsTheEdgeAccepted(t *testing.T) {
	soaking(t)
	smuggleThrough(t, tails(9), sampled(tails(5), 1000, 6, 9))
}

func smuggleThrough(t *testing.T, postfix, others []string) {
	hops := []struct {
		name  string
		tails []string
		start func(t *testing.T) nextHop
	}{
		{name: "Postfix", tails: postfix, start: postfixHop},
		{name: "Exim", tails: others, start: eximHop},
		{name: "OpenSMTPD", tails: others, start: func(t *testing.T) nextHop {
			behind := keepingSink(t)
			return nextHop{port: startOpenSMTPD(t, behind.addr).port, files: filepath.Join(behind.dir, "*.eml")}
		}},
		{name: "aiosmtpd", tails: others, start: func(t *testing.T) nextHop {
			port, dir := startAiosmtpd(t)
			return nextHop{port: port, files: filepath.Join(dir, "*.eml")}
		}},
	}
	for _, mode := range []string{"refuse", "normalise"} {
		t.Run(mode, func(t *testing.T) {
			s := newStack(t)
			edge := s.addEdge()
			s.seed("127.0.0.1:" + freePort(t))
			s.ctl("settings", "update", "--bare-newline", mode, "--quota-floor", "1000000")
			for _, hop := range hops {
				t.Run(hop.name, func(t *testing.T) {
					next, to := hop.start(t), strings.ToLower(hop.name)+".example"
					s.ctl("route", "create", "--domain", "example.com", "--recipient-domain", to, "--host", "127.0.0.1", "--port", next.port, "--tls", "none")
					s.synced()
					want := smuggle(t, edge.relay, "bob@"+to, hop.tails, mode == "normalise")
					t.Logf("%d messages sent, %d accepted", len(hop.tails), len(want))
					next.await(t, len(want))
					eventually(t, "an empty queue", func() bool { return edge.metric(t, "relayd_queue_messages") == 0 })
					if next.settle != nil {
						next.settle(len(want))
					}
					checkArrivals(t, next.texts(t), want)
				})
			}
		})
	}
}

// nextHop is a mail server that the edge delivers to.
type nextHop struct {
	port string
	// files is the pattern of the files that it makes of messages, one of each.
	files string
	// read is how a file is read; nil means as it is.
	read func(file string) ([]byte, error)
	// settle, if set, waits until the server has handed on all that it has, and demands that it took so many messages.
	settle func(accepted int)
}

func (h nextHop) arrived(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(h.files)
	must(t, err)
	return files
}

// await waits for a number of messages, for as long as they keep coming.
func (h nextHop) await(t *testing.T, messages int) {
	t.Helper()
	for n := 0; n < messages; {
		eventually(t, fmt.Sprintf("message %d of %d", n+1, messages), func() bool { return len(h.arrived(t)) > n })
		n = len(h.arrived(t))
	}
}

// texts answers the messages, with LF as the end of lines.
func (h nextHop) texts(t *testing.T) (texts []string) {
	t.Helper()
	read := h.read
	if read == nil {
		read = os.ReadFile
	}
	for _, file := range h.arrived(t) {
		var text []byte
		eventually(t, "the text of "+file, func() (written bool) {
			var err error
			text, err = read(file)
			must(t, err)
			return len(text) > 0
		})
		texts = append(texts, strings.ReplaceAll(string(text), "\r\n", "\n"))
	}
	return texts
}

// postfixHop is a Postfix that hands on to a sink, as fast as it can.
func postfixHop(t *testing.T) nextHop {
	behind := keepingSink(t)
	p := startPostfix(t, "relayhost = [127.0.0.1]:"+port(behind.addr), "in_flow_delay = 0", "smtpd_client_connection_count_limit = 0",
		"default_destination_concurrency_limit = 10", "initial_destination_concurrency = 10", "qmgr_message_active_limit = 100000")
	return nextHop{port: p.port, files: filepath.Join(behind.dir, "*.eml"), settle: func(accepted int) {
		t.Helper()
		eventually(t, "an empty queue at Postfix", func() bool { return strings.Contains(p.queued(t), "Mail queue is empty") })
		if got := strings.Count(p.log(t), ": client="); got != accepted {
			t.Errorf("Postfix took %d messages, want %d", got, accepted)
		}
	}}
}

// eximHop is an Exim that keeps what it takes: the header in one file, the text in another.
func eximHop(t *testing.T) nextHop {
	e := startExim(t, nil, "tls_advertise_hosts =")
	return nextHop{port: e.port, files: filepath.Join(e.dir, "spool/input/*-H"), read: func(file string) ([]byte, error) {
		head, err := os.ReadFile(file)
		text, bodyErr := os.ReadFile(strings.TrimSuffix(file, "-H") + "-D")
		return append(head, text...), errors.Join(err, bodyErr)
	}}
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
			for _, letter := range tailLetters() {
				all = append(all, s+letter)
			}
		}
		short = slices.Clone(all[len(all)-4*len(short):])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func tailLetters() []string { return []string{"\r", "\n", ".", "a"} }

// sampled adds so many strings of the same letters with a length in a range: always the same ones.
func sampled(tails []string, more, shortest, longest int) []string {
	random := rand.New(rand.NewPCG(12, uint64(longest)))
	for range more {
		var tail strings.Builder
		for range shortest + random.IntN(longest-shortest+1) {
			tail.WriteString(tailLetters()[random.IntN(4)])
		}
		tails = append(tails, tail.String())
	}
	slices.Sort(tails)
	return slices.Compact(tails)
}

// smuggle sends a message for each tail, with another transaction behind it, and answers the texts that must arrive, by subject.
func smuggle(t *testing.T, relay, to string, tails []string, mend bool) (want map[string]string) {
	t.Helper()
	want = map[string]string{}
	work := make(chan string)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for tail := range work {
				accepted, err := smuggleOne(relay, to, tail)
				text, regular := arrives(tail)
				expected := 0
				if regular || mend {
					expected = 1
				}
				if err != nil || accepted != expected {
					t.Errorf("%q was accepted %d times, want %d (%v)", tail, accepted, expected, err)
				}
				if expected == 0 {
					continue
				}
				mu.Lock()
				want[subject(tail)] = text
				mu.Unlock()
			}
		})
	}
	for _, tail := range tails {
		work <- tail
	}
	close(work)
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return want
}

const (
	beforeTail = "before"
	behindTail = "MAIL FROM:<ceo@victim.example>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nFrom: ceo@victim.example\r\nSubject: smuggled\r\n\r\n" +
		"text\r\n.\r\nQUIT\r\n"
)

func subject(tail string) string { return fmt.Sprintf("t-%x", tail) }

// arrives is the text that RFC 5321 makes of a tail with what stands around it, with LF as the end of lines, and whether it was
// regular: it goes to the first CR LF . CR LF.
func arrives(tail string) (text string, regular bool) {
	text, _, _ = strings.Cut(beforeTail+tail+behindTail, "\r\n.\r\n")
	text, regular = normalised(text + "\r\n")
	return strings.ReplaceAll(text, "\r\n", "\n"), regular
}

var queuedReply = regexp.MustCompile(`(?m)^250 2\.0\.0 Ok: queued as`)

// smuggleOne says all at once, as an attacker does whose words another server passes on.
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
	says := "EHLO client.example\r\nMAIL FROM:<anna@example.com>\r\nRCPT TO:<" + to + ">\r\nDATA\r\n" +
		"From: anna@example.com\r\nSubject: " + subject(tail) + "\r\n\r\n" + beforeTail + tail + behindTail
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

// checkArrivals holds that each message arrived once and as it should, and nothing else.
func checkArrivals(t *testing.T, texts []string, want map[string]string) {
	t.Helper()
	if len(texts) != len(want) {
		t.Errorf("%d messages arrived, want %d", len(texts), len(want))
	}
	seen := map[string]bool{}
	for _, text := range texts {
		name := ""
		if match := firstSubject.FindStringSubmatch(text); match != nil {
			name = match[1]
		}
		wanted, sent := want[name]
		if !sent || seen[name] {
			t.Errorf("a message arrived that was not sent, or twice:\n%s", text)
			continue
		}
		seen[name] = true
		_, body, _ := strings.Cut(text, beforeTail)
		if body = beforeTail + body; body != wanted {
			t.Errorf("%s arrived as %q, want %q", name, body, wanted)
		}
	}
}

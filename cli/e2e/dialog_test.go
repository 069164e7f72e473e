package e2e

import (
	"bufio"
	"net"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dialog is an SMTP client that says exactly what a test wants and keeps every reply.
type dialog struct {
	t    *testing.T
	conn net.Conn
	in   *textproto.Reader
}

// dial connects from a loopback address of the test's choice; the greeting is read.
func dial(t *testing.T, server, from string) *dialog {
	t.Helper()
	dialer := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", server)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(60*time.Second)))
	d := &dialog{t: t, conn: conn, in: textproto.NewReader(bufio.NewReader(conn))}
	if r := d.reply(); r.code != 220 {
		t.Fatalf("greeting %v", r)
	}
	if r := d.say("EHLO client.example"); r.code != 250 {
		t.Fatalf("EHLO answered %v", r)
	}
	return d
}

// reply is one SMTP reply: its code and lines without it.
type reply struct {
	code  int
	lines []string
}

func (r reply) String() string { return strconv.Itoa(r.code) + " " + strings.Join(r.lines, " / ") }

// first is the line for people.
func (r reply) first() string { return strconv.Itoa(r.code) + " " + r.lines[0] }

var refPattern = regexp.MustCompile(`reason=(\S+) ref=(\S+)`)

// reference answers the machine line of a refusal: its reason and the reference that the API explains.
func (r reply) reference() (reason, ref string) {
	match := refPattern.FindStringSubmatch(strings.Join(r.lines, " "))
	if match == nil {
		return "", ""
	}
	return match[1], match[2]
}

func (d *dialog) reply() reply {
	d.t.Helper()
	var r reply
	for {
		line, err := d.in.ReadLine()
		if err != nil {
			d.t.Fatalf("read reply: %v (so far %v)", err, r)
		}
		if len(line) < 4 {
			d.t.Fatalf("reply line %q", line)
		}
		code, err := strconv.Atoi(line[:3])
		must(d.t, err)
		r.code = code
		r.lines = append(r.lines, line[4:])
		if line[3] == ' ' {
			return r
		}
	}
}

func (d *dialog) say(line string) reply {
	d.t.Helper()
	_, err := d.conn.Write([]byte(line + "\r\n"))
	must(d.t, err)
	return d.reply()
}

// send runs one transaction and answers the reply that decided it: a refusal, or the 250 after the dot.
func (d *dialog) send(from, to, message string) reply {
	d.t.Helper()
	for _, command := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"} {
		if r := d.say(command); r.code >= 400 {
			d.say("RSET")
			return r
		}
	}
	return d.say(message + "\r\n.")
}

func letter(from, extra string) string {
	return "From: <" + from + ">\r\nTo: <bob@example.net>\r\nSubject: hello\r\n" + extra + "\r\nHello Bob.\r\n"
}

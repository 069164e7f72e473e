package smtpd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"activerelay/api/reason"
)

// proxyV2 is a header of version 2.
func proxyV2(command, family byte, body string) string {
	return proxySignature + string(binary.BigEndian.AppendUint16([]byte{command, family}, uint16(len(body)))) + body
}

const (
	tcp4 = "\xc0\x00\x02\x0a\xc0\x00\x02\x01\x30\x39\x00\x19" // 192.0.2.10:12345 to 192.0.2.1:25
	tcp6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x30\x39\x00\x19"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x0a" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x30\x39\x00\x19"
)

func TestProxyHeadersNameTheClient(t *testing.T) {
	const itself = "invalid AddrPort"
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.10 192.0.2.1 12345 25\r\n":          "192.0.2.10:12345",
		"PROXY TCP6 2001:db8::a 2001:db8::1 12345 25\r\n":       "[2001:db8::a]:12345",
		"PROXY TCP6 ::ffff:192.0.2.10 2001:db8::1 12345 25\r\n": "192.0.2.10:12345",
		"PROXY UNKNOWN\r\n": itself,
		"PROXY UNKNOWN ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n": itself,
		proxyV2(proxyProxy, proxyTCP4, tcp4):                                  "192.0.2.10:12345",
		proxyV2(proxyProxy, proxyTCP4, tcp4+"\x04\x00\x03abc"):                "192.0.2.10:12345",
		proxyV2(proxyProxy, proxyTCP6, tcp6):                                  "[2001:db8::a]:12345",
		proxyV2(proxyProxy, proxyTCP6, mapped):                                "192.0.2.10:12345",
		proxyV2(proxyProxy, proxyUnspecified, ""):                             itself,
		proxyV2(proxyProxy, proxyUnix, strings.Repeat("x", proxyUnixBytes)):   itself,
		proxyV2(proxyLocal, proxyUnspecified, ""):                             itself,
		proxyV2(proxyLocal, proxyTCP4, tcp4):                                  itself,
	} {
		r := iotest.OneByteReader(strings.NewReader(header + "rest"))
		got, err := readProxyHeader(r)
		if err != nil || got.String() != want {
			t.Errorf("%q: %s, %v; want %s", header, got, err, want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("%q: left %q, want what follows the header", header, rest)
		}
	}
}

func TestMalformedProxyHeadersAreRefused(t *testing.T) {
	for _, header := range []string{
		"", "PROXY", "EHLO client.test\r\n", "\x16\x03\x01 a ClientHello", "PROXY TCP4\r\nEHLO c\r\n", "PROXY TCP4 192.0.2.10 192.0.2.1 12345 25\n",
		"PROXY TCP4 192.0.2.10 192.0.2.1 12345\r\n", "PROXY TCP4 192.0.2.10 192.0.2.1 12345 25 \r\n", "PROXY TCP4  192.0.2.10 192.0.2.1 1 25\r\n",
		"PROXY TCP4 192.0.2.10 192.0.2.1 65536 25\r\n", "PROXY TCP4 192.0.2.10 192.0.2.1 -1 25\r\n", "PROXY TCP4 192.0.2.10 192.0.2.1 1 \r\n",
		"PROXY TCP4 2001:db8::a 192.0.2.1 1 25\r\n", "PROXY TCP6 192.0.2.10 2001:db8::1 1 25\r\n", "PROXY TCP6 fe80::1%eth0 2001:db8::1 1 25\r\n",
		"PROXY TCP4 192.0.2.10 example.com 1 25\r\n", "PROXY UDP4 192.0.2.10 192.0.2.1 1 25\r\n", "proxy TCP4 192.0.2.10 192.0.2.1 1 25\r\n",
		"PROXY UNKNOWN " + strings.Repeat("x", maxProxyLine) + "\r\n", "PROXY " + strings.Repeat("x", 1000),
		proxyV2(proxyProxy, proxyTCP4, tcp4[1:]), proxyV2(proxyProxy, proxyTCP6, tcp4), proxyV2(proxyProxy, 0x12, tcp4), proxyV2(proxyProxy, 0x41, tcp4),
		proxyV2(0x22, proxyTCP4, tcp4), proxyV2(0x11, proxyTCP4, tcp4), proxyV2(proxyProxy, proxyTCP4, tcp4)[:20], proxySignature,
		proxyV2(proxyLocal, proxyUnspecified, strings.Repeat("x", maxProxyBytes+1)), proxyV2(proxyProxy, proxyUnix, "short"),
	} {
		if got, err := readProxyHeader(strings.NewReader(header)); err == nil {
			t.Errorf("%q names %s, want an error", header, got)
		}
	}
}

// FuzzProxyHeader holds that any header names a client that could be one, or none, and that not a byte behind it is read.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.10 192.0.2.1 12345 25\r\nEHLO"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(proxyV2(proxyProxy, proxyTCP6, tcp6) + "EHLO"))
	f.Add([]byte(proxyV2(proxyLocal, proxyUnspecified, "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		got, err := readProxyHeader(r)
		read := data[:len(data)-r.Len()]
		if err != nil {
			if len(read) > len(proxySignature)+4+maxProxyBytes {
				t.Fatalf("read %d bytes of %.40q", len(read), data)
			}
			return
		}
		if got.IsValid() && (got.Addr().Is4In6() || got.Addr().Zone() != "") {
			t.Fatalf("%q names %s", data, got)
		}
		line := bytes.HasPrefix(read, []byte(proxyLine))
		if line && !bytes.HasSuffix(read, []byte("\r\n")) || line && bytes.Count(read, []byte("\r\n")) != 1 {
			t.Fatalf("%q was taken for one line", read)
		}
		if again, err := readProxyHeader(bytes.NewReader(read)); err != nil || again != got {
			t.Fatalf("%q names %s, alone %s, %v", data, got, again, err)
		}
	})
}

func loopbackIsAProxy(o *setup) { o.proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// Control 19: whoever may say who the client is says it before everything else, on every kind of listener, and it holds everywhere.
func TestControl19ProxyHeaderOfAConfiguredPeerNamesTheClient(t *testing.T) {
	for _, kind := range []Kind{Relay, Submission, ImplicitTLS} {
		for name, header := range map[string]string{
			"version 1": "PROXY TCP4 192.0.2.10 192.0.2.1 12345 25\r\n", "version 2": proxyV2(proxyProxy, proxyTCP4, tcp4),
		} {
			t.Run(fmt.Sprintf("%s %s", kind, name), func(t *testing.T) {
				e := startEdge(t, func(o *setup) {
					loopbackIsAProxy(o)
					o.tls, o.kind = true, kind
				})
				e.bank.setLimit("elsewhere.test", 10)
				c := e.connect()
				c.raw(header)
				if kind == ImplicitTLS {
					c.secure(e.trust)
				}
				c.want(`220 edge\.relay\.test .*`)
				c.ask("EHLO client.test", "(?s)250-.*")
				if kind == Submission {
					c.startTLS(e.trust)
				}
				from := "x@elsewhere.test" // whose relay IP is 192.0.2.10
				if kind != Relay {
					from = "anna@ok.test"
					c.login(from, password, "235 .*")
				}
				c.mail(from, text(from), queuedAs)
				messages, texts := e.stored()
				if messages[0].Client.String() != "192.0.2.10" || !strings.Contains(texts[0], "([192.0.2.10])") {
					t.Errorf("stored a message of %s:\n%s", messages[0].Client, texts[0])
				}
				if got := *e.events()[0].ClientAddress; got != "192.0.2.10" {
					t.Errorf("the event names %s", got)
				}
			})
		}
	}
}

func TestControl19ProxyHeaderOfAnybodyElseIsNotBelieved(t *testing.T) {
	for name, header := range map[string]string{
		"version 1": "PROXY TCP4 192.0.2.10 192.0.2.1 12345 25\r\n", "version 2": proxyV2(proxyProxy, proxyTCP4, tcp4),
	} {
		t.Run(name, func(t *testing.T) {
			e := startEdge(t, func(o *setup) {
				o.proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::1/128")}
				o.limits.GreetDelay = patience
			})
			c := e.connect()
			c.raw(header) // before the greeting: an early talker
			c.want(said(421, "4.7.0", reason.EarlyTalker, "Wait for the greeting before sending commands"))
			c.ended()
		})
	}
	e := startEdge(t, nil)
	c := e.dial()
	c.ask("PROXY TCP4 192.0.2.10 192.0.2.1 12345 25", said(500, "5.5.1", reason.CommandUnknown, "Command not recognised"))
	c.ask("EHLO client.test", "(?s)250-.*")
	c.ask("MAIL FROM:<x@elsewhere.test>", "250 .*")
	c.ask("RCPT TO:<carl@sink.test>", "(?s)550-.*client address 127.0.0.1 is not active.*")
}

func TestAProxyIsNoClientItself(t *testing.T) {
	for name, header := range map[string]string{
		"no header": "", "a command": "EHLO client.test\r\n", "malformed": "PROXY TCP4 192.0.2.10\r\n", "half a header": "PROXY TCP4 192.0",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEdge(t, func(o *setup) {
				loopbackIsAProxy(o)
				o.limits.Preface = 100 * time.Millisecond
			})
			c := e.connect()
			c.raw(header)
			c.ended() // without a word
			if log := e.log.String(); !strings.Contains(log, "proxy=127.0.0.1") || !strings.Contains(log, "--proxy-peers") {
				t.Errorf("the log does not tell why:\n%s", log)
			}
		})
	}
}

// Whoever does not know that it counts as a proxy waits for an answer, and must not wait for the patience with real ones.
func TestTheFirstByteThatBeginsNoHeaderEndsAConnectionOfAProxy(t *testing.T) {
	for _, first := range []string{"Q", "QUIT\r\n", "\x16\x03\x01", "PROX\r", "\r\n\r\n\r"} {
		e := startEdge(t, func(o *setup) {
			loopbackIsAProxy(o)
			o.limits.Preface = time.Hour
		})
		c := e.connect()
		c.raw(first)
		c.ended()
		if log := e.log.String(); !strings.Contains(log, "there is none") {
			t.Errorf("%q: the log does not tell why:\n%s", first, log)
		}
	}
}

// Load balancers look in this way, every few seconds, whether we are there.
func TestAConnectionOfAProxyWithoutAByteIsNoTrouble(t *testing.T) {
	for _, reset := range []bool{false, true} {
		e := startEdge(t, loopbackIsAProxy)
		c := e.connect()
		if reset {
			e.must(c.conn.(*net.TCPConn).SetLinger(0))
		}
		e.must(c.conn.Close())
		next := e.connect() // which is accepted after it
		next.raw("PROXY UNKNOWN\r\n")
		next.want("220 .*")
		for open := 2; open > 1; runtime.Gosched() {
			e.server.mu.Lock()
			open = e.server.connections
			e.server.mu.Unlock()
		}
		if log := e.log.String(); log != "" {
			t.Errorf("reset=%v: logged\n%s", reset, log)
		}
	}
}

func TestAProxyMaySpeakForItself(t *testing.T) {
	for _, header := range []string{"PROXY UNKNOWN\r\n", proxyV2(proxyLocal, proxyUnspecified, "")} {
		e := startEdge(t, loopbackIsAProxy)
		c := e.connect()
		c.raw(header)
		c.want(`220 .*`)
		c.ask("EHLO client.test", "(?s)250-.*")
		c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
		if messages, _ := e.stored(); messages[0].Client.String() != "127.0.0.1" {
			t.Errorf("stored a message of %s", messages[0].Client)
		}
	}
}

func TestClientsOfAProxyAreCountedByTheirAddress(t *testing.T) {
	e := startEdge(t, func(o *setup) {
		loopbackIsAProxy(o)
		o.limits.ConnectionsPerIP = 1
	})
	come := func(client string) *client {
		c := e.connect()
		c.raw("PROXY TCP4 " + client + " 192.0.2.1 12345 25\r\n")
		return c
	}
	first := come("192.0.2.10")
	first.want("220 .*")
	second := come("192.0.2.10")
	second.want(said(421, "4.7.0", reason.TooManyConnections, "Too many connections from 192.0.2.10; try again later"))
	second.ended()
	come("192.0.2.11").want("220 .*")
	six := func(client string) *client {
		c := e.connect()
		c.raw("PROXY TCP6 " + client + " 2001:db8::1 12345 25\r\n")
		return c
	}
	six("2001:db8::a").want("220 .*")
	six("2001:db8::1:2:3:b").want(said(421, "4.7.0", reason.TooManyConnections, "Too many connections from 2001:db8::1:2:3:b; try again later"))
	six("2001:db8:0:1::a").want("220 .*") // of another network of /64
	first.ask("QUIT", "221 .*")
	first.ended()
	for left := time.Now().Add(patience); ; {
		c := come("192.0.2.10")
		if got, err := c.reply(); err == nil && strings.HasPrefix(got, "220") {
			break
		}
		if time.Now().After(left) {
			t.Fatal("the place of a connection that ended is not free")
		}
	}
}

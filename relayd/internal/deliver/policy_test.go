package deliver_test

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/tlspolicy"
	"activerelay/relayd/relaytest"
)

// secured is the destination y.test with one mail server, everything that it
// may publish about its TLS, and a relay with a memory.
type secured struct {
	t      *testing.T
	ca     *relaytest.Authority
	mx     *relaytest.MX
	dns    *relaytest.DNS
	host   *relaytest.PolicyHost
	sender *deliver.Sender
	change func(*deliver.Config)
	dir    string
	store  *journal.Journal
	memory *tlspolicy.Memory

	mu  sync.Mutex
	now time.Time
}

func newSecured(t *testing.T, script relaytest.Script, change func(*deliver.Config)) *secured {
	t.Helper()
	d := &secured{t: t, ca: relaytest.NewAuthority(t, "web"), dir: t.TempDir(), change: change, now: time.Now()}
	d.mx = relaytest.StartMX(t, script)
	d.host = relaytest.StartPolicyHost(t, d.ca, "", "mta-sts.y.test")
	d.dns = relaytest.StartDNS(t, relaytest.Zone{
		"y.test": {"MX 10 mx.y.test."}, "mx.y.test": {"A 127.0.0.1"}, "mta-sts.y.test": {"A 127.0.0.1"},
	})
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

// start is a start of the relay on what the last one left.
func (d *secured) start() {
	d.t.Helper()
	d.stop()
	var err error
	if d.store, err = journal.Open(journal.Config{Dir: d.dir}); err != nil {
		d.t.Fatal(err)
	}
	d.memory, err = tlspolicy.OpenMemory(tlspolicy.MemoryConfig{Journal: d.store, RememberTLS: 90 * 24 * time.Hour, Now: d.clock})
	if err != nil {
		d.t.Fatal(err)
	}
	d.sender = newSender(d.t, func(c *deliver.Config) {
		c.Resolvers, c.MXPort, c.PolicyPort = []netip.AddrPort{d.dns.Addr()}, d.mx.Port(), d.host.Port()
		c.RootCAs, c.Memory, c.IdleConnections = d.ca.Pool(), d.memory, -1
		if d.change != nil {
			d.change(c)
		}
	})
}

func (d *secured) stop() {
	if d.store != nil {
		_ = d.store.Close()
	}
}

func (d *secured) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *secured) advance(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// tlsa publishes TLSA records of mx.y.test, signed like all of y.test.
func (d *secured) tlsa(records ...string) {
	d.dns.Set(fmt.Sprintf("_%d._tcp.mx.y.test", d.mx.Port()), records...)
	d.dns.Sign("y.test")
}

// sts publishes an MTA-STS policy.
func (d *secured) sts(id, mode, mx string) {
	d.host.Publish("version: STSv1\nmode: " + mode + "\nmx: " + mx + "\nmax_age: 604800\n")
	d.dns.Set("_mta-sts.y.test", `TXT "v=STSv1; id=`+id+`"`)
}

func (d *secured) send() queue.Result {
	d.t.Helper()
	return d.sender.Attempt(d.t.Context(), jobByMX(mail, "b@y.test"))[0]
}

// saw fails the test unless the attempts left n messages at the server, and
// none of them in plain text where the destination is enforced: not even its
// MAIL command.
func (d *secured) saw(n int, enforced bool) {
	d.t.Helper()
	messages := d.mx.Messages()
	if len(messages) != n {
		d.t.Errorf("the server has %d messages, want %d", len(messages), n)
	}
	if enforced && d.mx.PlainTextMail() > 0 {
		d.t.Errorf("%d bytes of mail in plain text", d.mx.PlainTextMail())
	}
}

// faults are the ways of matrix row 45 in which a server is less than it
// should be, each with its script.
func faults(t *testing.T, ca *relaytest.Authority) map[string]relaytest.Script {
	t.Helper()
	good := ca.Issue(t, time.Hour, "mx.y.test")
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	say := func(a relaytest.Action) map[relaytest.Stage]relaytest.Action {
		return map[relaytest.Stage]relaytest.Action{relaytest.StageStartTLS: a}
	}
	return map[string]relaytest.Script{
		"expired":           {TLS: ca.Issue(t, -time.Minute, "mx.y.test")},
		"wrong name":        {TLS: ca.Issue(t, time.Hour, "mx.z.test")},
		"unknown issuer":    {TLS: relaytest.NewAuthority(t, "stranger").Issue(t, time.Hour, "mx.y.test")},
		"TLS 1.0":           {TLS: old},
		"STARTTLS stripped": {},
		"STARTTLS refused":  {TLS: good, On: say(relaytest.Say("454 4.7.0 not now"))},
		"garbage after 220": {TLS: good, On: say(relaytest.SayRaw("220 go\r\n\x00\x01\x02 not TLS\r\n"))},
		"silence after 220": {TLS: good, On: say(relaytest.Say("220 go"))},
		"closed after 220":  {TLS: good, On: say(relaytest.SayAndClose("220 go"))},
		"no TLS after 220":  {TLS: nil, Extensions: []string{"STARTTLS"}},
	}
}

// Matrix row 45: with every way to enforce TLS and every fault, mail waits, and
// not one byte of it goes out in plain text.
func TestRow45NoMailLeavesInPlainTextOrToAStrangerWhereTLSIsEnforced(t *testing.T) {
	elsewhere := relaytest.NewAuthority(t, "another")
	for enforced, publish := range map[string]func(*secured){
		"DANE mismatch, usage 3": func(d *secured) {
			d.tlsa(relaytest.TLSA(t, elsewhere.Issue(t, time.Hour, "mx.y.test").Certificates[0].Leaf, 3, 1, 1))
		},
		"DANE, usage 2": func(d *secured) { d.tlsa(relaytest.TLSA(t, d.ca.Certificate, 2, 0, 1)) },
		"MTA-STS":       func(d *secured) { d.sts("a1", "enforce", "mx.y.test") },
		"DANE mismatch beside MTA-STS that fits": func(d *secured) {
			d.sts("a1", "enforce", "mx.y.test")
			d.tlsa(relaytest.TLSA(t, elsewhere.Certificate, 2, 0, 1))
		},
	} {
		for fault := range faults(t, elsewhere) {
			t.Run(enforced+", "+fault, func(t *testing.T) {
				t.Parallel()
				d := newSecured(t, relaytest.Script{}, impatientAfter(time.Second))
				d.mx = relaytest.StartMX(t, faults(t, d.ca)[fault])
				d.start()
				publish(d)
				for range 2 {
					if got := d.send(); got.Class != queue.TempFail || got.Text == "" {
						t.Errorf("got %s %q over %q (%v), want it to wait", brief(got), got.Text, got.TLS, got.Err)
					}
				}
				d.saw(0, true)
			})
		}
	}
}

// RFC 7672 2.2: records that cannot be used say all the same that the server speaks TLS.
func TestRow45RecordsThatMailMustNotUseForbidPlainText(t *testing.T) {
	ca := relaytest.NewAuthority(t, "web")
	for _, fault := range []string{"STARTTLS stripped", "STARTTLS refused", "closed after 220"} {
		t.Run(fault, func(t *testing.T) {
			d := newSecured(t, faults(t, ca)[fault], nil)
			d.tlsa(relaytest.TLSA(t, ca.Certificate, 0, 0, 1))
			if got := d.send(); got.Class != queue.TempFail || !strings.HasPrefix(got.Enhanced, "4.7.") {
				t.Errorf("got %s over %q (%s)", brief(got), got.TLS, got.Text)
			}
			d.saw(0, true)
		})
	}
}

// Matrix row 45: where nothing is enforced, mail arrives all the same.
func TestRow45MailArrivesDespiteEveryFaultWhereNothingIsEnforced(t *testing.T) {
	for fault := range faults(t, relaytest.NewAuthority(t, "names only")) {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			d := newSecured(t, relaytest.Script{}, impatientAfter(time.Second))
			d.mx = relaytest.StartMX(t, faults(t, d.ca)[fault])
			d.start()
			got := d.send()
			if fault == "garbage after 220" {
				// Whoever speaks between 220 and the handshake is no accident.
				if got.Class != queue.TempFail {
					t.Errorf("got %s %q", brief(got), got.Text)
				}
				return
			}
			if got.Class != queue.Delivered {
				t.Errorf("got %s %q (%v)", brief(got), got.Text, got.Err)
			}
			if fault == "TLS 1.0" && got.TLS != "TLS 1.0 encrypted" { // old, and better than none
				t.Errorf("over %q", got.TLS)
			}
			d.saw(1, false)
		})
	}
}

func impatientAfter(d time.Duration) func(*deliver.Config) {
	return func(c *deliver.Config) { c.Timeouts.Greeting, c.Timeouts.Hello, c.Timeouts.Quit = d, d, d }
}

func TestTheVerdictSaysHowTheServerProvedItself(t *testing.T) {
	ca := relaytest.NewAuthority(t, "web")
	conf := ca.Issue(t, time.Hour, "mx.y.test")
	expired := ca.Issue(t, -time.Hour, "other.test")
	for _, c := range []struct {
		name    string
		tls     *tls.Config
		publish func(*secured)
		rule    queue.TLSRule
		want    string
	}{
		{name: "no TLS", want: "none"},
		{name: "nothing published", tls: conf, want: "TLS 1.3 encrypted"},
		{name: "never TLS", tls: conf, rule: queue.TLSNone, want: "none"},
		{name: "TLS required", tls: conf, rule: queue.TLSRequired, want: "TLS 1.3 verified"},
		{
			name: "DANE, usage 3, expired and with another name", tls: expired, want: "TLS 1.3 dane",
			publish: func(d *secured) { d.tlsa(relaytest.TLSA(t, expired.Certificates[0].Leaf, 3, 1, 1)) },
		},
		{
			name: "DANE, usage 2", tls: conf, want: "TLS 1.3 dane",
			publish: func(d *secured) { d.tlsa(relaytest.TLSA(t, ca.Certificate, 2, 1, 2)) },
		},
		{
			name: "DANE, usage 2, a certificate for the domain", tls: ca.Issue(t, time.Hour, "y.test"), want: "TLS 1.3 dane",
			publish: func(d *secured) { d.tlsa(relaytest.TLSA(t, ca.Certificate, 2, 1, 1)) },
		},
		{
			name: "DANE, usage 2, a certificate for what the domain is an alias of", tls: ca.Issue(t, time.Hour, "z.test"), want: "TLS 1.3 dane",
			publish: func(d *secured) {
				d.tlsa(relaytest.TLSA(t, ca.Certificate, 2, 1, 1))
				d.dns.Set("y.test", "CNAME z.test.")
				d.dns.Set("z.test", "MX 10 mx.y.test.")
				d.dns.Sign("z.test")
			},
		},
		{
			name: "MTA-STS", tls: conf, want: "TLS 1.3 sts",
			publish: func(d *secured) { d.sts("a1", "enforce", "*.y.test") },
		},
		{
			name: "DANE goes before MTA-STS, even one that names another server", tls: conf, want: "TLS 1.3 dane",
			publish: func(d *secured) {
				d.sts("a1", "enforce", "other.test")
				d.tlsa(relaytest.TLSA(t, conf.Certificates[0].Leaf, 3, 0, 1))
			},
		},
		{
			name: "only records that mail must not use", tls: expired, want: "TLS 1.3 encrypted",
			publish: func(d *secured) { d.tlsa(relaytest.TLSA(t, ca.Certificate, 0, 0, 1)) },
		},
		{
			name: "MTA-STS beside records that mail must not use", tls: conf, want: "TLS 1.3 sts",
			publish: func(d *secured) {
				d.sts("a1", "enforce", "mx.y.test")
				d.tlsa(relaytest.TLSA(t, ca.Certificate, 1, 0, 1))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newSecured(t, relaytest.Script{TLS: c.tls}, func(conf *deliver.Config) { conf.RootCAs = ca.Pool() })
			d.host = relaytest.StartPolicyHost(t, ca, "", "mta-sts.y.test")
			d.start()
			if c.publish != nil {
				c.publish(d)
			}
			job := jobByMX(mail, "b@y.test")
			job.Route.TLS = c.rule
			got := d.sender.Attempt(t.Context(), job)[0]
			if got.Class != queue.Delivered || got.TLS != c.want {
				t.Errorf("got %s over %q (%s: %v), want delivered over %q", brief(got), got.TLS, got.Text, got.Err, c.want)
			}
		})
	}
}

// RFC 7672 2.1: the records count only when everything that leads to them is
// validated, and a lookup that fails is no proof that there are none.
func TestTLSARecordsCountOnlyBehindAnUnbrokenPath(t *testing.T) {
	ca := relaytest.NewAuthority(t, "web")
	conf := ca.Issue(t, time.Hour, "mx.y.test")
	mismatch := relaytest.TLSA(t, relaytest.NewAuthority(t, "another").Certificate, 2, 0, 1)
	fits := relaytest.TLSA(t, conf.Certificates[0].Leaf, 3, 1, 1)
	for _, c := range []struct {
		name   string
		change func(d *secured, tlsaName string)
		want   string
	}{
		{name: "all signed", want: "temporary"},
		{name: "nothing signed", change: func(d *secured, _ string) { d.dns.Unsign("y.test") }, want: "TLS 1.3 encrypted"},
		{name: "TLSA not signed", change: func(d *secured, name string) { d.dns.Unsign(name) }, want: "TLS 1.3 encrypted"},
		{name: "address not signed", change: func(d *secured, name string) { d.dns.Unsign("mx.y.test"); d.dns.Sign(name) }, want: "TLS 1.3 encrypted"},
		{
			name: "MX not signed", change: func(d *secured, _ string) { d.dns.Unsign("y.test"); d.dns.Sign("mx.y.test") },
			want: "TLS 1.3 encrypted",
		},
		{name: "no TLSA", change: func(d *secured, name string) { d.dns.Set(name) }, want: "TLS 1.3 encrypted"},
		{name: "TLSA lookup fails", change: func(d *secured, name string) { d.dns.Fail(name, relaytest.ServFail) }, want: "temporary"},
		{name: "TLSA lookup is not answered", change: func(d *secured, name string) { d.dns.Fail(name, relaytest.Silent) }, want: "temporary"},
		{
			name: "TLSA lookup fails where the address is not signed", want: "TLS 1.3 encrypted",
			change: func(d *secured, name string) { d.dns.Unsign("mx.y.test"); d.dns.Fail(name, relaytest.ServFail) },
		},
		{
			name: "the host is an alias, records at its end", want: "TLS 1.3 dane",
			change: func(d *secured, name string) {
				d.dns.Set("mx.y.test", "CNAME h.z.test.")
				d.dns.Set("h.z.test", "A 127.0.0.1")
				d.dns.Set(strings.Replace(name, "mx.y.test", "h.z.test", 1), fits)
				d.dns.Sign("z.test")
			},
		},
		{
			name: "the host is an alias, records at its beginning", want: "temporary",
			change: func(d *secured, _ string) {
				d.dns.Set("mx.y.test", "CNAME h.z.test.")
				d.dns.Set("h.z.test", "A 127.0.0.1")
				d.dns.Sign("z.test")
			},
		},
		{
			name: "the host is a signed alias of an unsigned name", want: "temporary",
			change: func(d *secured, _ string) {
				d.dns.Set("mx.y.test", "CNAME h.z.test.")
				d.dns.Set("h.z.test", "A 127.0.0.1")
			},
		},
		{
			name: "no MX, the domain is its own server", want: "temporary",
			change: func(d *secured, name string) {
				d.dns.Set("y.test", "A 127.0.0.1")
				d.dns.Set(strings.Replace(name, "mx.y.test", "y.test", 1), mismatch)
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newSecured(t, relaytest.Script{TLS: conf}, func(c *deliver.Config) { c.Timeouts.Lookup = 200 * time.Millisecond })
			d.tlsa(mismatch)
			if c.change != nil {
				c.change(d, fmt.Sprintf("_%d._tcp.mx.y.test", d.mx.Port()))
			}
			got := d.send()
			if c.want == "temporary" && got.Class != queue.TempFail || c.want != "temporary" && got.TLS != c.want {
				t.Errorf("got %s over %q (%s: %v), want %s", brief(got), got.TLS, got.Text, got.Err, c.want)
			}
		})
	}
}

// RFC 7672 8.1: a server with many names shows the certificate that the records are about.
func TestAServerIsAskedForTheNameThatItsTLSARecordsAreAt(t *testing.T) {
	conf := relaytest.NewAuthority(t, "web").Issue(t, time.Hour, "h.z.test")
	fits := relaytest.TLSA(t, conf.Certificates[0].Leaf, 3, 1, 1)
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != "h.z.test" {
			return nil, fmt.Errorf("no certificate for %q", hello.ServerName)
		}
		return nil, nil
	}
	d := newSecured(t, relaytest.Script{TLS: conf}, nil)
	d.dns.Set("mx.y.test", "CNAME h.z.test.")
	d.dns.Set("h.z.test", "A 127.0.0.1")
	d.dns.Set(fmt.Sprintf("_%d._tcp.h.z.test", d.mx.Port()), fits)
	d.dns.Sign("y.test")
	d.dns.Sign("z.test")
	if got := d.send(); got.TLS != "TLS 1.3 dane" {
		t.Errorf("got %s over %q (%s: %v)", brief(got), got.TLS, got.Text, got.Err)
	}
}

func TestAnotherServerOfTheDestinationTakesTheMailWhenOneFailsItsTLSA(t *testing.T) {
	ca := relaytest.NewAuthority(t, "web")
	bad := relaytest.StartMX(t, relaytest.Script{})
	good := ca.Issue(t, time.Hour, "b.y.test")
	second := relaytest.StartMX(t, relaytest.Script{TLS: good, Listen: fmt.Sprintf("127.0.0.2:%d", bad.Port())})
	port := fmt.Sprintf("_%d._tcp.", bad.Port())
	dns := relaytest.StartDNS(t, relaytest.Zone{
		"y.test": {"MX 10 a.y.test.", "MX 20 b.y.test."}, "a.y.test": {"A 127.0.0.1"}, "b.y.test": {"A 127.0.0.2"},
		port + "a.y.test": {relaytest.TLSA(t, ca.Certificate, 2, 0, 1)}, port + "b.y.test": {relaytest.TLSA(t, ca.Certificate, 2, 0, 1)},
	})
	dns.Sign("y.test")
	s := newSender(t, func(c *deliver.Config) { c.Resolvers, c.MXPort = []netip.AddrPort{dns.Addr()}, bad.Port() })
	got := s.Attempt(t.Context(), jobByMX(mail, "b@y.test"))[0]
	if got.Class != queue.Delivered || got.TLS != "TLS 1.3 dane" || len(second.Messages()) != 1 || len(bad.Messages()) != 0 {
		t.Errorf("got %s over %q at %s (%s)", brief(got), got.TLS, got.Host, got.Text)
	}
}

package deliver_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"

	"github.com/prometheus/client_golang/prometheus"
)

func TestAnMTASTSPolicyDecidesWhichServersGetMail(t *testing.T) {
	ca := relaytest.NewAuthority(t, "web")
	named, stranger := ca.Issue(t, time.Hour, "mx.y.test"), ca.Issue(t, time.Hour, "mx.evil.test")
	for _, c := range []struct {
		name    string
		publish func(*secured)
		tls     bool
		want    string
		channel string
		noted   int // failures of a policy in testing
	}{
		{name: "enforced, named", publish: func(d *secured) { d.sts("a1", "enforce", "mx.y.test") }, tls: true, want: "delivered 250 2.0.0", channel: "TLS 1.3 sts"},
		{
			// What somebody who can forge MX answers would do: a server of his
			// own, with a certificate that is valid for its name.
			name: "enforced, a server that is not named", want: "temporary 0 4.7.4", tls: true,
			publish: func(d *secured) {
				d.sts("a1", "enforce", "mx.y.test")
				d.dns.Set("y.test", "MX 10 mx.evil.test.")
				d.dns.Set("mx.evil.test", "A 127.0.0.1")
			},
		},
		{name: "testing, named", publish: func(d *secured) { d.sts("a1", "testing", "mx.y.test") }, tls: true, want: "delivered 250 2.0.0", channel: "TLS 1.3 encrypted"},
		{
			name: "testing, not named", publish: func(d *secured) { d.sts("a1", "testing", "other.y.test") }, tls: true,
			want: "delivered 250 2.0.0", channel: "TLS 1.3 encrypted", noted: 1,
		},
		{
			name: "testing, a certificate for another name", tls: true, want: "delivered 250 2.0.0", channel: "TLS 1.3 encrypted", noted: 1,
			publish: func(d *secured) {
				d.sts("a1", "testing", "third.y.test")
				d.dns.Set("y.test", "MX 10 third.y.test.")
				d.dns.Set("third.y.test", "A 127.0.0.1")
			},
		},
		{
			name: "testing, no TLS", publish: func(d *secured) { d.sts("a1", "testing", "mx.y.test") },
			want: "delivered 250 2.0.0", channel: "none", noted: 1,
		},
		{name: "none", publish: func(d *secured) { d.sts("a1", "none", "mx.y.test") }, want: "delivered 250 2.0.0", channel: "none"},
		{
			name: "the record is there, the policy is not", want: "delivered 250 2.0.0", channel: "none",
			publish: func(d *secured) { d.dns.Set("_mta-sts.y.test", `TXT "v=STSv1; id=a1"`) },
		},
		{
			name: "the lookup of the record fails", want: "delivered 250 2.0.0", channel: "none",
			publish: func(d *secured) { d.dns.Fail("_mta-sts.y.test", relaytest.ServFail) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := relaytest.Script{}
			if c.tls {
				script.TLS = named.Clone()
				script.TLS.Certificates = append(script.TLS.Certificates, stranger.Certificates...)
			}
			var registry *prometheus.Registry
			d := newSecured(t, script, func(conf *deliver.Config) {
				registry = prometheus.NewRegistry()
				conf.RootCAs, conf.Metrics = ca.Pool(), registry
			})
			d.host = relaytest.StartPolicyHost(t, ca, "", "mta-sts.y.test")
			d.start()
			c.publish(d)
			got := d.send()
			if n := counter(t, registry, "relayd_deliver_sts_testing_failures_total"); n != c.noted {
				t.Errorf("%d failures noted, want %d", n, c.noted)
			}
			if brief(got) != c.want || got.TLS != c.channel {
				t.Errorf("got %s over %q (%s: %v), want %s over %q", brief(got), got.TLS, got.Text, got.Err, c.want, c.channel)
			}
			if c.channel == "" {
				d.saw(0, true)
			}
		})
	}
}

func TestAnEnforcedPolicyOutlivesARestartAndTheDisappearanceOfItsRecord(t *testing.T) {
	d := newSecured(t, relaytest.Script{}, nil)
	d.sts("a1", "enforce", "mx.y.test")
	if got := d.send(); got.Class != queue.TempFail {
		t.Fatalf("got %s %q", brief(got), got.Text)
	}
	d.dns.Set("_mta-sts.y.test")
	d.dns.Set("mta-sts.y.test")
	d.start()
	if got := d.send(); got.Class != queue.TempFail || !strings.Contains(got.Text, "MTA-STS") {
		t.Errorf("after a restart: got %s %q", brief(got), got.Text)
	}
	d.saw(0, true)
	d.sts("a2", "none", "mx.y.test")
	d.dns.Set("mta-sts.y.test", "A 127.0.0.1")
	if got := d.send(); got.Class != queue.Delivered {
		t.Errorf("after the policy was withdrawn: got %s %q (%v)", brief(got), got.Text, got.Err)
	}
}

func TestAPolicyHostInAPrivateNetworkIsNotAsked(t *testing.T) {
	d := newSecured(t, relaytest.Script{}, func(c *deliver.Config) {
		c.AllowTargetNetworks = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
	})
	inside := relaytest.StartPolicyHost(t, d.ca, "127.0.0.2:0", "mta-sts.y.test")
	inside.Publish("version: STSv1\nmode: enforce\nmx: other.test\nmax_age: 604800\n")
	d.host = inside
	d.start()
	d.dns.Set("_mta-sts.y.test", `TXT "v=STSv1; id=a1"`)
	d.dns.Set("mta-sts.y.test", "A 127.0.0.2")
	if got := d.send(); got.Class != queue.Delivered {
		t.Errorf("got %s %q (%v)", brief(got), got.Text, got.Err)
	}
	if n := inside.Asked(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// Matrix row 45: never below the level that was seen last, unless allowed.
func TestRow45ADestinationThatTookTLSIsNotSentPlainTextAgain(t *testing.T) {
	stripped := func(s relaytest.Step) bool { return s.Connection == 1 }
	for name, fault := range map[string]func(relaytest.Step) (relaytest.Action, bool){
		"STARTTLS stripped": func(s relaytest.Step) (relaytest.Action, bool) {
			return relaytest.Say("250 mx.test"), s.Stage == relaytest.StageEHLO && !stripped(s)
		},
		"STARTTLS refused": func(s relaytest.Step) (relaytest.Action, bool) {
			return relaytest.Say("502 5.5.1 what?"), s.Stage == relaytest.StageStartTLS && !stripped(s)
		},
		"handshake broken": func(s relaytest.Step) (relaytest.Action, bool) {
			return relaytest.SayAndClose("220 go"), s.Stage == relaytest.StageStartTLS && !stripped(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			allowed := ""
			d := newSecured(t, relaytest.Script{}, func(c *deliver.Config) {
				c.AllowPlainText = func(domain string) bool { return domain == allowed }
			})
			d.mx = relaytest.StartMX(t, relaytest.Script{TLS: d.ca.Issue(t, time.Hour, "whatever.test"), Decide: fault})
			d.start()
			if got := d.send(); got.TLS != "TLS 1.3 encrypted" {
				t.Fatalf("got %s over %q (%s)", brief(got), got.TLS, got.Text)
			}
			d.start()
			d.advance(80 * 24 * time.Hour)
			if got := d.send(); got.Class != queue.TempFail || !strings.HasPrefix(got.Enhanced, "4.7.") {
				t.Errorf("got %s %q over %q", brief(got), got.Text, got.TLS)
			}
			d.saw(1, true)

			allowed = "y.test"
			if got := d.send(); got.Class != queue.Delivered || got.TLS != "none" {
				t.Errorf("allowed by the setting: got %s over %q (%s)", brief(got), got.TLS, got.Text)
			}
			allowed = ""
			d.advance(11 * 24 * time.Hour)
			if got := d.send(); got.Class != queue.Delivered || got.TLS != "none" {
				t.Errorf("after 91 days: got %s over %q (%s)", brief(got), got.TLS, got.Text)
			}
		})
	}
}

func TestOnlyMailThatADestinationTookByMXCountsAsTLSThatItTook(t *testing.T) {
	refuses := map[relaytest.Stage]relaytest.Action{relaytest.StageRcpt: relaytest.Say("450 4.2.0 later")}
	d := newSecured(t, relaytest.Script{}, nil)
	conf := d.ca.Issue(t, time.Hour, "mx.y.test")
	d.mx = relaytest.StartMX(t, relaytest.Script{TLS: conf, On: refuses})
	d.start()
	if got := d.send(); brief(got) != "temporary 450 4.2.0" || got.TLS != "TLS 1.3 encrypted" {
		t.Fatalf("got %s over %q", brief(got), got.TLS)
	}
	smarthost := jobTo(relaytest.StartMX(t, relaytest.Script{TLS: conf}), mail, "b@y.test")
	if got := d.sender.Attempt(t.Context(), smarthost); briefs(got) != "delivered 250 2.0.0" || got[0].TLS != "TLS 1.3 encrypted" {
		t.Fatalf("got %s over %q", briefs(got), got[0].TLS)
	}
	d.mx = relaytest.StartMX(t, relaytest.Script{})
	d.start()
	if got := d.send(); got.Class != queue.Delivered || got.TLS != "none" {
		t.Errorf("got %s over %q (%s)", brief(got), got.TLS, got.Text)
	}
}

func TestAPlainConnectionIsNotUsedAgainOnceTheDestinationTookTLS(t *testing.T) {
	d := newSecured(t, relaytest.Script{}, func(c *deliver.Config) { c.IdleConnections = 10 })
	if got := d.send(); got.Class != queue.Delivered || got.TLS != "none" {
		t.Fatalf("got %s over %q", brief(got), got.TLS)
	}
	if err := d.memory.NoteTLS("y.test"); err != nil { // as an attempt at another server of it does
		t.Fatal(err)
	}
	if got := d.send(); got.Class != queue.TempFail || got.Enhanced != "4.7.4" {
		t.Errorf("got %s over %q", brief(got), got.TLS)
	}
	d.saw(1, false)
}

// A host that lookups keep out may be the one that meets what the sender requires.
func TestREQUIRETLSMailWaitsForAServerThatCannotBeLookedUp(t *testing.T) {
	d := newSecured(t, relaytest.Script{}, nil)
	d.sts("a1", "testing", "named.y.test")
	d.dns.Set("y.test", "MX 10 mx.y.test.", "MX 20 named.y.test.")
	d.dns.Fail("named.y.test", relaytest.ServFail)
	job := jobByMX(mail, "b@y.test")
	job.RequireTLS = true
	if got := d.sender.Attempt(t.Context(), job); briefs(got) != "temporary 0 4.4.3" {
		t.Errorf("got %s %q", briefs(got), got[0].Text)
	}
	d.dns.Fail("named.y.test", "")
	if got := d.sender.Attempt(t.Context(), job); briefs(got) != "permanent 0 5.7.30" {
		t.Errorf("once it is known not to exist: got %s %q", briefs(got), got[0].Text)
	}
}

func TestARouteIsNotHeldToWhatADestinationTookBefore(t *testing.T) {
	d := newSecured(t, relaytest.Script{}, nil)
	d.mx = relaytest.StartMX(t, relaytest.Script{TLS: d.ca.Issue(t, time.Hour, "mx.y.test")})
	d.start()
	d.send()
	plain := relaytest.StartMX(t, relaytest.Script{})
	for _, rule := range []queue.TLSRule{queue.TLSOpportunistic, queue.TLSNone} {
		job := jobTo(plain, mail, "b@y.test")
		job.Route.TLS = rule
		if got := d.sender.Attempt(t.Context(), job); briefs(got) != "delivered 250 2.0.0" {
			t.Errorf("rule %d: got %s %q", rule, briefs(got), got[0].Text)
		}
	}
}

// RFC 8689 4.2.1.
func TestREQUIRETLSMailGoesOnlyWhereItStaysEncryptedOrBack(t *testing.T) {
	ca, stranger := relaytest.NewAuthority(t, "web"), relaytest.NewAuthority(t, "x")
	conf := ca.Issue(t, time.Hour, "mx.y.test")
	offered := []string{"REQUIRETLS"}
	good := relaytest.Script{TLS: conf, Extensions: offered}
	later := map[relaytest.Stage]relaytest.Action{relaytest.StageStartTLS: relaytest.Say("454 4.7.0 later")}
	signed := func(d *secured) { d.dns.Sign("y.test") }
	dane := func(records ...string) func(*secured) { return func(d *secured) { d.tlsa(records...) } }
	sts := func(d *secured) { d.sts("a1", "testing", "mx.y.test") }
	const refused, passed = "permanent 0 5.7.30", "delivered 250 2.0.0"
	for _, c := range []struct {
		name    string
		script  relaytest.Script
		publish func(*secured)
		null    bool
		want    string
		params  string
	}{
		{name: "signed MX, valid certificate, offered", script: good, publish: signed, want: passed, params: "REQUIRETLS"},
		{name: "MX named by MTA-STS", script: good, publish: sts, want: passed, params: "REQUIRETLS"},
		{
			name: "DANE", script: good, publish: dane(relaytest.TLSA(t, conf.Certificates[0].Leaf, 3, 1, 1)),
			want: passed, params: "REQUIRETLS",
		},
		{name: "nobody vouches for the MX", script: good, want: refused},
		{name: "MX not named by MTA-STS", script: good, publish: func(d *secured) { d.sts("a1", "testing", "other.y.test") }, want: refused},
		{name: "not offered", script: relaytest.Script{TLS: conf}, publish: signed, want: refused},
		{name: "offered only in plain text", script: relaytest.Script{Extensions: offered}, publish: signed, want: refused},
		{
			name: "certificate of a stranger", publish: signed, want: refused,
			script: relaytest.Script{TLS: stranger.Issue(t, time.Hour, "mx.y.test"), Extensions: offered},
		},
		{name: "DANE mismatch", script: good, publish: dane(relaytest.TLSA(t, stranger.Certificate, 2, 0, 1)), want: refused},
		{
			name: "TLS not available just now", script: relaytest.Script{TLS: conf, On: later}, publish: signed,
			want: "temporary 454 4.7.4",
		},
		{name: "a notification, not offered", null: true, want: passed},
		{name: "a notification, offered", null: true, script: good, want: passed, params: "REQUIRETLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newSecured(t, c.script, func(conf *deliver.Config) { conf.RootCAs = ca.Pool() })
			d.host = relaytest.StartPolicyHost(t, ca, "", "mta-sts.y.test")
			d.start()
			if c.publish != nil {
				c.publish(d)
			}
			job := jobByMX(mail, "b@y.test")
			job.RequireTLS = true
			if c.null {
				job.Sender.Local, job.Sender.Domain = "", ""
			}
			got := d.sender.Attempt(t.Context(), job)[0]
			if brief(got) != c.want {
				t.Errorf("got %s over %q (%s: %v), want %s", brief(got), got.TLS, got.Text, got.Err, c.want)
			}
			if c.want != passed {
				d.saw(0, true)
				return
			}
			if m := d.mx.Messages(); len(m) != 1 || m[0].FromParams != c.params {
				t.Errorf("%d messages, MAIL with %q, want %q", len(m), m[0].FromParams, c.params)
			}
		})
	}
}

func TestREQUIRETLSMailDoesNotShareTheConnectionOfANotification(t *testing.T) {
	conf := relaytest.NewAuthority(t, "stranger").Issue(t, time.Hour, "mx.y.test")
	d := newSecured(t, relaytest.Script{TLS: conf, Extensions: []string{"REQUIRETLS"}}, func(c *deliver.Config) { c.IdleConnections = 10 })
	d.dns.Sign("y.test")
	job := jobByMX(mail, "b@y.test")
	job.RequireTLS = true
	notification := job
	notification.Sender.Local, notification.Sender.Domain = "", ""
	if got := d.sender.Attempt(t.Context(), notification); briefs(got) != "delivered 250 2.0.0" {
		t.Fatalf("got %s %q", briefs(got), got[0].Text)
	}
	if got := d.sender.Attempt(t.Context(), job); briefs(got) != "permanent 0 5.7.30" {
		t.Errorf("got %s %q over %q: the unverified connection was used again", briefs(got), got[0].Text, got[0].TLS)
	}
}

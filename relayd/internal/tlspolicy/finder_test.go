package tlspolicy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/tlspolicy"
	"activerelay/relayd/relaytest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// destination is a domain, y.test, that publishes a policy, and the relay that
// looks for it.
type destination struct {
	host   *relaytest.PolicyHost
	ca     *relaytest.Authority
	dir    string
	store  *journal.Journal
	memory *tlspolicy.Memory
	finder *tlspolicy.Finder

	mu      sync.Mutex
	now     time.Time
	txt     []string
	err     error
	lookups int
}

func newDestination(t *testing.T) *destination {
	t.Helper()
	d := &destination{ca: relaytest.NewAuthority(t, "web"), dir: t.TempDir(), now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	d.host = relaytest.StartPolicyHost(t, d.ca, "", "mta-sts.y.test")
	d.start(t)
	t.Cleanup(func() { _ = d.store.Close() })
	return d
}

// start is a start of the relay on what the last one left.
func (d *destination) start(t *testing.T) {
	t.Helper()
	var err error
	if d.store != nil {
		if err = d.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if d.store, err = journal.Open(journal.Config{Dir: d.dir}); err != nil {
		t.Fatal(err)
	}
	if d.memory, err = tlspolicy.OpenMemory(tlspolicy.MemoryConfig{Journal: d.store, RememberTLS: 90 * 24 * time.Hour, Now: d.clock}); err != nil {
		t.Fatal(err)
	}
	d.finder = tlspolicy.NewFinder(tlspolicy.FinderConfig{
		Memory: d.memory, TXT: d.lookup,
		Fetcher: tlspolicy.Fetcher{Dial: d.dial, Roots: d.ca.Pool(), Port: d.host.Port(), Within: 2 * time.Second},
	})
}

func (d *destination) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *destination) advance(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

func (d *destination) announce(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.txt, d.err = []string{"v=STSv1; id=" + id}, nil
}

func (d *destination) lookup(_ context.Context, name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name != "_mta-sts.y.test" {
		return nil, fmt.Errorf("asked for %s", name)
	}
	d.lookups++
	return d.txt, d.err
}

func (d *destination) dial(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
}

func (d *destination) mode(t *testing.T) tlspolicy.Mode {
	t.Helper()
	p, err := d.finder.Policy(t.Context(), "y.test")
	if err != nil {
		t.Fatal(err)
	}
	return p.Mode
}

func policyText(mode string) string {
	return "version: STSv1\nmode: " + mode + "\nmx: mx.y.test\nmax_age: 604800\n"
}

func TestAPolicyIsFetchedOnceAndAgainWhenItsIDChanges(t *testing.T) {
	d := newDestination(t)
	d.host.Publish(policyText("enforce"))
	if got := d.mode(t); got != "" || d.host.Asked() != 0 {
		t.Fatalf("without a record: mode %q, %d requests", got, d.host.Asked())
	}
	d.announce("a1")
	for range 3 {
		if got := d.mode(t); got != tlspolicy.ModeEnforce {
			t.Fatalf("mode %q", got)
		}
	}
	if n := d.host.Asked(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	d.host.Publish(policyText("testing"))
	d.announce("a2")
	if got := d.mode(t); got != tlspolicy.ModeTesting || d.host.Asked() != 2 {
		t.Errorf("mode %q after %d requests", got, d.host.Asked())
	}
	d.host.Publish(policyText("none"))
	d.announce("a3")
	if got := d.mode(t); got != tlspolicy.ModeNone {
		t.Errorf("mode %q", got)
	}
}

func TestAPolicyOutlivesItsRecordItsHostAndARestartUntilItExpires(t *testing.T) {
	d := newDestination(t)
	d.host.Publish(policyText("enforce"))
	d.announce("a1")
	d.mode(t)
	d.host.Answer(http.NotFound)
	for name, change := range map[string]func(){
		"record gone":           func() { d.txt, d.err = nil, nil },
		"lookup fails":          func() { d.err = errors.New("SERVFAIL") },
		"two records":           func() { d.txt, d.err = []string{"v=STSv1; id=x", "v=STSv1; id=y"}, nil },
		"another id, host down": func() { d.announce("a2") },
	} {
		change()
		if got := d.mode(t); got != tlspolicy.ModeEnforce {
			t.Errorf("%s: mode %q", name, got)
		}
	}
	d.start(t)
	if got := d.mode(t); got != tlspolicy.ModeEnforce {
		t.Errorf("after a restart: mode %q", got)
	}
	d.advance(7 * 24 * time.Hour)
	if got := d.mode(t); got != "" {
		t.Errorf("after a week: mode %q", got)
	}
}

func TestAPolicyInUseIsRefreshedDaily(t *testing.T) {
	d := newDestination(t)
	d.host.Publish(policyText("enforce"))
	d.announce("a1")
	for range 30 {
		if got := d.mode(t); got != tlspolicy.ModeEnforce {
			t.Fatalf("mode %q", got)
		}
		d.advance(25 * time.Hour)
	}
	if n := d.host.Asked(); n != 30 {
		t.Errorf("%d requests in 30 days", n)
	}
}

func TestAPolicyHostThatFailsIsLeftAloneForAWhile(t *testing.T) {
	d := newDestination(t)
	d.announce("a1")
	for range 3 {
		d.mode(t)
	}
	if n := d.host.Asked(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	d.host.Publish(policyText("enforce"))
	d.advance(5 * time.Minute)
	if got := d.mode(t); got != tlspolicy.ModeEnforce {
		t.Errorf("mode %q after the pause", got)
	}
}

func TestALookupThatFailsIsNotWaitedForByEveryMessage(t *testing.T) {
	d := newDestination(t)
	d.host.Publish(policyText("enforce"))
	d.err = errors.New("SERVFAIL")
	for range 3 {
		d.mode(t)
	}
	if d.lookups != 1 {
		t.Errorf("%d lookups, want 1", d.lookups)
	}
	d.announce("a1")
	d.advance(5 * time.Minute)
	if got := d.mode(t); got != tlspolicy.ModeEnforce {
		t.Errorf("mode %q after the pause", got)
	}
}

func TestOnlyAProperAnswerIsAPolicy(t *testing.T) {
	text := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(body))
	}
	elsewhere := relaytest.NewAuthority(t, "elsewhere")
	for _, c := range []struct {
		name   string
		change func(*destination)
		answer http.HandlerFunc
		want   tlspolicy.Mode
	}{
		{name: "the model", answer: func(w http.ResponseWriter, _ *http.Request) { text(w, policyText("enforce")) }, want: tlspolicy.ModeEnforce},
		{
			name: "64 KiB", want: tlspolicy.ModeEnforce, answer: func(w http.ResponseWriter, _ *http.Request) {
				p := policyText("enforce")
				text(w, p+"x:"+strings.Repeat("x", 64<<10-len(p)-2))
			},
		},
		{
			name: "a byte more", answer: func(w http.ResponseWriter, _ *http.Request) {
				p := policyText("enforce")
				text(w, p+"x:"+strings.Repeat("x", 64<<10-len(p)-1))
			},
		},
		{name: "endless", answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(policyText("enforce"))); err != nil {
					return
				}
			}
		}},
		{name: "silence", answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{name: "a redirect to a policy", answer: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/other" {
				text(w, policyText("enforce"))
				return
			}
			http.Redirect(w, r, "/other", http.StatusFound)
		}},
		{name: "a page", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(policyText("enforce")))
		}},
		{name: "203", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusNonAuthoritativeInfo)
			_, _ = w.Write([]byte(policyText("enforce")))
		}},
		{name: "nonsense", answer: func(w http.ResponseWriter, _ *http.Request) { text(w, "hello") }},
		{
			name: "a certificate of nobody known", answer: func(w http.ResponseWriter, _ *http.Request) { text(w, policyText("enforce")) },
			change: func(d *destination) { d.finder.Fetcher.Roots = elsewhere.Pool() },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDestination(t)
			if c.change != nil {
				c.change(d)
			}
			d.host.Answer(c.answer)
			d.announce("a1")
			if got := d.mode(t); got != c.want {
				t.Errorf("mode %q, want %q", got, c.want)
			}
		})
	}
}

func TestAPolicyHostMustHoldACertificateForItsName(t *testing.T) {
	d := newDestination(t)
	d.host = relaytest.StartPolicyHost(t, d.ca, "", "www.y.test", "y.test")
	d.host.Publish(policyText("enforce"))
	d.start(t)
	d.announce("a1")
	if got := d.mode(t); got != "" {
		t.Errorf("mode %q", got)
	}
}

func TestManyAttemptsAtOnceFetchOnce(t *testing.T) {
	d := newDestination(t)
	d.announce("a1")
	release, asked := make(chan struct{}), make(chan struct{}, 100)
	d.host.Answer(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-release
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(policyText("enforce")))
	})
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if p, err := d.finder.Policy(t.Context(), "Y.test."); err != nil || !p.Enforced() {
				t.Errorf("got %+v %v", p, err)
			}
		})
	}
	<-asked
	close(release)
	wait.Wait()
	// Whoever came after the first fetch had ended found its result.
	if n := d.host.Asked(); n > 3 {
		t.Errorf("%d requests for 20 attempts", n)
	}
}

func TestADomainThatTookTLSIsRememberedForItsTime(t *testing.T) {
	d := newDestination(t)
	took := func(domain string) bool {
		t.Helper()
		_, ok, err := d.memory.TookTLS(domain)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	note := func(domain string) {
		t.Helper()
		if err := d.memory.NoteTLS(domain); err != nil {
			t.Fatal(err)
		}
	}
	if took("y.test") {
		t.Error("a stranger was remembered")
	}
	note("y.test")
	d.start(t)
	d.advance(80 * 24 * time.Hour)
	if !took("Y.test.") || took("z.test") {
		t.Errorf("after a restart and 80 days: y.test %v, z.test %v", took("y.test"), took("z.test"))
	}
	shorter, err := tlspolicy.OpenMemory(tlspolicy.MemoryConfig{Journal: d.store, RememberTLS: 7 * 24 * time.Hour, Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := shorter.TookTLS("y.test"); ok || err != nil {
		t.Errorf("under a setting that was made shorter: %v, %v", ok, err)
	}
	note("y.test")
	d.advance(80 * 24 * time.Hour)
	if !took("y.test") {
		t.Error("the second delivery did not renew the memory")
	}
	d.advance(11 * 24 * time.Hour)
	if took("y.test") {
		t.Error("remembered for longer than 90 days")
	}
	note("z.test")
	if err := d.store.Scan([]byte("try.test"), func(key, _ []byte) error { return fmt.Errorf("%s", key) }); err != nil {
		t.Errorf("not swept: %v", err)
	}
}

func TestADamagedRecordIsLearntAgain(t *testing.T) {
	d := newDestination(t)
	b := d.store.NewBatch()
	b.Set([]byte("try.test"), []byte("{"))
	b.Set([]byte("tsy.test"), []byte("{"))
	if err := d.store.Commit(b); err != nil {
		t.Fatal(err)
	}
	d.host.Publish(policyText("enforce"))
	d.announce("a1")
	if got := d.mode(t); got != tlspolicy.ModeEnforce {
		t.Errorf("mode %q", got)
	}
	if err := d.memory.NoteTLS("y.test"); err != nil {
		t.Error(err)
	}
	if _, ok, err := d.memory.TookTLS("y.test"); !ok || err != nil {
		t.Errorf("remembered %v: %v", ok, err)
	}
}

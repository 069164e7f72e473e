package smtpd

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/reason"
)

// guesses is a gate that lets one wrong password a minute pass, and whose clock stands.
type guesses struct {
	*authGate
	t     *testing.T
	proof string
}

func newGuesses(t *testing.T) *guesses {
	t.Helper()
	proof, err := passwordVerifier()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	gate, err := newAuthGate(Limits{AuthFailuresPerMinute: 1, AuthChecks: 1}, func() time.Time { return now }, func(guessing) {})
	if err != nil {
		t.Fatal(err)
	}
	return &guesses{authGate: gate, t: t, proof: proof}
}

// login is an attempt of a user that exists. What is remembered as right is forgotten, so that it is checked.
func (g *guesses) login(client, user, password string) error {
	return g.loginWith(g.t.Context(), client, user, password, g.proof)
}

func (g *guesses) loginWith(ctx context.Context, client, user, password, proof string) error {
	g.t.Helper()
	address, err := mailaddr.Parse(user, mailaddr.Options{})
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	clear(g.right)
	g.mu.Unlock()
	return g.check(ctx, login{
		client: netip.MustParseAddr(client), user: address, password: password, found: &policy.User{Address: user, Verifier: proof},
	})
}

func (g *guesses) want(want, got error) {
	g.t.Helper()
	if !errors.Is(got, want) {
		g.t.Errorf("got %v, want %v", got, want)
	}
}

func TestATelephoneWithAnOldPasswordLocksNobodyElseOutBehindTheSameAddress(t *testing.T) {
	const office, elsewhere = "192.0.2.1", "192.0.2.2"
	g := newGuesses(t)
	for _, user := range []string{"anna@ok.test", "bo@ok.test"} {
		g.want(nil, g.login(office, user, password))
	}
	g.want(errWrong, g.login(office, "bo@ok.test", "old"))
	g.want(errRushed, g.login(office, "bo@ok.test", "old"))
	g.want(nil, g.login(office, "anna@ok.test", password))
	g.want(nil, g.login(office, "carl@ok.test", password)) // who is new there
	g.want(nil, g.login(elsewhere, "bo@ok.test", password))

	// The same of one that never logged in there; those who did pass.
	g.want(errWrong, g.login(office, "dora@ok.test", "wrong"))
	g.want(errRushed, g.login(office, "emil@ok.test", "wrong"))
	g.want(nil, g.login(office, "anna@ok.test", password))
	g.want(errWrong, g.login(office, "anna@ok.test", "typo"))
	g.want(errRushed, g.login(office, "anna@ok.test", "typo"))
}

// A telephone comes to the office network within ten minutes of its last login elsewhere.
func TestALoginThatIsAnsweredFromMemoryMakesItsAddressFamiliar(t *testing.T) {
	const home, office, user = "192.0.2.1", "192.0.2.2", "anna@ok.test"
	g := newGuesses(t)
	g.want(nil, g.login(home, user, password))
	l := login{
		client: netip.MustParseAddr(office), user: mailaddr.Address{Local: "anna", Domain: "ok.test"}, password: password,
		found: &policy.User{Address: user, Verifier: g.proof},
	}
	g.want(nil, g.check(t.Context(), l))
	g.want(errWrong, g.login(office, "bo@ok.test", "old")) // who uses up the tries of the address
	g.want(errRushed, g.login(office, "carl@ok.test", "old"))
	g.want(nil, g.login(office, user, password))
	g.want(errWrong, g.login(office, user, "typo"))
	g.want(errRushed, g.login(office, user, "typo"))
}

func TestOnlyAWrongPasswordUsesUpATry(t *testing.T) {
	const client, user = "192.0.2.1", "anna@ok.test"
	g := newGuesses(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	g.slots <- struct{}{} // somebody else is checked
	g.want(errUncheckable, g.loginWith(over, client, user, password, g.proof))
	<-g.slots
	g.want(errUncheckable, g.loginWith(t.Context(), client, user, password, "$unknown$"))
	for range 3 {
		g.want(nil, g.login(client, user, password))
	}
	g.want(errWrong, g.login(client, user, "wrong"))
	g.want(errRushed, g.login(client, user, "wrong"))
}

func TestAClientThatLeavesWhileItWaitsForItsTurnGivesItBack(t *testing.T) {
	g := newGuesses(t)
	b := newStrictBuckets(20) // one falls due every six seconds
	counts := []count{{in: b, key: "address 192.0.2.1"}}
	g.byAddress, g.byUser = b, newStrictBuckets(100)
	for range 10 {
		if err := g.wait(t.Context(), counts); err != nil {
			t.Fatal(err)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		g.want(errUncheckable, g.loginWith(over, "192.0.2.1", "anna@ok.test", password, g.proof))
	}
	if pause := b.take("address 192.0.2.1", g.now()); pause != 6*time.Second {
		t.Errorf("the next waits %v, want 6s", pause)
	}
}

// An IPv6 host has the whole network for itself.
func TestAnIPv6NetworkGuessesAsOneAddress(t *testing.T) {
	g := newGuesses(t)
	g.want(errWrong, g.login("2001:db8::1", "anna@ok.test", "wrong"))
	g.want(errRushed, g.login("2001:db8::2:3:4:5", "bo@ok.test", "wrong"))
	g.want(errWrong, g.login("2001:db8:0:1::1", "carl@ok.test", "wrong"))
}

// Names that are no address are counted together, and nobody is blamed for the tries of others.
func TestAnAddressIsNotSaidToGuessBecauseOthersDid(t *testing.T) {
	g := newGuesses(t)
	var told []netip.Addr
	g.alarm = func(who guessing) { told = append(told, who.client) }
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	g.want(errWrong, g.check(t.Context(), login{client: first, password: "wrong"}))
	g.want(errRushed, g.check(t.Context(), login{client: second, password: "wrong"}))
	if len(told) != 0 {
		t.Errorf("told of %v", told)
	}
	g.want(errRushed, g.check(t.Context(), login{client: first, password: "wrong"}))
	if !slices.Equal(told, []netip.Addr{first}) {
		t.Errorf("told of %v, want the first", told)
	}
}

// The policy of the domain cannot be read: nothing is known against these passwords.
func TestALoginThatCannotBeCheckedForWantOfAPolicyUsesUpNoTry(t *testing.T) {
	e := startEdge(t, func(o *setup) {
		o.limits.AuthFailuresPerMinute = 1
		for _, d := range o.world.docs {
			if d.Domain != nil && d.Domain.Name == "ok.test" {
				d.Domain.Users[1].Address = "unreadable"
			}
		}
		o.world.settings(func(*api.Settings) {})
	})
	for range 3 {
		c := e.hello()
		c.login("bo@ok.test", password, said(454, "4.7.0", reason.AuthFailed, "Passwords cannot be checked just now; try again later"))
		c.login("anna@ok.test", password, "235 .*")
	}
}

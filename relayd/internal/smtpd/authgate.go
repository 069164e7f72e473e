package smtpd

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/reason"
	"activerelay/api/verifier"
)

// authGate checks passwords, and is stingy with it: a check costs 25 ms and
// 20 MB, which is a gift to whoever wants to bring the edge down.
//
//   - At most AuthChecks run at once; the others wait.
//   - A password that was right is remembered for ten minutes, as an HMAC under
//     a key of this process. The user's verifier is part of it, so a changed or
//     removed password is forgotten with the policy that says so.
//   - Wrong passwords, and nothing else, are counted by client address and by
//     user. Who used up their number waits, at most maxAuthWait, then is turned
//     away. A user at an address from which the password was right before is
//     counted apart: neither who guesses that user's password elsewhere nor a
//     telephone with an old password behind the same address can lock it out. Such
//     a pair does not count against the address, which may be that of a whole
//     office, because it is bounded by its own number: nobody has more tries at one
//     user there than elsewhere, and pairs are made by right passwords only. The
//     operator is told, once a minute for each.
//   - An unknown user costs as much as a known one.
type authGate struct {
	now       func() time.Time
	alarm     func(guessing)
	alarms    *buckets // one a minute for each
	slots     chan struct{}
	byAddress *buckets
	byUser    *buckets
	byPair    *buckets // of familiar users and addresses
	key       [32]byte

	mu       sync.Mutex
	right    map[[sha256.Size]byte]time.Time // until when
	familiar map[[sha256.Size]byte]time.Time
}

const (
	rememberRight    = 10 * time.Minute
	rememberFamiliar = 24 * time.Hour
	maxRemembered    = 20_000
	checkPatience    = 15 * time.Second
)

// guessing is an address that has used up its wrong passwords, or a user whose
// were used up.
type guessing struct {
	client netip.Addr
	user   mailaddr.Address // null: it is the address
}

func newAuthGate(l Limits, now func() time.Time, alarm func(guessing)) (*authGate, error) {
	g := &authGate{
		now: now, alarm: alarm, alarms: newBuckets(1), slots: make(chan struct{}, l.AuthChecks),
		byAddress: newStrictBuckets(l.AuthFailuresPerMinute), byUser: newStrictBuckets(l.AuthFailuresPerMinute),
		byPair: newStrictBuckets(l.AuthFailuresPerMinute),
		right:  map[[sha256.Size]byte]time.Time{}, familiar: map[[sha256.Size]byte]time.Time{},
	}
	if _, err := rand.Read(g.key[:]); err != nil {
		return nil, fmt.Errorf("make process key: %w", err)
	}
	return g, nil
}

// login is one attempt.
type login struct {
	client   netip.Addr
	user     mailaddr.Address // null when the name is no address
	password string
	// found is the user in the policy, nil when there is none.
	found *policy.User
}

// Answers of check other than nil.
var (
	errWrong  = errors.New("wrong user or password")
	errRushed = errors.New("too many wrong passwords; wait")
	// errUncheckable is in the chain where the question has no answer now.
	errUncheckable = errors.New("password cannot be checked")
)

// check returns nil when the password is right.
func (g *authGate) check(ctx context.Context, l login) error {
	if g.knows(g.right, g.rightTag(l)) {
		g.befriend(l)
		return nil
	}
	counts := g.counts(l)
	err := g.wait(ctx, counts)
	if err == nil {
		err = g.verify(ctx, l)
	}
	now := g.now()
	if !errors.Is(err, errWrong) {
		for _, c := range counts {
			c.in.give(c.key, now)
		}
	}
	if err != nil {
		return err
	}
	g.remember(g.right, g.rightTag(l), now.Add(rememberRight))
	g.befriend(l)
	return nil
}

// befriend makes user and address a familiar pair. The password was right here, also when the answer came from memory, where
// it may have come from another address.
func (g *authGate) befriend(l login) {
	g.remember(g.familiar, g.familiarTag(l), g.now().Add(rememberFamiliar))
}

// count is one of the places where an attempt is counted.
type count struct {
	in  *buckets
	key string
	who guessing
}

func (g *authGate) counts(l login) []count {
	address, user := addressKey(l.client), l.user.Key()
	ofUser := guessing{client: l.client, user: l.user}
	if g.knows(g.familiar, g.familiarTag(l)) {
		return []count{{in: g.byPair, key: "user " + user + " at " + address, who: ofUser}}
	}
	return []count{
		{in: g.byAddress, key: "address " + address, who: guessing{client: l.client}},
		{in: g.byUser, key: "user " + user, who: ofUser},
	}
}

// wait counts the attempt, before it is known to be a failure so that many at
// once count too, and lets it wait its turn.
func (g *authGate) wait(ctx context.Context, counts []count) error {
	now, pause := g.now(), time.Duration(0)
	for _, c := range counts {
		own := c.in.take(c.key, now)
		if own > 0 && (c.in != g.byUser || !c.who.user.IsNull()) { // names that are no address are counted together
			g.warn(c.key, c.who, now)
		}
		pause = max(pause, own)
	}
	if pause > maxAuthWait {
		return errRushed
	}
	if pause == 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errUncheckable, ctx.Err())
	}
}

// warn tells the operator, once a minute for each key.
func (g *authGate) warn(key string, who guessing, now time.Time) {
	if g.alarms.take(key, now) > 0 {
		g.alarms.give(key, now)
		return
	}
	g.alarm(who)
}

// verify runs the check itself once a slot is free.
func (g *authGate) verify(ctx context.Context, l login) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return fmt.Errorf("%w: no free check: %w", errUncheckable, ctx.Err())
	}
	if g.knows(g.right, g.rightTag(l)) {
		return nil // the same login was checked while this one waited
	}
	text := verifier.Decoy()
	if l.found != nil {
		text = l.found.Verifier
	}
	err := verifier.Verify(text, l.password)
	switch {
	case errors.Is(err, verifier.ErrMismatch) || l.found == nil:
		return errWrong
	case err != nil:
		return fmt.Errorf("%w: %w", errUncheckable, err)
	}
	return nil
}

// familiarTag names a user at an address.
func (g *authGate) familiarTag(l login) [sha256.Size]byte {
	return g.tag("familiar", l.user.Key(), addressKey(l.client))
}

// rightTag names a login that was right; the zero tag is never remembered.
func (g *authGate) rightTag(l login) [sha256.Size]byte {
	if l.found == nil {
		return [sha256.Size]byte{}
	}
	return g.tag("right", l.found.Address, l.found.Verifier, l.password)
}

func (g *authGate) tag(parts ...string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, g.key[:])
	for _, part := range parts {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return [sha256.Size]byte(mac.Sum(nil))
}

func (g *authGate) knows(set map[[sha256.Size]byte]time.Time, tag [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := set[tag]
	return ok && g.now().Before(until)
}

// remember adds to a set of bounded size.
func (g *authGate) remember(set map[[sha256.Size]byte]time.Time, tag [sha256.Size]byte, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, known := set[tag]
	if !known && len(set) >= maxRemembered {
		now := g.now()
		for old, end := range set {
			if !now.Before(end) {
				delete(set, old)
			}
		}
	}
	if !known && len(set) >= maxRemembered {
		clear(set)
	}
	set[tag] = until
}

// addressKey is what counts as one client: an address, or the network that
// every IPv6 host has for itself.
func addressKey(a netip.Addr) string { return networkOf(a).String() }

func networkOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		if network, err := a.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return a
}

// authRefusal is the registry's answer to an error of check. A password that
// is wrong by a policy that may be old is not called wrong.
func authRefusal(err error, fresh bool) (reason.Slug, reason.Variant) {
	switch {
	case errors.Is(err, errRushed):
		return reason.RateLimited, reason.AtConnect
	case errors.Is(err, errWrong) && fresh:
		return reason.AuthFailed, reason.Ordinary
	}
	return reason.AuthFailed, reason.BackendDown
}

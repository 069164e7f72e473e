package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/tlspolicy"

	"github.com/miekg/dns"
)

// Bounds of what a destination's DNS can make us do in one attempt.
const (
	maxHosts     = 10
	maxAddresses = 8
)

// errNullMX is RFC 7505: the domain takes no mail.
var errNullMX = errors.New("null MX")

// target is one address that may be tried.
type target struct {
	host       string // the name to check a certificate against
	preference uint16
	addr       netip.AddrPort
	demand     demand
}

// String is the form for logs, results and notices.
func (t target) String() string {
	return fmt.Sprintf("%s[%s]:%d", t.host, t.addr.Addr(), t.addr.Port())
}

// host is one mail server of a destination.
type host struct {
	name       string
	preference uint16
	port       uint16
	addrs      []netip.Addr
	err        error // why addrs is empty
	// self says that the name is this relay's own.
	self bool
	// tied says that DNSSEC ties the name to the destination.
	tied bool
	// dane are the TLSA records of the host and the names that its certificate
	// may be for, the one to ask for first.
	dane  tlspolicy.DANE
	names []string
	// demand is what its channel must be, barred why it gets no mail at all.
	demand demand
	barred *failure
}

// targetsFor returns where the job may be tried, best first. The failure says
// why nowhere, or why one of its hosts is not among them.
func (s *Sender) targetsFor(ctx context.Context, job *queue.Job) ([]target, *failure) {
	if !job.Route.IsMX() {
		h := s.smarthost(ctx, job)
		out, f := s.usable([]host{h}, job.Route.Host)
		return demandForSecrets(out, job.Route), waitForRoute(f)
	}
	hosts, err := s.mailHosts(ctx, job.RecipientDomain)
	if err != nil {
		return nil, lookupFailure(job.RecipientDomain, err)
	}
	var wait sync.WaitGroup
	for i := range hosts {
		wait.Go(func() { hosts[i] = s.resolveHost(ctx, hosts[i]) })
	}
	wait.Wait()
	if f := s.demandOfHosts(ctx, job, hosts); f != nil {
		return nil, f
	}
	return s.usable(hosts, job.RecipientDomain)
}

// waitForRoute makes a failure to find a smarthost temporary: the setting is
// wrong, not the mail, and the setting can be mended while the mail waits.
func waitForRoute(f *failure) *failure {
	if f == nil || f.class == queue.TempFail {
		return f
	}
	f.class, f.code, f.enhanced = queue.TempFail, 0, "4"+strings.TrimPrefix(f.enhanced, "5")
	f.text = "the smarthost cannot be used: " + f.text
	return f
}

// mailHosts returns the domain's mail servers by preference, equals in random
// order (RFC 5321 5.1). Without MX records the domain is its own server.
func (s *Sender) mailHosts(ctx context.Context, domain string) ([]host, error) {
	found, err := s.dns.lookup(ctx, domain, dns.TypeMX)
	if errors.Is(err, errNoRecords) {
		return []host{s.mailHost(host{name: domain, tied: found.secure, names: []string{domain}})}, nil
	}
	if err != nil {
		return nil, err
	}
	var hosts []host
	for _, rr := range found.records {
		mx, ok := rr.(*dns.MX)
		// A "." among others is an error of theirs that RFC 7505 3 leaves to us.
		if ok && mx.Mx != "." {
			name := strings.ToLower(strings.TrimSuffix(mx.Mx, "."))
			hosts = append(hosts, s.mailHost(host{
				name: name, preference: mx.Preference, tied: found.secure, names: []string{domain, found.name},
			}))
		}
	}
	if len(hosts) == 0 {
		return nil, errNullMX
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b host) int { return cmp.Compare(a.preference, b.preference) })
	return hosts[:min(len(hosts), maxHosts)], nil
}

// smarthost is where a route leads. The operator named it, and so tied it to the
// destination: where the route asks for TLS as it is offered, TLSA records count
// (RFC 7672 2.2.2). Any other rule of the route stays as it is.
func (s *Sender) smarthost(ctx context.Context, job *queue.Job) host {
	h := host{
		name: job.Route.Host, names: []string{job.Route.Host}, port: cmp.Or(job.Route.Port, smtpPort), demand: routeDemand(job),
	}
	h.tied = h.demand.level == ifOffered
	h = s.resolveHost(ctx, h)
	if h.tied {
		h.demand = hostDemand(h.demand, h, tlspolicy.Policy{})
	}
	return h
}

// mailHost fills in what is so of every host that MX names.
func (s *Sender) mailHost(h host) host {
	h.port, h.self = s.port, s.sources.named(h.name)
	return h
}

// resolveHost finds the host's addresses, IPv4 first. An address in place of
// a name is taken as it is: routes may have those, MX records should not (RFC 5321
// 5.1), but a slip of the pen there costs nobody his mail.
func (s *Sender) resolveHost(ctx context.Context, h host) host {
	if addr, err := netip.ParseAddr(strings.Trim(h.name, "[]")); err == nil {
		h.name, h.addrs = addr.String(), []netip.Addr{addr}
		return h
	}
	a, errA := s.dns.lookup(ctx, h.name, dns.TypeA)
	aaaa, errAAAA := s.dns.lookup(ctx, h.name, dns.TypeAAAA)
	for _, rr := range append(a.records, aaaa.records...) {
		if addr, ok := addressOf(rr); ok {
			h.addrs = append(h.addrs, addr)
		}
	}
	if len(h.addrs) > 0 {
		return s.withTLSA(ctx, h, a, aaaa)
	}
	// One temporary error leaves open whether the host exists.
	h.err = errA
	if !certain(errAAAA) {
		h.err = errAAAA
	}
	return h
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// certain reports whether the DNS gave a definite "no".
func certain(err error) bool {
	return errors.Is(err, errNoSuchName) || errors.Is(err, errNoRecords) || errors.Is(err, errNullMX)
}

// usable keeps the addresses that may be dialled. From our own address on,
// hosts of equal and lower rank are dropped: they would only send the mail
// back to us (RFC 5321 5.1).
func (s *Sender) usable(hosts []host, name string) ([]target, *failure) {
	hosts, loop := s.beforeOurselves(hosts)
	var out []target
	var unresolved error
	var barred *failure
	forbidden := false
	for _, h := range hosts {
		if h.barred != nil {
			barred = worse(barred, h.barred)
			continue
		}
		if h.err != nil && (unresolved == nil || certain(unresolved)) {
			unresolved = h.err
		}
		for _, addr := range h.addrs {
			at := netip.AddrPortFrom(addr, h.port)
			if s.targets.judge(at) != targetAllowed {
				forbidden = true
				continue
			}
			out = append(out, target{host: h.name, preference: h.preference, addr: at, demand: h.demand})
		}
	}
	if unresolved != nil && !certain(unresolved) {
		barred = worse(barred, lookupFailure(name, unresolved))
	}
	switch {
	case len(out) > 0:
		return inOrder(out), barred
	case barred != nil:
		return nil, barred
	case loop:
		return nil, permanent(0, "5.4.6", "mail for "+name+" leads back to this relay")
	case forbidden:
		return nil, permanent(0, "5.4.4", "mail for "+name+" leads to an address that is not on the public network")
	default:
		return nil, noServer(name, unresolved)
	}
}

// inOrder bounds the addresses, and puts those of a better server before those
// of a worse one (RFC 5321 5.1). The first address of every host is chosen before
// the second of any, so that the bound does not cut off whole hosts.
func inOrder(all []target) []target {
	var out []target
	seen := make(map[string]int)
	rank := make([]int, len(all))
	for i, t := range all {
		rank[i] = seen[t.host]
		seen[t.host]++
	}
	for round := 0; len(out) < len(all); round++ {
		for i, t := range all {
			if rank[i] == round {
				out = append(out, t)
			}
		}
	}
	out = out[:min(len(out), maxAddresses)]
	slices.SortStableFunc(out, func(a, b target) int { return cmp.Compare(a.preference, b.preference) })
	return out
}

// beforeOurselves keeps the hosts of better rank than this relay, which it knows
// by its name, that holds behind a NAT too, and by its addresses.
func (s *Sender) beforeOurselves(hosts []host) (kept []host, loop bool) {
	for _, h := range hosts {
		if h.self || slices.ContainsFunc(h.addrs, func(addr netip.Addr) bool {
			return s.targets.judge(netip.AddrPortFrom(addr, h.port)) == targetOwn
		}) {
			behind := func(other host) bool { return other.preference >= h.preference }
			return slices.DeleteFunc(hosts, behind), true
		}
	}
	return hosts, false
}

// lookupFailure says what a failed MX or address lookup means for the mail.
func lookupFailure(name string, err error) *failure {
	switch {
	case errors.Is(err, errNullMX):
		return permanent(556, "5.1.10", name+" does not accept mail (null MX)")
	case certain(err):
		return noServer(name, err)
	}
	return temporary("4.4.3", "the mail servers of "+name+" cannot be looked up just now", err)
}

// noServer is for a domain that is not there, or has nobody to take mail.
func noServer(name string, err error) *failure {
	text := "the domain " + name + " has no mail server"
	if errors.Is(err, errNoSuchName) {
		text = "the domain " + name + " does not exist, or its mail server does not"
	}
	f := permanent(550, "5.1.2", text)
	f.err = err
	return f
}

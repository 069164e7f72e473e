package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds of a lookup.
const (
	// dnsRounds is how often each resolver is asked before a lookup fails.
	dnsRounds = 2
	// dnsUDPBytes fits every path without fragments (DNS flag day 2020).
	dnsUDPBytes = 1232
	// maxAliases is how long a CNAME chain may be.
	maxAliases = 8
)

// What the DNS said for certain. Any other error of a lookup is temporary.
var (
	errNoSuchName = errors.New("name does not exist")
	errNoRecords  = errors.New("name has no such records")
)

// resolver asks recursive resolvers.
type resolver struct {
	servers []nameServer
	timeout time.Duration
}

// nameServer is one recursive resolver.
type nameServer struct {
	addr string // host:port
	// validates says that its word on DNSSEC counts. On any other path than
	// loopback, whoever sits on it could set the bit.
	validates bool
}

// newResolver takes the configured servers, or the system's when there are
// none. Beyond loopback their word on DNSSEC counts only with trusted.
func newResolver(servers []netip.AddrPort, trusted bool, timeout time.Duration) (*resolver, error) {
	r := &resolver{timeout: timeout}
	for _, s := range servers {
		r.servers = append(r.servers, nameServer{addr: s.String(), validates: trusted || s.Addr().Unmap().IsLoopback()})
	}
	if len(r.servers) > 0 {
		return r, nil
	}
	const path = "/etc/resolv.conf"
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading resolvers from %s: %w", path, err)
	}
	for _, s := range conf.Servers {
		addr, err := netip.ParseAddr(s)
		local := err == nil && addr.Unmap().IsLoopback()
		r.servers = append(r.servers, nameServer{addr: net.JoinHostPort(s, conf.Port), validates: trusted || local})
	}
	if len(r.servers) == 0 {
		return nil, fmt.Errorf("no resolver configured, and none in %s", path)
	}
	return r, nil
}

// answer is what a lookup found.
type answer struct {
	records []dns.RR
	// name is where the records are, the end of all aliases, without dot.
	name string
	// secure says that DNSSEC vouches for all of it, also for a "no".
	secure bool
}

// lookup returns the records of qtype that name leads to, aliases followed.
func (r *resolver) lookup(ctx context.Context, name string, qtype uint16) (answer, error) {
	owner := dns.Fqdn(strings.ToLower(name))
	a := answer{secure: true}
	for range maxAliases {
		reply, secure, err := r.ask(ctx, owner, qtype)
		a.secure = a.secure && secure
		if err != nil {
			return a, err
		}
		records, last := follow(reply.Answer, owner, qtype)
		a.name = strings.TrimSuffix(last, ".")
		if len(records) > 0 {
			a.records = records
			return a, nil
		}
		if last == owner {
			return a, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], name, errNoRecords)
		}
		// The resolver stopped at an alias; ask for what it stands for.
		owner = last
	}
	return answer{}, fmt.Errorf("%s %s: more than %d aliases", dns.TypeToString[qtype], name, maxAliases)
}

// secureAlias reports whether DNSSEC vouches for name being an alias, wherever
// it leads.
func (r *resolver) secureAlias(ctx context.Context, name string) (bool, error) {
	reply, secure, err := r.ask(ctx, dns.Fqdn(strings.ToLower(name)), dns.TypeCNAME)
	if err != nil {
		return false, err
	}
	return secure && len(reply.Answer) > 0, nil
}

// texts returns the TXT records of name, each as one text.
func (r *resolver) texts(ctx context.Context, name string) ([]string, error) {
	a, err := r.lookup(ctx, name, dns.TypeTXT)
	if certain(err) {
		return nil, nil
	}
	var out []string
	for _, rr := range a.records {
		if txt, ok := rr.(*dns.TXT); ok {
			out = append(out, strings.Join(txt.Txt, ""))
		}
	}
	return out, err
}

// follow walks the CNAMEs of an answer from owner and returns the records at
// their end, and the name of that end.
func follow(answer []dns.RR, owner string, qtype uint16) (records []dns.RR, last string) {
	aliases := make(map[string]string)
	for _, rr := range answer {
		if cname, ok := rr.(*dns.CNAME); ok {
			aliases[strings.ToLower(cname.Hdr.Name)] = strings.ToLower(cname.Target)
		}
	}
	for range maxAliases {
		next, ok := aliases[owner]
		if !ok {
			break
		}
		owner = next
	}
	for _, rr := range answer {
		if rr.Header().Rrtype == qtype && strings.EqualFold(rr.Header().Name, owner) {
			records = append(records, rr)
		}
	}
	return records, owner
}

// ask puts one question to the resolvers in turn until one has an answer that
// counts: records, no records, or no such name. secure says that the resolver
// validated it, and that its word counts.
func (r *resolver) ask(ctx context.Context, owner string, qtype uint16) (reply *dns.Msg, secure bool, err error) {
	query := new(dns.Msg)
	query.SetQuestion(owner, qtype)
	query.SetEdns0(dnsUDPBytes, false)
	var last error
	validated := false
	for range dnsRounds {
		for _, server := range r.servers {
			if validated && !server.validates {
				// What failed validation must not come in by another door.
				continue
			}
			query.Id = dns.Id()
			// RFC 6840 5.7: asks for the verdict, and not for all signatures.
			query.AuthenticatedData = server.validates
			reply, err := r.exchange(ctx, query, server.addr)
			secure := reply != nil && server.validates && reply.AuthenticatedData
			validated = validated || reply != nil && server.validates
			if err == nil {
				return reply, secure, nil
			}
			last = fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], strings.TrimSuffix(owner, "."), err)
			if errors.Is(err, errNoSuchName) || ctx.Err() != nil {
				return nil, secure, last
			}
		}
	}
	return nil, false, last
}

// exchange asks one server, over TCP when UDP was too small.
func (r *resolver) exchange(ctx context.Context, query *dns.Msg, server string) (*dns.Msg, error) {
	client := dns.Client{Net: "udp", Timeout: r.timeout, UDPSize: dnsUDPBytes}
	reply, _, err := client.ExchangeContext(ctx, query, server)
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, query, server)
	}
	if err != nil {
		return nil, fmt.Errorf("asking resolver: %w", err)
	}
	return reply, checkAnswer(query, reply)
}

func checkAnswer(query, reply *dns.Msg) error {
	asked := query.Question[0]
	if !reply.Response || reply.Id != query.Id || len(reply.Question) != 1 ||
		reply.Question[0].Qtype != asked.Qtype || !strings.EqualFold(reply.Question[0].Name, asked.Name) {
		return errors.New("resolver answered another question")
	}
	switch reply.Rcode {
	case dns.RcodeSuccess:
		return nil
	case dns.RcodeNameError:
		return errNoSuchName
	}
	return fmt.Errorf("resolver answered %s", dns.RcodeToString[reply.Rcode])
}

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
	servers []string // host:port
	timeout time.Duration
}

// newResolver takes the configured servers, or the system's when there are none.
func newResolver(servers []netip.AddrPort, timeout time.Duration) (*resolver, error) {
	r := &resolver{timeout: timeout}
	for _, s := range servers {
		r.servers = append(r.servers, s.String())
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
		r.servers = append(r.servers, net.JoinHostPort(s, conf.Port))
	}
	if len(r.servers) == 0 {
		return nil, fmt.Errorf("no resolver configured, and none in %s", path)
	}
	return r, nil
}

// lookup returns the records of qtype that name leads to, aliases followed.
func (r *resolver) lookup(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	owner := dns.Fqdn(strings.ToLower(name))
	for range maxAliases {
		answer, err := r.ask(ctx, owner, qtype)
		if err != nil {
			return nil, err
		}
		records, last := follow(answer, owner, qtype)
		if len(records) > 0 {
			return records, nil
		}
		if last == owner {
			return nil, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], name, errNoRecords)
		}
		// The resolver stopped at an alias; ask for what it stands for.
		owner = last
	}
	return nil, fmt.Errorf("%s %s: more than %d aliases", dns.TypeToString[qtype], name, maxAliases)
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
// counts: records, no records, or no such name.
func (r *resolver) ask(ctx context.Context, owner string, qtype uint16) ([]dns.RR, error) {
	query := new(dns.Msg)
	query.SetQuestion(owner, qtype)
	query.SetEdns0(dnsUDPBytes, false)
	var last error
	for range dnsRounds {
		for _, server := range r.servers {
			query.Id = dns.Id()
			reply, err := r.exchange(ctx, query, server)
			if err == nil {
				return reply.Answer, nil
			}
			last = fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], strings.TrimSuffix(owner, "."), err)
			if errors.Is(err, errNoSuchName) || ctx.Err() != nil {
				return nil, last
			}
		}
	}
	return nil, last
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

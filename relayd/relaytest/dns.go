package relaytest

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Zone maps a name, without trailing dot, to its records in zone file syntax
// without the owner: "MX 10 mx1.example.net." or "A 127.0.0.1". A name with no
// records exists and is empty; a name that is not in the map is NXDOMAIN.
type Zone map[string][]string

// DNSFault is a way in which the server refuses to be useful for a name.
type DNSFault string

// The faults. They apply to every type of the name unless it is prefixed by
// one: "A mx1.example.net".
const (
	ServFail DNSFault = "servfail"
	// Silent never answers.
	Silent DNSFault = "silent"
	// Refused answers REFUSED.
	Refused DNSFault = "refused"
	// Truncated answers over UDP with TC set and no records, over TCP in full.
	Truncated DNSFault = "truncated"
	// WrongID answers with another transaction id.
	WrongID DNSFault = "wrong-id"
	// WrongQuestion answers a question that was not asked.
	WrongQuestion DNSFault = "wrong-question"
	// Garbage answers bytes that are no DNS message.
	Garbage DNSFault = "garbage"
)

// DNS is a recursive resolver as far as its clients can tell: it follows CNAME
// inside its zone and answers with the whole chain.
type DNS struct {
	addr netip.AddrPort

	mu      sync.Mutex
	zone    Zone
	faults  map[string]DNSFault
	signed  map[string]bool
	queries []string
}

// StartDNS serves zone on loopback, UDP and TCP on one port, until the test
// ends.
func StartDNS(t testing.TB, zone Zone) *DNS {
	t.Helper()
	packet, listener := listenBoth(t)
	d := &DNS{
		addr: listener.Addr().(*net.TCPAddr).AddrPort(),
		zone: zone, faults: make(map[string]DNSFault), signed: make(map[string]bool),
	}
	for _, server := range []*dns.Server{{PacketConn: packet, Handler: d}, {Listener: listener, Handler: d}} {
		started, ended := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			_ = server.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-ended
		})
	}
	return d
}

// listenBoth finds a port that is free for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	const tries = 20
	for range tries {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("relaytest: listening for DNS: %v", err)
		}
		packet, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return packet, listener
		}
		_ = listener.Close()
	}
	t.Fatalf("relaytest: no port free for both UDP and TCP after %d tries", tries)
	return nil, nil
}

// Addr returns the resolver's address.
func (d *DNS) Addr() netip.AddrPort { return d.addr }

// Fail makes every query for name, or for "TYPE name", end in fault. An empty
// fault heals it.
func (d *DNS) Fail(name string, fault DNSFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[strings.ToLower(name)] = fault
}

// Set replaces the records of name.
func (d *DNS) Set(name string, records ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := make(Zone, len(d.zone)+1)
	for k, v := range d.zone {
		next[k] = v
	}
	next[name] = records
	d.zone = next
}

// Sign makes answers about name and everything below it validated: they carry
// AD for clients that ask for it (RFC 6840 5.7). An answer that goes through
// several names has it only when all of them are signed.
func (d *DNS) Sign(name string) { d.setSigned(name, true) }

// Unsign takes name and everything below it out of what is signed above it.
func (d *DNS) Unsign(name string) { d.setSigned(name, false) }

func (d *DNS) setSigned(name string, signed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signed[strings.ToLower(name)] = signed
}

// isSigned goes up from name to what was last said about it.
func (d *DNS) isSigned(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name = strings.ToLower(strings.TrimSuffix(name, ".")); name != ""; _, name, _ = strings.Cut(name, ".") {
		if signed, ok := d.signed[name]; ok {
			return signed
		}
	}
	return false
}

// validated reports whether an answer to query deserves AD.
func (d *DNS) validated(query, reply *dns.Msg) bool {
	opt := query.IsEdns0()
	asked := query.AuthenticatedData || opt != nil && opt.Do()
	all := d.isSigned(query.Question[0].Name)
	for _, rr := range reply.Answer {
		all = all && d.isSigned(rr.Header().Name)
		if alias, ok := rr.(*dns.CNAME); ok && query.Question[0].Qtype != dns.TypeCNAME {
			all = all && d.isSigned(alias.Target)
		}
	}
	return asked && all
}

// Queries returns "TYPE name" for every question so far.
func (d *DNS) Queries() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.queries)
}

// ServeDNS implements dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	question := query.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	kind := dns.TypeToString[question.Qtype]
	zone, fault := d.look(kind, name)

	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable = true
	switch fault {
	case Silent:
		return
	case ServFail:
		reply.Rcode = dns.RcodeServerFailure
	case Refused:
		reply.Rcode = dns.RcodeRefused
	case Garbage:
		_, _ = w.Write([]byte{1, 2, 3})
		return
	default:
		zone.answer(reply, name, question.Qtype)
		reply.AuthenticatedData = d.validated(query, reply)
	}
	_, udp := w.LocalAddr().(*net.UDPAddr)
	switch {
	case fault == Truncated && udp:
		reply.Answer, reply.Truncated = nil, true
	case fault == WrongID:
		reply.Id++
	case fault == WrongQuestion:
		reply.Question[0].Name = "other.invalid."
	case udp:
		size := dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply)
}

func (d *DNS) look(kind, name string) (Zone, DNSFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries = append(d.queries, kind+" "+name)
	if fault, ok := d.faults[strings.ToLower(kind+" "+name)]; ok {
		return d.zone, fault
	}
	return d.zone, d.faults[name]
}

// answer fills reply with the records of name, following CNAME.
func (z Zone) answer(reply *dns.Msg, name string, qtype uint16) {
	const hops = 10
	for range hops {
		records, exists := z[name]
		if !exists {
			reply.Rcode = dns.RcodeNameError
			return
		}
		next := ""
		for _, text := range records {
			rr, err := dns.NewRR(name + ". 60 IN " + text)
			if err != nil {
				reply.Rcode = dns.RcodeServerFailure
				return
			}
			cname, alias := rr.(*dns.CNAME)
			if alias {
				next = strings.ToLower(strings.TrimSuffix(cname.Target, "."))
			}
			if rr.Header().Rrtype == qtype || alias {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		if next == "" || qtype == dns.TypeCNAME {
			return
		}
		name = next
	}
	// An alias loop: real resolvers give up in the same way.
	reply.Answer, reply.Rcode = nil, dns.RcodeServerFailure
}

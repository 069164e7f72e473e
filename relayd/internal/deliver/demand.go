package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/tlspolicy"
)

// level is how much a channel must be protected.
type level uint8

const (
	// ifOffered takes TLS where it is to be had, and does without elsewhere.
	ifOffered level = iota
	// plainText never starts TLS.
	plainText
	// encrypted is TLS with whoever answers.
	encrypted
	// verified is TLS with a server that proves its name.
	verified
)

// The words for channels in results, mail log and metrics.
const (
	channelNone      = "none"
	channelEncrypted = "encrypted"
	channelVerified  = "verified"
	channelDANE      = "dane"
	channelSTS       = "sts"
)

// demand is what a channel must be before mail goes over it, and on whose
// account. Where several have a say, the strictest is met, and of two ways to
// prove a name DANE, which no third party can break, goes before the web's
// authorities (RFC 8461 2).
type demand struct {
	level level
	// channel is what a channel is called that meets the demand.
	channel string
	// because says who demands it, for the failure of a channel that does not.
	because string
	// dane and names prove the server's name where channel is "dane".
	dane  tlspolicy.DANE
	names []string
	// final says that mail goes back at once when no server meets it.
	final bool
	// watched says that a server which would fail the MTA-STS policy of the
	// domain is to be noted, and gets the mail all the same.
	watched bool
}

// must reports whether plain text will not do.
func (d demand) must() bool { return d.level == encrypted || d.level == verified }

// demandsTLS reports whether the sender asked for TLS all the way. For
// notifications it is not insisted on (RFC 8689 4.2.1).
func demandsTLS(job *queue.Job) bool { return job.RequireTLS && !job.Sender.IsNull() }

// routeDemand is what the way out and the sender demand, whatever the server.
func routeDemand(job *queue.Job) demand {
	switch {
	case demandsTLS(job):
		return demand{level: verified, channel: channelVerified, because: "the sender requires TLS all the way (REQUIRETLS)", final: true}
	case job.Route.TLS == queue.TLSRequired || job.Route.TLS == queue.TLSImplicit:
		return demand{level: verified, channel: channelVerified, because: "the route requires TLS"}
	case job.Route.TLS == queue.TLSNone:
		return demand{level: plainText}
	}
	return demand{level: ifOffered}
}

// demandForSecrets raises the demand of a route with a password, which is not
// handed to whoever answers. On loopback, which is only reached where the
// operator lists it, a password needs no protection.
func demandForSecrets(targets []target, route queue.Route) []target {
	if route.Credentials == (queue.Credentials{}) {
		return targets
	}
	for i, t := range targets {
		if t.demand.level == ifOffered && !t.addr.Addr().IsLoopback() {
			targets[i].demand = demand{level: verified, channel: channelVerified, because: "the route has a password to protect"}
		}
	}
	return targets
}

// demandOfHosts fills in what each mail server of the job's destination must
// offer, and bars those that get nothing.
func (s *Sender) demandOfHosts(ctx context.Context, job *queue.Job, hosts []host) *failure {
	base := routeDemand(job)
	if base.level == plainText {
		for i := range hosts {
			hosts[i].demand = base
		}
		return nil
	}
	var policy tlspolicy.Policy
	if s.finder != nil && !allDANE(hosts) {
		var err error
		if policy, err = s.finder.Policy(ctx, job.RecipientDomain); err != nil {
			return temporary("4.3.0", "the TLS policy of "+job.RecipientDomain+" cannot be told just now", err)
		}
	}
	last, took, err := s.tookTLS(job.RecipientDomain)
	if err != nil {
		return temporary("4.3.0", "the TLS policy of "+job.RecipientDomain+" cannot be told just now", err)
	}
	for i := range hosts {
		h := &hosts[i]
		if h.barred = bar(job, *h, policy); h.barred != nil {
			continue
		}
		h.demand = hostDemand(base, *h, policy)
		if !policy.Names(h.name) {
			s.noteWatched(h.demand, h.name, errors.New("not among the servers that it names"))
		}
		if took && h.demand.level == ifOffered {
			h.demand.level = encrypted
			h.demand.because = fmt.Sprintf("%s took mail over TLS before, last on %s", job.RecipientDomain, last.Format(time.DateOnly))
		}
	}
	return nil
}

func allDANE(hosts []host) bool {
	for _, h := range hosts {
		if !h.dane.Usable() && len(h.addrs) > 0 {
			return false
		}
	}
	return true
}

// hostDemand raises base to what the destination publishes about the host.
func hostDemand(base demand, h host, policy tlspolicy.Policy) demand {
	d := base
	d.watched = policy.Tested()
	switch {
	case h.dane.Usable():
		d.level, d.channel, d.dane, d.names, d.watched = verified, channelDANE, h.dane, h.names, false
		d.because = reason(base, "the server's TLSA records demand it (DANE)")
	case policy.Enforced():
		d.level, d.channel = verified, channelSTS
		d.because = reason(base, "the domain's MTA-STS policy demands it")
	case h.dane.Published() && d.level == ifOffered:
		// RFC 7672 2.2: they cannot be used, but the server does speak TLS.
		d.level, d.because = encrypted, "the server has TLSA records, though none that can be used (DANE)"
	}
	return d
}

// reason keeps the sender's or the route's wish as the reason, where there is one.
func reason(base demand, published string) string {
	if base.because != "" {
		return base.because
	}
	return published
}

// bar says why a host gets no mail whatever it offers.
func bar(job *queue.Job, h host, policy tlspolicy.Policy) *failure {
	if h.dane.Usable() {
		return nil
	}
	if policy.Enforced() && !policy.Names(h.name) {
		return temporary("4.7.4", h.name+" is not among the servers that the MTA-STS policy of "+job.RecipientDomain+" names", nil)
	}
	// RFC 8689 4.2.1: a valid certificate proves little for a name that
	// anybody may have put into the answer.
	stated := h.tied || h.name == job.RecipientDomain || (policy.Enforced() || policy.Tested()) && policy.Names(h.name)
	if demandsTLS(job) && !stated {
		return permanent(0, "5.7.30", "the sender requires TLS all the way (REQUIRETLS), and neither DNSSEC nor MTA-STS vouches for "+
			h.name+" as a server of "+job.RecipientDomain)
	}
	return nil
}

func (s *Sender) tookTLS(domain string) (last time.Time, ok bool, err error) {
	if s.memory == nil || s.plainTextAllowed(domain) {
		return time.Time{}, false, nil
	}
	return s.memory.TookTLS(domain)
}

// refused is the failure of a server that cannot meet d.
func (d demand) refused(enhanced, text string, err error) *failure {
	if d.because != "" {
		text += ", but " + d.because
	}
	f := temporary(enhanced, text, err)
	f.transport = true
	if d.final {
		f.class, f.enhanced = queue.PermFail, "5.7.30"
	}
	return f
}

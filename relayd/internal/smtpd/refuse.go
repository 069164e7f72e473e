package smtpd

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/api/admit"
	"activerelay/api/policy"
	"activerelay/api/reason"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/smtpwire"

	"github.com/emersion/go-smtp"
)

// The events of refusals in a minute: nobody must be able to fill the outbox, nor
// the database behind it.
const (
	// eventsOfStrangers are for each domain that strangers name, and for all that
	// is none.
	eventsOfStrangers = 300
	// eventsOfCustomers are for the own clients of each domain, whatever strangers
	// use up in its name.
	eventsOfCustomers = 1000
)

// refusal is one "no", on its way to the client, the mail log, the counters and
// the control plane.
type refusal struct {
	stage reason.Stage
	slug  reason.Slug
	args  reason.Args
	// tx is the message, nil outside one.
	tx *transaction
	// domain is whom it is counted to, nil when nobody is known.
	domain *policy.Domain
	// sender and recipient are the text that was given, where tx does not hold
	// it yet; login is the user that failed to authenticate.
	sender, recipient, login string
	// userDomain is the domain of the user who is logged in.
	userDomain string
	client     netip.Addr
	sizeBytes  int64
	// detail is the deciding check in words, for the record.
	detail string
	// ref names the decision. "" makes a new one.
	ref string
	// cause is for the log.
	cause error
	// quiet: no event, because one was made for the same decision, or because
	// it is about the connection only.
	quiet bool
	// lines are those of the session, nil outside one.
	lines *lines
}

// refuse is the session's way out for a reply that is not a success. The result
// is never nil, and never wrapped: engines find its type by assertion.
func (s *session) refuse(r refusal) error {
	r.client, r.userDomain, r.lines = s.peer, s.userDomain, &s.lines
	if r.login == "" {
		r.login = s.userText
	}
	return engineError(s.server.refuse(&r))
}

// refuseForEngine renders what the engine refuses by itself, which knows of no
// sender. What is wrong with a connection is nobody's mail that was refused.
func (s *Server) refuseForEngine(c *smtpwire.Conn, no smtpwire.Refusal) reason.Reply {
	return s.refuse(&refusal{
		stage: no.Stage, slug: no.Slug, args: no.Args, client: addressOf(c.Conn()), cause: no.Cause,
		quiet: no.Stage == reason.StageConnect,
	})
}

// refuse is the one way out for all of them.
func (s *Server) refuse(r *refusal) reason.Reply {
	if r.ref == "" {
		r.ref = s.newID()
	}
	r.args.Ref, r.args.Edge = r.ref, s.EdgeName
	reply := reason.Render(r.slug, r.args)
	s.record(r, reply)
	return reply
}

// refuseVerdict is refuse for a decision of package admit.
func (s *session) refuseVerdict(stage reason.Stage, v admit.Verdict, tx *transaction, to string) error {
	return s.refuse(refusal{
		stage: stage, slug: v.Reason, args: v.Args, tx: tx, domain: v.Domain, recipient: to,
		detail: v.Detail(), ref: tx.senderRef,
	})
}

// record writes what the operator, the partner and the customer will look for.
// What has no line because there were so many may be an event all the same: most
// references are explained also without a line.
func (s *Server) record(r *refusal, reply reason.Reply) {
	s.metrics.refused.WithLabelValues(string(r.slug)).Inc()
	m, now := r.message(), s.Now()
	own := r.ownDomain()
	if s.writes(r, own, now) {
		s.log(r, m, reply)
	}
	if r.quiet {
		return
	}
	of, who := s.customers, own
	if own == "" {
		of, who = s.strangers, m.Domain
	}
	if !of.events.try(who, now) {
		s.metrics.unreported.Inc()
		return
	}
	if err := s.report(r, m, reply, now); err != nil {
		s.Log.Error("recording a refusal", "ref", r.ref, "err", err)
	}
}

func (s *Server) log(r *refusal, m maillog.Message, reply reason.Reply) {
	s.mailLog.Rejected(m, maillog.Refusal{
		Reason: string(r.slug), Ref: r.ref, Stage: string(r.stage), To: r.recipient,
		Reply: firstLine(reply), Cause: r.cause,
	})
	if found, ok := reason.Lookup(r.slug); ok && found.Scope == reason.ScopePlatform && r.cause != nil {
		s.Log.Error("mail refused for trouble of our own",
			"reason", string(r.slug), "ref", r.ref, "err", r.cause.Error())
	}
}

// message is what is known of the mail that was refused.
func (r *refusal) message() maillog.Message {
	m := maillog.Message{From: r.sender, Client: r.client, User: r.login, SizeBytes: r.sizeBytes}
	if r.tx != nil {
		m.From = r.tx.fromText
		if r.domain == nil && r.tx.sender != nil {
			r.domain = r.tx.sender.Domain
		}
	}
	if r.domain != nil {
		m.Domain, m.Partner = r.domain.Name, r.domain.Partner()
	}
	return m
}

// ownDomain is the domain whose own client caused the refusal: a user of it who is
// logged in, or one of its relay IPs. It is "" where anybody on the internet could
// have. It need not be the domain that the client named, nor one that it may name.
func (r *refusal) ownDomain() string {
	switch {
	case r.stage == reason.StageAuth:
		return ""
	case r.userDomain != "":
		return r.userDomain
	case r.tx != nil && r.tx.sender != nil && r.tx.sender.RelayIP != "":
		return r.tx.sender.Domain.Name
	case r.domain == nil, r.slug == reason.IPNotAllowed:
		return ""
	case r.slug == reason.PolicyStale: // who may send for it could not be read
		return ""
	}
	return r.domain.Name
}

// report puts the refusal into the outbox. It does not wait for the disk: a
// crash may forget a refusal, never a message.
func (s *Server) report(r *refusal, m maillog.Message, reply reason.Reply, now time.Time) error {
	event := api.EdgeEvent{
		Kind: api.EdgeEventKindMessageRefused, Time: now.UTC(),
		Domain: optional(m.Domain, 253), Ref: &r.ref, Reason: optional(string(r.slug), 64),
		Stage: optional(string(r.stage), 32), Reply: optional(firstLine(reply), 1000),
		ClientAddress: optional(m.Client.String(), 50), User: optional(m.User, 254),
		Sender: optional(m.From, 320), Recipient: optional(r.recipient, 320), Detail: optional(r.detail, 1000),
	}
	if revision := r.args.Revision; revision > 0 {
		event.PolicyRevision = &revision
	}
	if r.sizeBytes > 0 {
		event.SizeBytes = &r.sizeBytes
	}
	b := s.Journal.NewBatch()
	defer b.Discard()
	if err := s.Outbox.Append(b, event); err != nil {
		return err
	}
	return s.Journal.CommitLazy(b)
}

// optional is a property of an event: safe to print, within its length, absent
// when empty.
func optional(s string, limit int) *string { return optionalAt(new(string), s, limit) }

// optionalAt is optional with a place for the text.
func optionalAt(place *string, s string, limit int) *string {
	if s == "" {
		return nil
	}
	s = maillog.Clean(s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	*place = s
	return place
}

// firstLine is the line for people, as the client saw it.
func firstLine(r reason.Reply) string {
	return fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Lines[0])
}

// engineError gives a reply to the engine, which writes the enhanced code before each line (RFC 2034 3).
func engineError(r reason.Reply) *smtp.SMTPError {
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode(r.Enhanced), Message: r.Message()}
}

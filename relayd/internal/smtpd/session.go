package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"

	"activerelay/api/admit"
	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/quota"
	"activerelay/api/reason"
	"activerelay/relayd/internal/smtpwire"
	"activerelay/relayd/internal/spool"

	"github.com/emersion/go-smtp"
)

// conn is what a session asks of its connection. *smtpwire.Conn is one.
type conn interface {
	smtpwire.Peer
	// Context ends with the connection, and when Shutdown loses its patience. The
	// methods of a session are given none.
	Context() context.Context
	// AfterReply calls f once the reply to the command in hand is out, or with
	// the error that kept it from being.
	AfterReply(f func(error))
}

// session is one conversation, from EHLO to the end of the connection, or to
// STARTTLS, after which the next EHLO begins another. The engine calls one
// method after the other.
type session struct {
	server *Server
	conn   conn
	kind   Kind
	peer   netip.Addr
	// peerText is peer as text.
	peerText string
	tls      *tls.ConnectionState // nil without TLS

	user     mailaddr.Address // null until AUTH succeeded
	userText string
	// userDomain is the registered domain that the user belongs to.
	userDomain string
	// heloSaid is what the client called itself when helo was made of it.
	heloSaid, helo string
	tx             *transaction // nil outside a message
	messages       int          // that were stored
	// closed to further messages: see intake.abandon.
	closed  bool
	partner string // whose connections this one is counted to
	lines   lines  // of refusals
}

var _ smtpwire.Announcer = (*session)(nil)

func (s *Server) newSession(kind Kind, c conn) *session {
	ses := &session{server: s, conn: c, kind: kind, peer: addressOf(c.Conn())}
	ses.peerText = ses.peer.String()
	if state, ok := c.TLSConnectionState(); ok {
		ses.tls = &state
	}
	return ses
}

// Announce implements smtpwire.Announcer.
func (s *session) Announce() (maxMessageBytes int64, maxRecipients int) {
	platform := s.server.View().Table.Platform()
	return platform.MaxMessageBytes, platform.MaxRecipients
}

func (s *session) client() admit.Client {
	return admit.Client{Address: s.peer, User: s.user}
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.closed {
		return s.refuse(refusal{stage: reason.StageMail, slug: reason.SessionLimit, quiet: true})
	}
	if err := s.checkEntitled(); err != nil {
		return err
	}
	address, err := mailaddr.ParsePath(from, mailaddr.Options{SMTPUTF8: opts.UTF8})
	if err != nil {
		return s.refuse(refusal{
			stage: reason.StageMail, slug: reason.SenderAddressBad, sender: from,
			args: reason.Args{Detail: err.Error()},
		})
	}
	tx := s.server.transactions.Get().(*transaction)
	tx.view, tx.client, tx.from, tx.fromText = s.server.View(), s.client(), address, textOf(address, from)
	tx.utf8, tx.requireTLS, tx.ret, tx.envID = opts.UTF8, opts.RequireTLS, string(opts.Return), xtext(opts.EnvelopeID)
	if err := s.checkMail(tx, opts.Size); err != nil {
		s.server.recycle(tx)
		return err
	}
	s.tx = tx
	return nil
}

// checkMail refuses what is announced to be too large, for the policy or for the disk.
func (s *session) checkMail(tx *transaction, size int64) error {
	if v := admit.Size(tx.view, size); v.Action != admit.Accept {
		return s.refuseVerdict(reason.StageMail, v, tx, "")
	}
	return s.checkRoom(tx, size)
}

// checkEntitled refuses who may not send here, or not now.
func (s *session) checkEntitled() error {
	refuse := func(slug reason.Slug) error {
		return s.refuse(refusal{stage: reason.StageMail, slug: slug})
	}
	submission := s.kind != Relay
	switch {
	case submission && s.tls == nil && !s.server.InsecureAuth:
		return refuse(reason.TLSRequired)
	case submission && s.user.IsNull():
		return refuse(reason.AuthRequired)
	case s.user.IsNull():
		return nil
	}
	if s.messages >= s.server.limits.MessagesPerConnection {
		return refuse(reason.SessionLimit)
	}
	now := s.server.Now()
	if s.server.pace.take(s.user.Key(), now) > 0 {
		s.server.pace.give(s.user.Key(), now)
		return refuse(reason.RateLimited)
	}
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	tx := s.tx
	address, badAddress := mailaddr.ParsePath(to, mailaddr.Options{SMTPUTF8: tx.utf8})
	if err := s.checkSender(tx, to); err != nil {
		return err
	}
	if badAddress == nil && address.IsNull() {
		badAddress = errors.New("a recipient has a name and a domain")
	}
	if badAddress != nil {
		return s.refuse(refusal{
			stage: reason.StageRcpt, slug: reason.RecipientAddressBad, tx: tx, recipient: to,
			args: reason.Args{Detail: badAddress.Error(), Revision: tx.view.Table.Revision()},
		})
	}
	return s.addRecipient(tx, address, to, opts)
}

// checkSender decides about the sender once in a transaction, and says it for
// every recipient.
func (s *session) checkSender(tx *transaction, to string) error {
	if tx.sender == nil {
		tx.verdict = s.judgeSender(tx)
		tx.sender = &tx.verdict
		v := tx.verdict
		if v.Action == admit.Accept {
			return s.countPartner(tx, v.Partner)
		}
		tx.senderRef = s.server.newID()
		return s.refuseVerdict(reason.StageRcpt, v, tx, to)
	}
	if tx.sender.Action == admit.Accept {
		return nil
	}
	args := tx.sender.Args
	return s.refuse(refusal{
		stage: reason.StageRcpt, slug: tx.sender.Reason, args: args, tx: tx, recipient: to, ref: tx.senderRef,
		domain: tx.sender.Domain, quiet: true,
	})
}

// judgeSender asks for the right to send, then whether the day's limit is
// reached already: then the message need not come at all.
func (s *session) judgeSender(tx *transaction) admit.Verdict {
	v := admit.Sender(tx.view, tx.client, tx.from)
	if v.Action != admit.Accept || v.Domain == nil {
		return v
	}
	const units = 1 // a message with one recipient costs one in either unit
	d := s.server.Ledger.Peek(v.Domain.Name, units)
	if d.Outcome == quota.Unavailable && d.Limit > 0 && d.Remaining < units {
		// By the last word of the control plane the day is used up: ask again.
		ctx, cancel := context.WithTimeout(s.conn.Context(), s.server.limits.QuotaWait)
		defer cancel()
		d = s.server.Ledger.Wait(ctx, v.Domain.Name, units)
	}
	if d.Outcome == quota.Reached {
		return admit.Quota(tx.view, tx.client, v.Domain, d)
	}
	return v
}

// countPartner counts this connection to the partner for whom it is used.
func (s *session) countPartner(tx *transaction, p *policy.Partner) error {
	if p == nil {
		return nil
	}
	if s.partner == p.Slug {
		return nil
	}
	if !s.server.joinPartner(p.Slug) {
		return s.refuse(refusal{
			stage: reason.StageRcpt, slug: reason.TooManyConnections, tx: tx,
			args: reason.Args{Client: s.peer.String()},
		})
	}
	s.leavePartner()
	s.partner = p.Slug
	return nil
}

func (s *session) leavePartner() {
	if s.partner != "" {
		s.server.leavePartner(s.partner)
		s.partner = ""
	}
}

// addRecipient takes an address in, which stood as to in the command.
func (s *session) addRecipient(tx *transaction, address mailaddr.Address, to string, opts *smtp.RcptOptions) error {
	for i := range tx.recipients {
		if tx.recipients[i].Address == address {
			return nil // said twice, meant once
		}
	}
	if v := admit.Recipient(tx.view, len(tx.recipients)); v.Action != admit.Accept {
		again := tx.fullRef != ""
		if !again {
			tx.fullRef = s.server.newID()
		}
		return s.refuse(refusal{
			stage: reason.StageRcpt, slug: v.Reason, args: v.Args, tx: tx, recipient: address.String(),
			detail: v.Detail(), ref: tx.fullRef, quiet: again,
		})
	}
	r := spool.Recipient{Address: address, State: spool.Pending, ORCPT: orcpt(opts)}
	for _, wish := range opts.Notify {
		r.Notify = append(r.Notify, string(wish))
	}
	tx.recipients = append(tx.recipients, r)
	tx.to, tx.toDomains = append(tx.to, textOf(address, to)), append(tx.toDomains, address.Domain)
	return nil
}

// Reset implements smtp.Session: RSET, EHLO, and the end of each message.
func (s *session) Reset() {
	if s.tx != nil {
		s.server.recycle(s.tx)
		s.tx = nil
	}
}

// Logout implements smtp.Session.
func (s *session) Logout() error {
	s.Reset()
	s.leavePartner()
	return nil
}

package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"activerelay/api/admit"
	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/quota"
	"activerelay/api/reason"
	"activerelay/relayd/internal/spool"

	"github.com/emersion/go-smtp"
)

// session is one conversation, from EHLO to the end of the connection, or to
// STARTTLS, after which the next EHLO begins another.
//
// The engine calls one method after the other, with one exception: with BDAT,
// Data runs beside it, and RSET, QUIT or the end of the connection come while it
// does. So Data takes the transaction out of the session and works on that
// alone; what they share is behind mu.
type session struct {
	server *Server
	guard  *guard
	helo   string
	tls    *tls.ConnectionState // nil without TLS

	user         mailaddr.Address // null until AUTH succeeded
	authFailures int

	mu sync.Mutex
	tx *transaction
	// taken: Data works on a message, and the engine has not ended it yet.
	taken bool
	// chunks is closed when the chunked message that was begun last has ended.
	chunks     chan struct{}
	errors     int
	messages   int
	idleResets int
	partner    string // whose connections this one is counted to
	progress   time.Time
}

// transaction is one message from MAIL to its end. All its decisions are made
// by one view of the policy.
type transaction struct {
	view   admit.View
	client admit.Client
	from   mailaddr.Address

	utf8, eightBit, requireTLS bool
	ret, envID                 string

	// sender is the verdict on from, once there was a RCPT.
	sender *admit.Verdict
	// senderRef is the reference of a refusal of the sender. It is the same for
	// every recipient: one decision was made.
	senderRef  string
	recipients []spool.Recipient
}

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	g, ok := guardOf(c.Conn())
	if !ok {
		return nil, fmt.Errorf("connection %T is not behind a guard", c.Conn())
	}
	ses := &session{server: s, guard: g, helo: c.Hostname(), progress: time.Now()}
	if state, ok := c.TLSConnectionState(); ok {
		ses.tls = &state
		g.secured(c.Conn())
	}
	ses.keepAlive()
	return ses, nil
}

func guardOf(conn net.Conn) (*guard, bool) {
	if layer, ok := conn.(*tls.Conn); ok {
		conn = layer.NetConn()
	}
	g, ok := conn.(*guard)
	return g, ok
}

// keepAlive moves the end of the session: for a user it stands from the
// beginning, for others it is counted from the last message.
func (s *session) keepAlive() {
	from := s.guard.began
	if s.user.IsNull() {
		s.mu.Lock()
		from = s.progress
		s.mu.Unlock()
	}
	s.guard.liveUntil(from.Add(s.server.limits.SessionAge))
}

func (s *session) client() admit.Client {
	return admit.Client{Address: s.guard.client, User: s.user}
}

func (s *session) inTransaction() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tx != nil || s.taken
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, opts *smtp.MailOptions) (err error) {
	defer s.recovered(reason.StageMail, &err)
	if err := s.checkConversation(reason.StageMail); err != nil {
		return err
	}
	if s.inTransaction() {
		return s.refuse(refusal{
			stage: reason.StageMail, slug: reason.CommandSequence, args: reason.Args{Detail: "MAIL within a message"},
		})
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
	tx := &transaction{
		view: s.server.View(), client: s.client(), from: address, utf8: opts.UTF8, eightBit: opts.Body == smtp.Body8BitMIME,
		requireTLS: opts.RequireTLS, ret: string(opts.Return), envID: xtext(opts.EnvelopeID),
	}
	if v := admit.Size(tx.view, opts.Size); v.Action != admit.Accept {
		return s.refuseVerdict(reason.StageMail, v, tx, "")
	}
	if err := s.checkRoom(tx, opts.Size); err != nil {
		return err
	}
	s.mu.Lock()
	s.tx = tx
	s.mu.Unlock()
	return nil
}

// checkConversation refuses whatever comes once the conversation is over. The
// engine may still have read commands ahead.
func (s *session) checkConversation(stage reason.Stage) error {
	slug := reason.Slug("")
	switch {
	case s.server.isClosing() && (stage == reason.StageMail || stage == reason.StageAuth):
		slug = reason.ShuttingDown
	case s.guard.isOver():
		slug = reason.SessionLimit
	default:
		return nil
	}
	s.guard.end()
	return s.refuse(refusal{stage: stage, slug: slug, quiet: true})
}

// checkEntitled refuses who may not send here, or not now.
func (s *session) checkEntitled() error {
	refuse := func(slug reason.Slug) error {
		return s.refuse(refusal{stage: reason.StageMail, slug: slug})
	}
	submission := s.guard.kind != Relay
	switch {
	case submission && s.tls == nil && !s.server.InsecureAuth:
		return refuse(reason.TLSRequired)
	case submission && s.user.IsNull():
		return refuse(reason.AuthRequired)
	case s.user.IsNull():
		return nil
	}
	s.mu.Lock()
	sent := s.messages
	s.mu.Unlock()
	if sent >= s.server.limits.MessagesPerConnection {
		s.guard.end()
		return refuse(reason.SessionLimit)
	}
	now := s.server.Now()
	if s.server.pace.take(s.user.Key(), now) > 0 {
		s.server.pace.give(s.user.Key(), now)
		return refuse(reason.RateLimited)
	}
	return nil
}

// checkRoom asks whether the disk can take the message, whose size is not
// always announced.
func (s *session) checkRoom(tx *transaction, size int64) error {
	if size == 0 {
		size = tx.view.Table.Platform().MaxMessageBytes
	}
	err := s.server.Journal.Err()
	if err == nil {
		err = s.server.Spool.Room(size)
	}
	if err == nil {
		return nil
	}
	slug := reason.DiskTrouble
	if errors.Is(err, spool.ErrFull) {
		slug = reason.QueueFull
	}
	return s.refuse(refusal{stage: reason.StageMail, slug: slug, tx: tx, cause: err})
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) (err error) {
	defer s.recovered(reason.StageRcpt, &err)
	if err := s.checkConversation(reason.StageRcpt); err != nil {
		return err
	}
	s.mu.Lock()
	tx := s.tx
	s.mu.Unlock()
	if tx == nil {
		return s.refuse(refusal{
			stage: reason.StageRcpt, slug: reason.CommandSequence, args: reason.Args{Detail: "RCPT without MAIL"},
		})
	}
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
	return s.addRecipient(tx, address, opts)
}

// checkSender decides about the sender once in a transaction, and says it for
// every recipient.
func (s *session) checkSender(tx *transaction, to string) error {
	if tx.sender == nil {
		v := s.judgeSender(tx)
		tx.sender = &v
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
	units := tx.view.Table.Platform().QuotaUnit.Cost(1)
	d := s.server.Ledger.Peek(v.Domain.Name, units)
	if d.Outcome == quota.Unavailable && d.Limit > 0 && d.Remaining < units {
		// By the last word of the control plane the day is used up: ask again.
		ctx, cancel := context.WithTimeout(s.guard.ctx, s.server.limits.QuotaWait)
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
	s.mu.Lock()
	old := s.partner
	s.mu.Unlock()
	if old == p.Slug {
		return nil
	}
	if !s.server.joinPartner(p.Slug) {
		s.guard.end()
		return s.refuse(refusal{
			stage: reason.StageRcpt, slug: reason.TooManyConnections, tx: tx,
			args: reason.Args{Client: s.guard.client.String()},
		})
	}
	s.leavePartner()
	s.mu.Lock()
	s.partner = p.Slug
	s.mu.Unlock()
	return nil
}

func (s *session) leavePartner() {
	s.mu.Lock()
	old := s.partner
	s.partner = ""
	s.mu.Unlock()
	if old != "" {
		s.server.leavePartner(old)
	}
}

func (s *session) addRecipient(tx *transaction, address mailaddr.Address, opts *smtp.RcptOptions) error {
	for i := range tx.recipients {
		if tx.recipients[i].Address == address {
			return nil // said twice, meant once
		}
	}
	if v := admit.Recipient(tx.view, len(tx.recipients)); v.Action != admit.Accept {
		return s.refuseVerdict(reason.StageRcpt, v, tx, address.String())
	}
	r := spool.Recipient{Address: address, State: spool.Pending, ORCPT: orcpt(opts)}
	for _, wish := range opts.Notify {
		r.Notify = append(r.Notify, string(wish))
	}
	tx.recipients = append(tx.recipients, r)
	return nil
}

// Reset implements smtp.Session: RSET, EHLO, and the end of each message.
func (s *session) Reset() {
	s.mu.Lock()
	chunks := s.chunks
	s.mu.Unlock()
	if chunks != nil {
		<-chunks
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tx == nil && !s.taken {
		s.idleResets++
	}
	s.tx, s.taken = nil, false
	if s.idleResets > s.server.limits.IdleResets {
		s.guard.end()
	}
}

// Logout implements smtp.Session. The engine calls it without a net: a panic
// here would end the process.
func (s *session) Logout() error {
	var err error
	defer s.recovered(reason.StageConnect, &err)
	s.leavePartner()
	return nil
}

// recovered turns a panic into a refusal that only this client sees.
func (s *session) recovered(stage reason.Stage, err *error) {
	p := recover()
	if p == nil {
		return
	}
	s.guard.end()
	*err = s.refuse(refusal{
		stage: stage, slug: reason.Internal, cause: fmt.Errorf("panic: %v\n%s", p, debug.Stack()),
	})
}

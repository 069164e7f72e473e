package smtpd

import (
	"context"

	"activerelay/api"
	"activerelay/api/admit"
	"activerelay/api/quota"
	"activerelay/api/reason"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/spool"

	"github.com/emersion/go-smtp"
)

// commit makes one fact of three: the units are spent, the message is stored,
// the event is noted. When it returns nil that is on the disk.
func (in *intake) commit(ctx context.Context) error {
	b := in.server.Journal.NewBatch()
	defer b.Discard()
	if err := in.spend(ctx, b); err != nil {
		return err
	}
	defer in.over(in.server.metrics.store)
	if err := in.stage(b); err != nil {
		return in.refuse(refusal{stage: reason.StageCommit, slug: storageReason(err), cause: err})
	}
	if err := in.server.Journal.Commit(b); err != nil {
		return in.refuse(refusal{stage: reason.StageCommit, slug: storageReason(err), cause: err})
	}
	in.stored = true
	in.spending.Commit()
	return nil
}

// spend takes the units of the message, and waits for them where the edge holds
// too few.
func (in *intake) spend(ctx context.Context, b *journal.Batch) error {
	defer in.over(in.server.metrics.quota)
	if in.take(b) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, in.server.limits.QuotaWait)
	defer cancel()
	for {
		d := in.server.Ledger.Wait(ctx, in.domain.Name, in.units())
		if err := in.server.Journal.Err(); err != nil {
			return in.refuse(refusal{stage: reason.StageCommit, slug: reason.DiskTrouble, cause: err})
		}
		if d.Outcome != quota.Granted {
			return in.refuseVerdict(reason.StageCommit, admit.Quota(in.tx.view, in.tx.client, in.domain, d))
		}
		if in.take(b) {
			return nil
		}
	}
}

// take spends the units if they are there.
func (in *intake) take(b *journal.Batch) bool {
	spending, d := in.server.Ledger.Spend(b, in.domain.Name, in.units())
	if d.Outcome != quota.Granted {
		return false
	}
	in.spending = spending
	return true
}

// units are what the message costs. The unit of a day holds until it ends, whatever the platform's is by now.
func (in *intake) units() int64 {
	unit := in.server.Ledger.Peek(in.domain.Name, 1).Unit
	if unit == "" { // nothing is known of the day yet
		unit = in.tx.view.Table.Platform().QuotaUnit
	}
	return unit.Cost(len(in.tx.recipients))
}

// stage adds the message and its events to the batch.
func (in *intake) stage(b *journal.Batch) error {
	m := in.message()
	in.kept = m
	if err := in.traceFields(m); err != nil {
		return err
	}
	in.writer.Prepend(in.fields)
	if err := in.server.Spool.Stage(b, m, in.writer); err != nil {
		return err
	}
	accepted := in.event(m, api.EdgeEventKindMessageAccepted)
	accepted.RecipientDomains = in.tx.toDomains
	if err := in.server.Outbox.Append(b, accepted); err != nil {
		return err
	}
	if in.observed == "" {
		return nil
	}
	e := in.event(m, api.EdgeEventKindBulkObserved)
	// The message is charged and counted by the other event.
	e.Units, e.DayStart, e.SizeBytes = nil, nil, nil
	e.Reason, e.Detail = optional(string(reason.Bulk), 64), optional(in.observed, 1000)
	return in.server.Outbox.Append(b, e)
}

// message is the envelope as the spool keeps it.
func (in *intake) message() *spool.Message {
	tx := in.tx
	return &spool.Message{
		ID: in.id, Domain: in.domain.Name, Partner: in.domain.Partner(),
		From: tx.from, Recipients: tx.recipients,
		Client: tx.client.Address, User: in.session.userText, Helo: in.session.cleanHelo(),
		AcceptedAt: in.server.Now().UTC(),
		SMTPUTF8:   tx.utf8, EightBit: in.header.eightBit, RequireTLS: tx.requireTLS,
		Ret: tx.ret, EnvID: tx.envID,
		Units: in.spending.Units(), DayStart: in.spending.Day().Start,
		PolicyRevision: tx.view.Table.Revision(),
	}
}

// told is what an event of a message points to.
type told struct {
	client, user, sender, recipient string
	recipients                      int64
}

// event is what the control plane hears of the message. It points into in.
func (in *intake) event(m *spool.Message, kind api.EdgeEventKind) api.EdgeEvent {
	t := &in.told
	t.recipients = int64(len(m.Recipients))
	e := api.EdgeEvent{
		Kind: kind, Time: m.AcceptedAt, MessageID: &m.ID, Domain: &m.Domain,
		ClientAddress: optionalAt(&t.client, in.session.peerText, 50), User: optionalAt(&t.user, m.User, 254),
		Sender: optionalAt(&t.sender, in.tx.fromText, 320), Recipients: &t.recipients,
		SizeBytes: &m.Size, Units: &m.Units, DayStart: &m.DayStart,
	}
	if len(m.Recipients) == 1 {
		e.Recipient = optionalAt(&t.recipient, in.tx.to[0], 320)
	}
	if m.PolicyRevision > 0 {
		e.PolicyRevision = &m.PolicyRevision
	}
	return e
}

// confirm hands the stored message on and says so.
func (in *intake) confirm() error {
	s := in.session
	in.server.Enqueue(in.kept)
	in.server.metrics.accepted.Inc()
	in.server.metrics.bytes.Add(float64(in.writer.Size()))
	m := maillog.Message{
		ID: in.id, Partner: in.domain.Partner(), Domain: in.domain.Name, From: in.tx.fromText,
		Client: in.tx.client.Address, User: s.userText, SizeBytes: in.writer.Size(),
	}
	in.server.mailLog.Accepted(m, in.tx.to)
	s.messages++
	s.conn.AfterReply(func(err error) {
		if err != nil {
			s.server.mailLog.ReplyUndelivered(m, err)
			s.server.metrics.undelivered.Inc()
		}
	})
	return &smtp.SMTPError{
		Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok: queued as " + in.id,
	}
}

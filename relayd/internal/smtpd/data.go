package smtpd

import (
	"context"
	"io"
	"time"

	"activerelay/api/admit"
	"activerelay/api/policy"
	"activerelay/api/reason"
	"activerelay/relayd/internal/ledger"
	"activerelay/relayd/internal/spool"
)

// Data implements smtp.Session. The result is never nil: the 250 carries the id
// of the message, which engines take in the form of an error.
func (s *session) Data(r io.Reader) error {
	in, err := s.newIntake()
	if err != nil {
		return err
	}
	defer in.abandon()
	return in.run(s.conn.Context(), r)
}

// intake is one message on its way from the first byte to the 250.
type intake struct {
	session *session
	server  *Server
	tx      *transaction
	id      string

	writer *spool.Writer
	lines  newlines
	header header
	fields []byte // that go above the message
	told   told

	// began is when the stage that the message is in began.
	began time.Time
	// refused is what the message was refused for before it had come whole.
	refused error

	domain   *policy.Domain // that is charged
	observed string         // mark of bulk mail that is only observed
	spending *ledger.Spending
	kept     *spool.Message // as it is stored
	stored   bool
}

func (s *session) newIntake() (*intake, error) {
	in := &s.tx.intake
	in.session, in.server, in.tx, in.id = s, s.server, s.tx, s.server.newID()
	in.lines.normalise = s.tx.view.Table.Platform().NormaliseNewlines
	if in.id == "" {
		return nil, in.refuse(refusal{slug: reason.Internal})
	}
	var err error
	if in.writer, err = s.server.Spool.Receive(); err != nil {
		return nil, in.refuse(refusal{slug: storageReason(err), cause: err})
	}
	return in, nil
}

// run is the message path. Each step returns nil or the refusal that ends it.
func (in *intake) run(ctx context.Context, r io.Reader) error {
	in.began = time.Now()
	if err := in.receive(r); err != nil {
		return err
	}
	if err := in.judge(); err != nil {
		return err
	}
	if err := in.scan(ctx); err != nil {
		return err
	}
	if err := in.commit(ctx); err != nil {
		return err
	}
	return in.confirm()
}

// abandon runs at every exit. Before the message was stored it takes back all
// that was done for it; the refusal has said why. A message with odd line ends
// is the last of its connection, which only QUIT can follow: whoever passed it on
// may be of another opinion about where it ends, and what looks like the next
// message may be a part of it.
func (in *intake) abandon() {
	in.session.closed = in.session.closed || in.lines.broken
	if in.spending != nil && !in.stored {
		in.spending.Undo()
	}
	in.drop()
}

// drop gives back the memory or file of what has come.
func (in *intake) drop() {
	if err := in.writer.Discard(); err != nil {
		in.server.Log.Warn("dropping the memory or file of a message", "message_id", in.id, "err", err)
	}
}

// refuse fills in what is the same for all refusals of the message.
func (in *intake) refuse(r refusal) error {
	r.tx = in.tx
	if r.stage == "" {
		r.stage = reason.StageData
	}
	if r.domain == nil {
		r.domain = in.domain
	}
	if r.args.Revision == 0 {
		r.args.Revision = in.tx.view.Table.Revision()
	}
	if len(in.tx.recipients) == 1 {
		r.recipient = in.tx.recipients[0].Address.String()
	}
	if in.writer != nil {
		r.sizeBytes = in.writer.Size()
	}
	return in.session.refuse(r)
}

// refuseVerdict is refuse for a decision of package admit.
func (in *intake) refuseVerdict(stage reason.Stage, v admit.Verdict) error {
	return in.refuse(refusal{stage: stage, slug: v.Reason, args: v.Args, domain: v.Domain, detail: v.Detail()})
}

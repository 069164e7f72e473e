package smtpd

import (
	"context"
	"io"

	"activerelay/api/admit"
	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/reason"
	"activerelay/relayd/internal/ledger"
	"activerelay/relayd/internal/spool"
)

// Data implements smtp.Session: DATA, and BDAT, which the engine hands over as a
// pipe. The result is never nil: the 250 carries the id of the message, which the
// engine takes in the form of an error.
func (s *session) Data(r io.Reader) (err error) {
	if !s.server.beginWork() {
		return s.refuse(refusal{stage: reason.StageData, slug: reason.ShuttingDown, quiet: true})
	}
	defer s.server.working.Done()
	_, chunked := r.(*io.PipeReader)
	if chunked {
		defer s.beginChunks()()
	}
	defer s.recovered(reason.StageData, &err)
	number := s.guard.beginMessage(!chunked)
	defer s.guard.endMessage(number)
	var first []byte
	if chunked {
		defer s.drain(r)
		// Chunks come while the engine runs commands. As long as it waits for
		// the rest of this one to be read, the transaction is the right one.
		first = make([]byte, 1)
		n, err := io.ReadFull(r, first)
		if err != nil && err != io.EOF {
			return s.refuse(refusal{stage: reason.StageData, slug: reason.SessionTimeout, cause: err, quiet: true})
		}
		first = first[:n]
	}
	tx := s.takeTransaction()
	if tx == nil || len(tx.recipients) == 0 {
		return s.refuse(refusal{
			stage: reason.StageData, slug: reason.CommandSequence, args: reason.Args{Detail: "no recipient was accepted"},
		})
	}
	in, err := s.newIntake(tx, chunked)
	if err != nil {
		return err
	}
	defer in.abandon()
	return in.run(s.guard.ctx, first, r)
}

// beginChunks makes Reset wait until the function that it returns was called: by
// then the message that Reset takes back has ended the connection.
func (s *session) beginChunks() (end func()) {
	done := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunks = done
	return func() { close(done) }
}

// drain reads what is left of a chunked message that was refused before its end.
// The engine mixes up the outcomes of messages where one ends before its chunks
// do and the next begins; so a message that was taken back ends the connection.
func (s *session) drain(r io.Reader) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		s.guard.end()
	}
}

// takeTransaction takes the message out of the session: see session.
func (s *session) takeTransaction() *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := s.tx
	s.tx, s.taken = nil, true
	return tx
}

// beginWork counts a message that Shutdown waits for. It is too late for one
// once the last connection is gone.
func (s *Server) beginWork() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() && len(s.guards) == 0 {
		return false
	}
	s.working.Add(1)
	return true
}

// intake is one message on its way from the first byte to the 250.
type intake struct {
	session *session
	server  *Server
	tx      *transaction
	id      string
	chunked bool

	writer *spool.Writer
	ending ending
	lines  newlines
	header *header
	line   int // length of the line that is being read
	// no is the refusal that is certain before the message is over. Nothing is
	// kept then, but the rest is read: the client listens only at its end.
	no error

	headerFrom mailaddr.Address
	domain     *policy.Domain // that is charged
	observed   string         // mark of bulk mail that is only observed
	spending   *ledger.Spending
	stored     bool
}

func (s *session) newIntake(tx *transaction, chunked bool) (*intake, error) {
	in := &intake{
		session: s, server: s.server, tx: tx, id: s.server.newID(), chunked: chunked, header: &header{},
		lines: newlines{normalise: tx.view.Table.Platform().NormaliseNewlines},
	}
	if in.id == "" {
		return nil, in.refuse(refusal{slug: reason.Internal})
	}
	var err error
	if in.writer, err = s.server.Spool.Create(); err != nil {
		return nil, in.refuse(refusal{slug: storageReason(err), cause: err})
	}
	return in, nil
}

// run is the message path. Each step returns nil or the refusal that ends it.
func (in *intake) run(ctx context.Context, first []byte, r io.Reader) error {
	if err := in.receive(first, r); err != nil {
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
// that was done for it; the refusal has said why.
func (in *intake) abandon() {
	if in.spending != nil && !in.stored {
		in.spending.Undo()
	}
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

package queue

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"activerelay/relayd/internal/dsn"
	"activerelay/relayd/internal/spool"
)

// notice is a notification in the batch of a settlement.
type notice struct {
	action  dsn.Action
	message *spool.Message
	writer  *spool.Writer // nil when it could not be made
}

// told are the fates that a sender is told of, in that order.
var actionsTold = [3]dsn.Action{dsn.Failed, dsn.Delayed, dsn.Relayed}

// tell puts r on the list of those whose fate the sender is told, if there is
// a sender and he wants to know. Mail from the null sender is answered to
// nobody, so a notification that cannot be delivered ends there.
func (s *settlement) tell(a dsn.Action, r *spool.Recipient, res Result) {
	if s.m.From.IsNull() || !dsn.Wanted(r.Notify, a) {
		return
	}
	i := slices.Index(actionsTold[:], a)
	s.told[i] = append(s.told[i], dsn.Recipient{
		Address: r.Address, ORCPT: r.ORCPT, Status: res.Enhanced, Host: res.Host, Code: res.Code, Text: res.Text,
		LastAttempt: r.LastAttempt, RetryUntil: s.m.AcceptedAt.Add(s.q.Lifetime),
	})
}

// notify stages one notification for each kind of fate.
func (s *settlement) notify() {
	for i, a := range actionsTold {
		if len(s.told[i]) == 0 || s.err != nil {
			continue
		}
		if !s.q.notices.allow(s.m.From.Domain, s.now) {
			s.q.metrics.count(countUnnotified)
			s.q.Log.NotNotified(logMessage(s.m, s.from()), string(a))
			continue
		}
		w, m, err := s.stage(a, s.told[i])
		if w != nil {
			s.notices = append(s.notices, notice{action: a, message: m, writer: w})
		}
		if err != nil {
			s.fail(fmt.Errorf("notification of %s: %w", a, err))
		}
	}
}

func (s *settlement) discardNotices() {
	for _, n := range s.notices {
		_ = n.writer.Discard()
	}
}

// stage puts a notification into the batch. Where there is no room for one with
// the whole message, which may need a file, it has the header only: without any
// the outcome would not be recorded, and what was delivered go out again.
func (s *settlement) stage(a dsn.Action, told []dsn.Recipient) (*spool.Writer, *spool.Message, error) {
	const header = "HDRS"
	if s.m.RequireTLS {
		// RFC 8689 5: the way back may not be encrypted, so the text stays here.
		return s.compose(a, told, header)
	}
	w, m, err := s.compose(a, told, s.m.Ret)
	if w != nil && err != nil {
		_ = w.Discard()
		return s.compose(a, told, header)
	}
	return w, m, err
}

// compose writes a notification and puts it into the batch as a message of its
// own, from the null sender, so that nobody ever answers it.
func (s *settlement) compose(a dsn.Action, told []dsn.Recipient, returned string) (*spool.Writer, *spool.Message, error) {
	id, err := s.q.newID()
	if err != nil {
		return nil, nil, err
	}
	beginning, err := s.q.beginning(s.m)
	if err != nil {
		return nil, nil, err
	}
	n, err := dsn.Compose(dsn.Report{
		ID: id, Date: s.now, Hostname: s.q.Hostname, To: s.m.From, Action: a, Recipients: told,
		MessageID: s.m.ID, AcceptedAt: s.m.AcceptedAt, EnvelopeID: s.m.EnvID, Return: returned,
		Original: beginning, OriginalBytes: s.m.Size,
	})
	if err != nil {
		return nil, nil, err
	}
	w, err := s.q.Spool.Create()
	if err != nil {
		return nil, nil, err
	}
	if _, err := w.Write(n.Text); err != nil {
		return w, nil, err
	}
	m := &spool.Message{
		ID: id, Recipients: []spool.Recipient{{Address: s.m.From, Notify: []string{"NEVER"}, State: spool.Pending}},
		AcceptedAt: s.now, SMTPUTF8: n.UTF8, EightBit: n.EightBit, Notice: true,
		RequireTLS: s.m.RequireTLS, // wished for, not insisted on (RFC 8689 5)
	}
	return w, m, s.q.Spool.Stage(s.batch, m, w)
}

func (q *Queue) newID() (string, error) {
	q.ids.Lock()
	defer q.ids.Unlock()
	return spool.NewID(q.Now(), q.Entropy)
}

// beginning reads as much of the original as a notification can hold. A body
// that is damaged does not keep the sender from being told.
func (q *Queue) beginning(m *spool.Message) ([]byte, error) {
	body, err := q.Spool.Body(m.ID)
	if errors.Is(err, spool.ErrCorrupt) || errors.Is(err, spool.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, dsn.MaxFullBytes))
}

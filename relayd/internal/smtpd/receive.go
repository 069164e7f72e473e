package smtpd

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"activerelay/api/admit"
	"activerelay/api/reason"
	"activerelay/relayd/internal/smtpwire"
	"activerelay/relayd/internal/spool"

	"github.com/emersion/go-smtp"
)

// receive streams the message into the spool. Where it is certain to be refused nothing more is kept, but its line ends are
// looked at to the end: else whoever passes on what others write could be made to begin with a refusal and go on with line
// ends that make two messages of one. What is not seen to its end is the last of its connection, as if it had such.
func (in *intake) receive(r io.Reader) error {
	defer in.over(in.server.metrics.receive)
	_, err := io.Copy(in, r)
	switch {
	case err != nil:
		in.session.closed = true
		if in.refused == nil {
			in.refused = in.cutShort(err)
		}
	case in.refused == nil:
		return in.received()
	}
	return in.refused
}

// Write implements io.Writer.
func (in *intake) Write(p []byte) (int, error) {
	switch {
	case in.refused == nil:
		if in.refused = in.keep(in.lines.fix(p)); in.refused != nil {
			in.drop() // the room is for others, however long the rest takes
		}
	case !in.lines.broken:
		in.lines.fix(p)
	}
	return len(p), nil
}

// keep stores a part of the message as it will be relayed.
func (in *intake) keep(p []byte) error {
	in.header.feed(p)
	if in.lines.broken && !in.lines.normalise {
		return in.refuse(refusal{slug: reason.BareNewline})
	}
	if v := admit.Size(in.tx.view, in.writer.Size()+int64(len(p))); v.Action != admit.Accept {
		return in.refuseVerdict(reason.StageData, v)
	}
	if _, err := in.writer.Write(p); err != nil {
		return in.refuse(refusal{slug: storageReason(err), cause: err})
	}
	return nil
}

// cutShort ends a message that did not come whole: it has a line that no server
// reads, the client was silent for too long, or went away.
func (in *intake) cutShort(err error) error {
	if errors.Is(err, smtp.ErrTooLongLine) {
		return in.refuse(refusal{
			slug: reason.LineTooLong, args: reason.Args{Variant: reason.InMessage, Limit: smtpwire.MaxLineBytes},
		})
	}
	return in.refuse(refusal{slug: reason.SessionTimeout, cause: fmt.Errorf("message was cut short: %w", err), quiet: true})
}

// received looks at the message once it is whole.
func (in *intake) received() error {
	if err := in.keep(in.lines.finish()); err != nil {
		return err
	}
	fault := in.header.finish()
	switch {
	case in.header.received >= maxReceived:
		return in.refuse(refusal{slug: reason.RoutingLoop})
	case fault != "":
		return in.refuse(refusal{slug: reason.BadHeader, args: reason.Args{Detail: fault}})
	}
	return nil
}

// storageReason is the registry's word for an error of the spool or the journal.
func storageReason(err error) reason.Slug {
	if errors.Is(err, spool.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return reason.QueueFull
	}
	return reason.DiskTrouble
}

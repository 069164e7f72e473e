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

// receive streams the message into the spool, and stops where it is certain to
// be refused: the engine reads the rest.
func (in *intake) receive(r io.Reader) error {
	defer in.over(in.server.metrics.receive)
	_, err := io.Copy(in, r)
	if err == nil {
		return in.received()
	}
	if _, refused := errors.AsType[*smtp.SMTPError](err); refused {
		return err
	}
	return in.cutShort(err)
}

// Write implements io.Writer. Its error is a refusal.
func (in *intake) Write(p []byte) (int, error) {
	if err := in.keep(in.lines.fix(p)); err != nil {
		return 0, err
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

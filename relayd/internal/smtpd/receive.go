package smtpd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"activerelay/api/admit"
	"activerelay/api/reason"
	"activerelay/relayd/internal/spool"

	"github.com/emersion/go-smtp"
)

const (
	readBytes = 16 << 10
	// maxMessageLine is the longest line that is taken. Mail programs that do
	// not wrap at all stay far below.
	maxMessageLine = 64 << 10
)

// receive streams the message into the spool. What is certain to be refused is
// no longer kept, but read to its end.
func (in *intake) receive(first []byte, r io.Reader) error {
	began := time.Now()
	defer in.server.metrics.took("receive", began)
	over, buf := in.take(first), make([]byte, readBytes)
	for !over {
		n, err := r.Read(buf)
		over = in.take(buf[:n])
		switch {
		case over || err == nil || errors.Is(err, errPaused):
		case err == io.EOF:
			if in.chunked && in.session.guard.isGone() {
				return in.cutShort(io.ErrUnexpectedEOF)
			}
			return in.received()
		default:
			return in.cutShort(err)
		}
	}
	// The engine has not seen this end, and would take what follows for the
	// rest of the message.
	in.session.guard.end()
	return in.received()
}

// take works on the next part of the message. It returns true at an end that the
// engine does not see.
func (in *intake) take(p []byte) (over bool) {
	if !in.chunked {
		p, over = in.ending.pass(p)
	}
	if in.no == nil {
		in.keep(in.lines.fix(p))
	}
	return over
}

// keep stores a part of the message as it will be relayed.
func (in *intake) keep(p []byte) {
	in.header.feed(p)
	if in.lines.broken && !in.lines.normalise {
		in.no = in.refuse(refusal{slug: reason.BareNewline})
		return
	}
	if in.tooLong(p) {
		in.no = in.refuseLine()
		return
	}
	if v := admit.Size(in.tx.view, in.writer.Size()+int64(len(p))); v.Action != admit.Accept {
		in.no = in.refuseVerdict(reason.StageData, v)
		return
	}
	if _, err := in.writer.Write(p); err != nil {
		in.no = in.refuse(refusal{slug: storageReason(err), cause: err})
	}
}

// tooLong measures lines.
func (in *intake) tooLong(p []byte) bool {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			in.line += len(p)
			break
		}
		if in.line+end > maxMessageLine {
			return true
		}
		in.line, p = 0, p[end+1:]
	}
	return in.line > maxMessageLine
}

func (in *intake) refuseLine() error {
	return in.refuse(refusal{slug: reason.BadHeader, args: reason.Args{
		Detail: fmt.Sprintf("a line is longer than %d bytes", maxMessageLine),
	}})
}

// cutShort ends a message that did not come whole: the client was silent for too
// long, went away, or took the message back.
func (in *intake) cutShort(err error) error {
	in.session.guard.end()
	if in.no != nil {
		return in.no
	}
	if errors.Is(err, smtp.ErrTooLongLine) {
		return in.refuseLine()
	}
	return in.refuse(refusal{slug: reason.SessionTimeout, cause: fmt.Errorf("message was cut short: %w", err), quiet: true})
}

// received looks at the message once it is whole.
func (in *intake) received() error {
	if in.no == nil {
		in.keep(in.lines.finish())
	}
	if in.no != nil {
		return in.no
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

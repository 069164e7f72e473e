package smtpd

import (
	"context"
	"errors"
	"io"

	"activerelay/api/admit"
	"activerelay/api/mailaddr"
	"activerelay/api/reason"
	"activerelay/relayd/internal/scan"
)

// judge decides by what the header says: who speaks, and whether this is a
// mailing. The header has exactly one From field by now.
func (in *intake) judge() error {
	from, err := mailaddr.FromHeader(in.header.from())
	if err != nil {
		return in.refuse(refusal{slug: reason.BadHeader, args: reason.Args{Detail: "From: " + err.Error()}})
	}
	// Nil for the null sender, which is attributed by its From field alone.
	envelope := in.tx.sender.Domain
	v := admit.HeaderFrom(in.tx.view, in.tx.client, envelope, from)
	in.domain = envelope
	if v.Action != admit.Accept {
		return in.refuseVerdict(reason.StageData, v)
	}
	if envelope == nil {
		in.domain = v.Domain
	}
	v = admit.Bulk(in.tx.view, in.domain, in.header.fields, len(in.tx.recipients))
	if v.Action != admit.Accept {
		return in.refuseVerdict(reason.StageData, v)
	}
	in.observed, _ = v.Observed()
	return nil
}

// scan asks the scanners. Whatever is not a clear "clean" keeps the message out;
// the platform can allow mail to pass where there is no scanner at all, but
// never where one does not answer.
func (in *intake) scan(ctx context.Context) error {
	defer in.over(in.server.metrics.scan)
	verdict, err := in.server.Scanner.Scan(ctx, scan.Message{
		ID: in.id, SizeBytes: in.writer.Size(), Open: func() io.Reader { return in.writer.Reader() },
	})
	switch {
	case err == nil && verdict.Outcome == scan.Clean:
		return nil
	case err == nil && verdict.Outcome == scan.Malware:
		return in.refuse(refusal{
			slug: reason.Malware, args: reason.Args{Signature: verdict.Signature},
			detail: verdict.Scanner + " found " + verdict.Signature,
		})
	case errors.Is(err, scan.ErrNoScanner) && in.tx.view.Table.Platform().AllowUnscanned:
		in.server.metrics.unscanned.Inc()
		return nil
	case err == nil:
		err = errors.New("scanner gave no verdict")
	}
	return in.refuse(refusal{slug: reason.ScannerUnavailable, cause: err})
}

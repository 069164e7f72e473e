package instruct

import (
	"context"
	"fmt"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
)

// sendNotice stores the mail to the contacts of a domain; it is never charged, and nothing comes back for it (RFC 3834 3.3:
// the envelope sender of an automatic message is null).
func (r *Runner) sendNotice(ctx context.Context, batch *journal.Batch, notice api.Notice) error {
	now := r.config.Now()
	id, err := spool.NewID(now, r.config.Entropy)
	if err != nil {
		return err
	}
	recipients := r.contacts(ctx, notice)
	if len(recipients) == 0 {
		return r.config.Journal.Commit(batch)
	}
	writer, err := r.config.Spool.Create()
	if err != nil {
		return err
	}
	defer writer.Discard()
	if _, err := writer.Write(compose(notice, id, r.config.Hostname, now)); err != nil {
		return err
	}
	message := &spool.Message{ID: id, Recipients: recipients, AcceptedAt: now.UTC(), Notice: true}
	if err := r.config.Spool.Stage(batch, message, writer); err != nil {
		return err
	}
	event := api.EdgeEvent{Time: now.UTC(), Kind: api.EdgeEventKindNoticeQueued, Domain: &notice.Domain, MessageID: &id}
	if err := r.config.Outbox.Append(batch, event); err != nil {
		return err
	}
	if err := r.config.Journal.Commit(batch); err != nil {
		return err
	}
	r.config.Enqueue(message)
	return nil
}

// contacts answers the recipients; a contact that is no address any more does not hold up the others.
func (r *Runner) contacts(ctx context.Context, notice api.Notice) []spool.Recipient {
	var recipients []spool.Recipient
	for _, to := range notice.To {
		address, err := mailaddr.Parse(to, mailaddr.Options{})
		if err != nil {
			r.config.Log.WarnContext(ctx, "contact is no address", "domain", notice.Domain, "contact", to, "error", err)
			continue
		}
		// RFC 3461 4.1: a notice about a notice helps nobody.
		recipients = append(recipients, spool.Recipient{Address: address, Notify: []string{"NEVER"}})
	}
	return recipients
}

// compose writes the notice as RFC 5322 text.
func compose(n api.Notice, id, hostname string, now time.Time) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Active Relay <%s>", n.From)
	line("To: %s", strings.Join(n.To, ",\r\n "))
	line("Subject: %s", subject(n))
	line("Date: %s", now.UTC().Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", id, hostname)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	line("Content-Transfer-Encoding: 8bit")
	line("")
	line("Domain:  %s", n.Domain)
	line("Used:    %d of %d %ss today", n.Used, n.Limit, n.Unit)
	line("Resets:  %s", n.ResetsAt.Format(time.RFC3339))
	line("")
	if n.Kind == api.NoticeKindQuotaReached {
		line("The relay limit of %s is reached. Until the reset, mail of the domain is not", n.Domain)
		line("accepted; mail servers keep it in their own queues and try again.")
	} else {
		line("%s has used most of its relay limit of today. When the limit is reached, mail of", n.Domain)
		line("the domain is not accepted until the reset.")
	}
	line("")
	line("If this is more mail than you expect, look for its source: your provider sees which")
	line("client addresses, users and sender addresses sent it.")
	if n.SupportContact != nil && *n.SupportContact != "" {
		line("")
		line("Your provider: %s", *n.SupportContact)
	}
	return []byte(b.String())
}

func subject(n api.Notice) string {
	if n.Kind == api.NoticeKindQuotaReached {
		return "Relay limit reached for " + n.Domain
	}
	return fmt.Sprintf("%d %% of the relay limit used for %s", percent(n.Used, n.Limit), n.Domain)
}

func percent(used, limit int64) int64 {
	if limit <= 0 {
		return 100
	}
	return used * 100 / limit
}

package smtpd

import (
	"context"

	"activerelay/api/quota"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/ledger"
)

// Ledger is what the server needs of *ledger.Ledger.
type Ledger interface {
	// Peek says whether n units could be spent now, and in which unit the day
	// counts, if that is known. It reserves nothing.
	Peek(domain string, n int64) quota.Decision
	// Wait asks for n units and returns when they are held, when it is certain
	// that they cannot be had, or when ctx ends.
	Wait(ctx context.Context, domain string, n int64) quota.Decision
	// Spend takes n units and writes that into the batch that stores the message.
	// With any outcome but Granted nothing was taken, and there is no Spending.
	Spend(b *journal.Batch, domain string, n int64) (*ledger.Spending, quota.Decision)
}

var _ Ledger = (*ledger.Ledger)(nil)

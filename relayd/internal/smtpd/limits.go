package smtpd

import (
	"time"

	"activerelay/relayd/internal/smtpwire"
)

// Limits bound what one client, and all of them, can cost. The zero value of
// each field is its default.
type Limits struct {
	// Limits of one connection, which the engine keeps to.
	smtpwire.Limits

	// Connections open at once, over all listeners. 0 means 2,000. From 90 % of
	// it on the server is under stress: sessions may idle for 10 s and make one
	// mistake.
	Connections int
	// ConnectionsPerIP open at once from one address. 0 means 100.
	ConnectionsPerIP int
	// ConnectionsPerPartner open at once for the domains of one partner, counted
	// from the first message that was admitted. 0 means 1,000.
	ConnectionsPerPartner int
	// GreetDelay is how long the greeting waits for a client that talks first.
	// 0 only looks at what has come already.
	GreetDelay time.Duration

	// MessagesPerConnection of a user. 0 means 100. Relay IPs have no limit.
	MessagesPerConnection int
	// UserMessagesPerMinute is how fast a user may send, with bursts of as
	// many; it slows an infected computer. 0 means 120.
	UserMessagesPerMinute int
	// AuthFailuresPerMinute are the most wrong passwords that one address, or one
	// user from addresses where it has not been before, can try in a minute: half
	// of them at once. 0 means 20. Who uses them up waits, then is turned away, and
	// the operator is told.
	AuthFailuresPerMinute int
	// AuthChecks run at once; each takes some 20 MB. 0 means 2.
	AuthChecks int

	// QuotaWait is how long a message waits for units of its domain's limit. 0
	// means 3 s.
	QuotaWait time.Duration
	// ShutdownGrace is how long messages in flight may take to finish once
	// Shutdown was called. 0 means 30 s.
	ShutdownGrace time.Duration
}

// What no setting changes.
const (
	stressPercent = 90
	maxAuthWait   = 7 * time.Second // more than one try of twenty takes to fall due
	// endGrace is how long a session may go on whose connection was closed, and
	// whose context ended: a sync of the disk cannot be broken off.
	endGrace     = 10 * time.Second
	lingerTime   = 250 * time.Millisecond
	lingerBytes  = 64 << 10
	maxHeloBytes = 255
)

// withDefaults fills in what was left zero.
func (l Limits) withDefaults() Limits {
	number := func(v *int, byDefault int) {
		if *v == 0 {
			*v = byDefault
		}
	}
	span := func(v *time.Duration, byDefault time.Duration) {
		if *v == 0 {
			*v = byDefault
		}
	}
	number(&l.Connections, 2000)
	number(&l.ConnectionsPerIP, 100)
	number(&l.ConnectionsPerPartner, 1000)
	number(&l.MessagesPerConnection, 100)
	number(&l.UserMessagesPerMinute, 120)
	number(&l.AuthFailuresPerMinute, 20)
	number(&l.AuthChecks, 2)
	span(&l.QuotaWait, 3*time.Second)
	span(&l.ShutdownGrace, 30*time.Second)
	return l
}

package smtpd

import "time"

// Limits bound what one client, and all of them, can cost. The zero value of
// each field is its default.
type Limits struct {
	// Connections open at once, over all listeners. 0 means 2,000. From 90 % of
	// it on the server is under stress: sessions may idle for 10 s and make one
	// mistake.
	Connections int
	// ConnectionsPerIP open at once from one address. 0 means 100.
	ConnectionsPerIP int
	// ConnectionsPerPartner open at once for the domains of one partner, counted
	// from the first message that was admitted. 0 means 1,000.
	ConnectionsPerPartner int

	// CommandIdle is how long a client may take to send its next command. 0 means
	// 5 min (RFC 5321 4.5.3.2.7).
	CommandIdle time.Duration
	// SessionAge ends the session of a user, and of any client that has not
	// sent a message for so long. 0 means 30 min.
	SessionAge time.Duration
	// GreetDelay is how long the greeting waits for a client that talks first.
	// 0 only looks at what has come already.
	GreetDelay time.Duration

	// DataIdle is the longest pause within a message. 0 means 3 min (RFC 5321
	// 4.5.3.2.5).
	DataIdle time.Duration
	// DataTotal is how long one message may take. 0 means 30 min.
	DataTotal time.Duration
	// DataMinRate is the least average rate of a message once DataGrace is
	// over, in bytes a second. 0 means 256.
	DataMinRate int
	// DataGrace is the time before DataMinRate counts. 0 means 1 min.
	DataGrace time.Duration

	// MessagesPerConnection of a user. 0 means 100. Relay IPs have no limit.
	MessagesPerConnection int
	// UserMessagesPerMinute is how fast a user may send, with bursts of as
	// many; it slows an infected computer. 0 means 120.
	UserMessagesPerMinute int
	// Errors are the permanent refusals that end a connection. 0 means 20.
	Errors int
	// IdleResets are the RSET outside a transaction that end a connection. 0
	// means 100.
	IdleResets int
	// AuthFailures end a connection. 0 means 3.
	AuthFailures int
	// AuthFailuresPerMinute are the wrong passwords that one address, or one
	// user from addresses where it has not been before, can try at full speed.
	// 0 means 20. Who uses them up waits.
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

// What applies under stress, and what no setting changes.
const (
	stressIdle     = 10 * time.Second
	stressErrors   = 1
	stressPercent  = 90
	firstCommand   = 5 * time.Minute // from the connection to the first EHLO
	writeTimeout   = 2 * time.Minute
	maxLineBytes   = 64<<10 + 2 // of commands too: see the package comment
	maxAuthWait    = 5 * time.Second
	lingerTime     = 250 * time.Millisecond
	lingerBytes    = 64 << 10
	maxHeloBytes   = 255
	earlyTalkBytes = 1
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
	span(&l.CommandIdle, 5*time.Minute)
	span(&l.SessionAge, 30*time.Minute)
	span(&l.DataIdle, 3*time.Minute)
	span(&l.DataTotal, 30*time.Minute)
	number(&l.DataMinRate, 256)
	span(&l.DataGrace, time.Minute)
	number(&l.MessagesPerConnection, 100)
	number(&l.UserMessagesPerMinute, 120)
	number(&l.Errors, 20)
	number(&l.IdleResets, 100)
	number(&l.AuthFailures, 3)
	number(&l.AuthFailuresPerMinute, 20)
	number(&l.AuthChecks, 2)
	span(&l.QuotaWait, 3*time.Second)
	span(&l.ShutdownGrace, 30*time.Second)
	return l
}

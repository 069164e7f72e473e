package smtpd

import (
	"runtime"
	"testing"
	"time"
)

// Matrix row 14, the onset: who was idle before stress set in holds its place no longer than who comes later.
func TestRow14WhoWasIdleBeforeStressIsLetGoToo(t *testing.T) {
	const room = 10
	e := startEdge(t, func(o *setup) {
		o.limits.Connections, o.limits.StressIdle = room, 100*time.Millisecond
	})
	var idle []*client
	for range room * stressPercent / 100 {
		idle = append(idle, e.hello())
	}
	for _, c := range idle {
		c.want(said(421, "4.4.2", "session-timeout", "Nothing was heard for too long; closing the connection"))
		c.ended()
	}
	e.hello().mail("anna@ok.test", text("anna@ok.test"), queuedAs)
}

// Whoever steps over the threshold, back, and over it again within a second gains nothing.
func TestRow14WhoWasIdleBeforeASecondOnsetIsLetGoToo(t *testing.T) {
	t.Parallel()
	const room = 10
	e := startEdge(t, func(o *setup) {
		o.limits.Connections, o.limits.StressIdle = room, 2*time.Second
	})
	var idle []*client
	for range room*stressPercent/100 - 1 {
		idle = append(idle, e.hello())
	}
	last := e.hello() // the first onset
	last.send("QUIT")
	for e.server.stressed.Load() {
		runtime.Gosched() // until the server has seen it go
	}
	for _, c := range idle {
		c.ask("NOOP", "250 .*") // which gives it the time of quiet days again
	}
	e.hello()
	for _, c := range idle {
		c.want(said(421, "4.4.2", "session-timeout", "Nothing was heard for too long; closing the connection"))
		c.ended()
	}
}

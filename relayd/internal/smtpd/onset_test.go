package smtpd

import (
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

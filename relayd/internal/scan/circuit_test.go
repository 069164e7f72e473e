package scan

import (
	"errors"
	"testing"
	"time"
)

func TestTheCircuitOpensAfterThreeFailuresAndProbesOnceASecond(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	c := circuit{now: func() time.Time { return now }}
	enter := func(want pass) {
		t.Helper()
		if got, h := c.enter(); got != want {
			t.Fatalf("at %v: got pass %d, want %d; health %+v", now, got, want, h)
		}
	}
	boom := errors.New("boom")
	for range 2 {
		enter(passAsk)
		c.failed(boom)
	}
	if h := c.state(); h.State != Weak || h.LastError != "boom" {
		t.Fatalf("after two failures %+v", h)
	}
	enter(passAsk)
	c.failed(boom)
	if h := c.state(); h.State != Down || !h.Since.Equal(now) {
		t.Fatalf("after three failures %+v", h)
	}
	enter(passNone)
	now = now.Add(probePause)
	enter(passProbe)
	now = now.Add(probePause)
	enter(passNone) // one probe at a time
	c.probed()
	enter(passProbe) // its caller left: another may
	now = now.Add(probePause / 2)
	c.failed(boom) // an older scan
	now = now.Add(probePause / 2)
	enter(passNone) // which has not ended the probe
	c.failed(boom)
	c.probed()
	enter(passProbe) // and puts off no other
	c.probed()
	enter(passNone)
	now = now.Add(probePause)
	enter(passProbe)
	c.worked()
	c.probed()
	enter(passAsk)
	if h := c.state(); h.State != Up || h.LastError != "" || !h.Since.Equal(now) {
		t.Fatalf("after the probe worked %+v", h)
	}
	c.failed(boom)
	enter(passAsk) // the count began again
}

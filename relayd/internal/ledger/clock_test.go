package ledger

import (
	"testing"
	"time"

	"activerelay/api/quota"
)

func TestClockIsCorrectedByTheControlPlane(t *testing.T) {
	e := startOne(t)
	local := noon().Add(-3 * time.Hour) // this host is behind
	e.ledger.clock.local = func() time.Time { return local }
	e.stock(t, 1)
	if got := e.ledger.Now(); !got.Equal(noon()) {
		t.Errorf("the ledger thinks it is %s, want %s", got, noon())
	}
	local = local.Add(12 * time.Hour) // midnight there, 9 p.m. here
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Unavailable {
		t.Errorf("by the control plane's clock the day is over, units are %s", d.Outcome)
	}
}

// A call may wait on its way for as long as it may take. Half of that is no error to begin a day with.
func TestASlowCallDoesNotSpoilAClockThatWasRight(t *testing.T) {
	e := startOne(t)
	local := noon().Add(-3 * time.Hour)
	e.ledger.clock.local = func() time.Time { return local }
	e.stock(t, 1)
	slow := func(there, back time.Duration) {
		t.Helper()
		e.want(1)
		call, _, err := e.ledger.Report()
		if err != nil {
			t.Fatal(err)
		}
		local, e.plane.now = local.Add(there), e.plane.now.Add(there)
		reply, ok := e.plane.answer(e.name, call)
		if !ok {
			t.Fatal("no answer")
		}
		local, e.plane.now = local.Add(back), e.plane.now.Add(back)
		if err := e.ledger.Apply(reply); err != nil {
			t.Fatal(err)
		}
	}
	for _, way := range [][2]time.Duration{{16 * time.Second, 0}, {0, 16 * time.Second}} {
		slow(way[0], way[1])
		if off := e.ledger.Now().Sub(e.plane.now); off.Abs() > time.Second {
			t.Errorf("after %v there and %v back the clock is off by %v", way[0], way[1], off)
		}
	}
	local = local.Add(-time.Hour) // the host stood still for an hour: what was right is so no more
	slow(16*time.Second, 0)
	if off := e.ledger.Now().Sub(e.plane.now); off.Abs() > 8*time.Second {
		t.Errorf("a clock that is wrong is left so: it is off by %v", off)
	}
}

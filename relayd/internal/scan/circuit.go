package scan

import (
	"sync"
	"time"
)

// State is the health of one scanner.
type State string

// The states. A scanner that was never asked counts as up.
const (
	Up   State = "up"   // the last answer was a verdict
	Weak State = "weak" // the last scans failed, but it is still asked
	Down State = "down" // it is not asked, but for a probe now and then
)

// Health is a scanner's state for readiness, metrics and operators.
type Health struct {
	State State
	// Since is when State was entered; zero before the first scan.
	Since time.Time
	// LastError is why the last scan that failed did; empty while Up.
	LastError string
}

const (
	// failuresToOpen in a row stop the asking.
	failuresToOpen = 3
	// probePause is between the beginnings of two probes of a scanner that is
	// down, so that it is back in use soon after it is back.
	probePause = time.Second
)

// circuit keeps callers from queueing up behind a scanner that does not answer:
// each would otherwise wait for the whole deadline before its deferral. Only an
// answer to a scan closes it again: a scanner that can be reached but gives no
// verdicts stays down.
type circuit struct {
	now func() time.Time

	mu        sync.Mutex
	health    Health
	failures  int
	nextProbe time.Time
	probing   bool
}

// pass says how a caller may go on.
type pass uint8

const (
	passAsk   pass = iota // ask the scanner
	passProbe             // probe it first, then ask; end the probe with probed
	passNone              // do not ask
)

// enter decides for one caller. At most one probe runs at a time.
func (c *circuit) enter() (pass, Health) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.health.State != Down:
		return passAsk, c.health
	case c.probing || c.now().Before(c.nextProbe):
		return passNone, c.health
	default:
		c.probing = true
		c.nextProbe = c.now().Add(probePause)
		return passProbe, c.health
	}
}

// worked notes an answer of the scanner, whatever it said of the message.
func (c *circuit) worked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = 0
	c.become(Up, "")
}

// failed notes that the scanner did not answer. Scans that began before it was
// down may fail later than that: they put off no probe.
func (c *circuit) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures++
	if c.failures < failuresToOpen {
		c.become(Weak, err.Error())
		return
	}
	if c.health.State != Down {
		c.nextProbe = c.now().Add(probePause)
	}
	c.become(Down, err.Error())
}

// probed ends a probe, whether it had a finding or its caller went away.
func (c *circuit) probed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = false
}

func (c *circuit) become(s State, cause string) {
	c.health.LastError = cause
	if c.health.State != s {
		c.health.State, c.health.Since = s, c.now()
	}
}

func (c *circuit) state() Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health
}

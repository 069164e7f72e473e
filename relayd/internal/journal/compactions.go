package journal

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// restAfterDamage is how long nothing is compacted after a compaction has met a
// damaged table. The engine would try again at once, and for ever.
const restAfterDamage = time.Minute

// compactions decides when the engine may compact: as many at once as it asks
// for, but for the rest. It implements pebble.CompactionScheduler and
// pebble.CompactionGrantHandle. Its mutex comes after the engine's.
type compactions struct {
	mu       sync.Mutex
	db       pebble.DBForCompaction
	running  int
	rest     time.Time // until then none begins
	held     bool
	closed   bool
	granting sync.WaitGroup
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.db = db
}

// Unregister implements pebble.CompactionScheduler.
func (c *compactions) Unregister() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.granting.Wait()
}

// TrySchedule implements pebble.CompactionScheduler. What is refused here the
// engine waits for: see grant.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.take() {
		return false, nil
	}
	return true, c
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler. The
// engine holds its mutex.
func (c *compactions) UpdateGetAllowedWithoutPermission() { go c.grant() }

// Done implements pebble.CompactionGrantHandle.
func (c *compactions) Done() {
	c.giveBack()
	c.grant()
}

// Started implements pebble.CompactionGrantHandle.
func (c *compactions) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// restNow begins a rest. The engine may hold its mutex.
func (c *compactions) restNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest = time.Now().Add(restAfterDamage)
	time.AfterFunc(restAfterDamage, c.grant)
}

// hold lets none begin until resume.
func (c *compactions) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

func (c *compactions) isHeld() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// resume ends holding and resting.
func (c *compactions) resume() {
	c.mu.Lock()
	c.held, c.rest = false, time.Time{}
	c.mu.Unlock()
	c.grant()
}

// take takes a slot, if there is one.
func (c *compactions) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.held || c.running >= c.db.GetAllowedWithoutPermission() || time.Now().Before(c.rest) {
		return false
	}
	c.running++
	return true
}

func (c *compactions) giveBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
}

// grant lets begin what the engine waits for. It takes the engine's mutex.
func (c *compactions) grant() {
	c.mu.Lock()
	if c.closed || c.db == nil {
		c.mu.Unlock()
		return
	}
	c.granting.Add(1)
	c.mu.Unlock()
	defer c.granting.Done()
	for c.take() {
		if waiting, _ := c.db.GetWaitingCompaction(); !waiting || !c.db.Schedule(c) {
			c.giveBack()
			return
		}
	}
}

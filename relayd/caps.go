package relayd

import (
	"fmt"
	"math"
	"syscall"
)

const (
	// ownDescriptors are kept for the journal's files, the listeners, the control plane, monitoring and logs.
	ownDescriptors = 96
	// maxAttempts are under way at once where there are descriptors enough.
	maxAttempts = 400
)

// fitDescriptors lowers the number of connections to what this process can have open, so that it turns away clients with a reply
// where the kernel would let them hang. A client takes two descriptors, for its connection and for the file of a large message;
// so does an attempt.
func (c *Config) fitDescriptors() (attempts int, err error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	free := int(min(limit.Cur, math.MaxInt32)) - ownDescriptors
	connections := free * 3 / 10
	attempts = min(maxAttempts, free/5)
	if connections < 10 {
		return 0, fmt.Errorf("this process may open %d files; relayd needs at least %d (LimitNOFILE of the unit, or ulimit -n)",
			limit.Cur, ownDescriptors+34)
	}
	if connections < c.MaxConnections {
		c.Log.Warn("fewer connections than max-connections says: this process may not open files enough", "connections", connections,
			"max-connections", c.MaxConnections, "open-files", limit.Cur)
		c.MaxConnections = connections
	}
	return attempts, nil
}

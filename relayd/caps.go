package relayd

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

const (
	// ownDescriptors are kept for the journal's files, the listeners, the control plane, monitoring and logs.
	ownDescriptors = 96
	// maxAttempts are under way at once where there are descriptors enough.
	maxAttempts = 400
	// memoryShare of the control group's limit is for the heap; the rest is for stacks, files in the cache and what the program
	// itself takes.
	memoryShare = 0.8
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

// fitMemory tells Go of the control group's limit, so that it collects garbage rather than be killed. Where GOMEMLIMIT says
// something it stays.
func fitMemory(root string) (limit int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	limit = memoryLimit(root)
	if limit > 0 {
		debug.SetMemoryLimit(int64(float64(limit) * memoryShare))
	}
	return limit
}

// memoryLimit is the smallest limit of the control groups that this process is in, in bytes; 0 where there is none. root is where
// /proc and /sys are.
func memoryLimit(root string) (least int64) {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[1] == "": // version 2
			least = smallest(least, limitOf(filepath.Join(root, "sys/fs/cgroup"), fields[2], "memory.max"))
		case fields[1] == "memory":
			least = smallest(least, limitOf(filepath.Join(root, "sys/fs/cgroup/memory"), fields[2], "memory.limit_in_bytes"))
		}
	}
	return least
}

// limitOf is the smallest limit from a group up to the root.
func limitOf(mount, group, file string) (least int64) {
	for group = filepath.Clean("/" + group); ; group = filepath.Dir(group) {
		text, err := os.ReadFile(filepath.Join(mount, group, file))
		if err == nil {
			// "max" is no number, and version 1 says it with one near the largest.
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n < 1<<60 {
				least = smallest(least, n)
			}
		}
		if group == "/" {
			return least
		}
	}
}

// smallest takes 0 for none.
func smallest(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// Package cgroup fits a program to the control group that it runs in.
package cgroup

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare of the limit is for the heap; the rest is for stacks, files in the cache and what the program itself
// takes.
const memoryShare = 0.8

// FitMemory tells Go of the group's memory limit, so that it collects garbage rather than be killed, and returns it: 0 where there
// is none, or where GOMEMLIMIT, which wins, says something.
func FitMemory(getenv func(string) string) (limit int64) {
	if getenv("GOMEMLIMIT") != "" {
		return 0
	}
	limit = memoryLimit("/")
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

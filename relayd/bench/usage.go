package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// kernelTick is the unit of the times in /proc/PID/stat: USER_HZ is 100 on every Linux.
const kernelTick = 10 * time.Millisecond

// Processes is a process with all that descend from it, measured through /proc.
type Processes struct {
	// Root is the process that was started, or Postfix's master.
	Root int
}

// CPU is the user and system time that the processes have used, those included that have ended and were waited for.
func (p Processes) CPU() (time.Duration, error) {
	stats, err := p.members()
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, s := range stats {
		ticks += s.ticks
	}
	return time.Duration(ticks) * kernelTick, nil
}

// Memory is the proportional set size of the processes in bytes: memory that several share counts once. It walks their
// page tables, so it is asked for between runs and not within.
func (p Processes) Memory() (pss int64, processes int, err error) {
	stats, err := p.members()
	if err != nil {
		return 0, 0, err
	}
	for _, s := range stats {
		kib, err := pssKiB(s.pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone) {
			continue // it has ended since
		}
		if err != nil {
			return 0, 0, err
		}
		pss += kib << 10
		processes++
	}
	return pss, processes, nil
}

// procStat is what is needed of /proc/PID/stat.
type procStat struct {
	pid, parent int
	ticks       int64 // utime, stime, and those of children that were waited for
}

// members are the root and its descendants.
func (p Processes) members() ([]procStat, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]procStat{}
	var found []procStat
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended since
		}
		s, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		children[s.parent] = append(children[s.parent], s)
		if s.pid == p.Root {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("process %d is not there", p.Root)
	}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found, nil
}

// parseStat reads "pid (name) state ppid …"; the name may hold anything, so the fields are counted from its last bracket.
func parseStat(text string) (procStat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("no process name")
	}
	fields := strings.Fields(text[end+1:])
	const parent, utime, cstime = 1, 11, 14 // state is field 0
	if len(fields) <= cstime {
		return procStat{}, fmt.Errorf("only %d fields", len(fields))
	}
	var s procStat
	var err error
	number := func(text string) int64 {
		n, parseErr := strconv.ParseInt(text, 10, 64)
		err = errors.Join(err, parseErr)
		return n
	}
	s.pid, s.parent = int(number(strings.TrimSpace(text[:open]))), int(number(fields[parent]))
	for _, field := range fields[utime : cstime+1] {
		s.ticks += number(field)
	}
	return s, err
}

func pssKiB(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			return strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		}
	}
	return 0, fmt.Errorf("memory of process %d: no Pss", pid)
}

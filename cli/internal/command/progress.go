package command

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
)

// many is how many objects make work long enough to be watched.
const many = 20

// progress is the line at a terminal that says how far long work is. It is
// written over itself and gone when something else is said. Without a terminal
// it is silent.
type progress struct {
	out io.Writer

	mu    sync.Mutex
	shown bool
}

// say shows the line; it is safe for concurrent use.
func (p *progress) say(format string, args ...any) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown = true
	fmt.Fprintf(p.out, "\r%s\x1b[K", failure.Printable(fmt.Sprintf(format, args...)))
}

// clear takes the line away.
func (p *progress) clear() {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	p.shown = false
}

// counting shows how many of how many objects are done.
func (p *progress) counting(what string) func(done, total int) {
	return func(done, total int) {
		if total >= many {
			p.say("%s: %d of %d", what, done, total)
		}
	}
}

// waiting shows that a batch is on its way: the server answers it as a whole.
func (p *progress) waiting(call invoke.Call) {
	if entries := batch(call); entries >= many {
		p.say("%s: waiting for what becomes of %d entries", call.Op.Summary, entries)
	}
}

// batch is how many entries the body of a batch has.
func batch(call invoke.Call) int {
	if call.Body == nil || !isBatch(call.Op) {
		return 0
	}
	var lists map[string][]json.RawMessage
	if err := json.Unmarshal(call.Body.Content, &lists); err != nil {
		return 0
	}
	entries := 0
	for _, list := range lists {
		entries += len(list)
	}
	return entries
}

// isBatch: every row of the answer has a problem of its own where it failed.
func isBatch(op *ops.Op) bool { return op.Rows != "" && slices.Contains(op.Paths, "problem") }

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// groupLogBytes is the size of the log. It is written full once, so that a sync later has no blocks to allocate, and then
// over and over again from its start: nobody reads it back.
const groupLogBytes = 64 << 20

// groupLog makes records durable, many at a time: while one sync runs the next group gathers.
type groupLog struct {
	file    *os.File
	offset  int64
	wake    chan struct{}
	written sync.WaitGroup

	mu    sync.Mutex
	group *group
}

// group is what the next sync covers.
type group struct {
	data []byte
	done chan struct{}
	err  error
}

func newGroup() *group { return &group{done: make(chan struct{})} }

func openGroupLog(dir string) (*groupLog, error) {
	file, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	block := make([]byte, 1<<20)
	for at := int64(0); at < groupLogBytes; at += int64(len(block)) {
		if _, err := file.WriteAt(block, at); err != nil {
			return nil, errors.Join(fmt.Errorf("fill log: %w", err), file.Close())
		}
	}
	if err := file.Sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("fill log: %w", err), file.Close())
	}
	l := &groupLog{file: file, wake: make(chan struct{}, 1), group: newGroup()}
	l.written.Go(l.run)
	return l, nil
}

// close ends the log. Nobody may append any more.
func (l *groupLog) close() error {
	close(l.wake)
	l.written.Wait()
	return l.file.Close()
}

// append returns once the parts are on the disk.
func (l *groupLog) append(parts ...[]byte) error {
	l.mu.Lock()
	g := l.group
	for _, part := range parts {
		g.data = append(g.data, part...)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	<-g.done
	return g.err
}

func (l *groupLog) run() {
	for range l.wake {
		l.mu.Lock()
		g := l.group
		l.group = newGroup()
		l.mu.Unlock()
		g.err = l.write(g.data)
		close(g.done)
	}
}

func (l *groupLog) write(data []byte) error {
	if l.offset+int64(len(data)) > groupLogBytes {
		l.offset = 0
	}
	if _, err := l.file.WriteAt(data, l.offset); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	l.offset += int64(len(data))
	if err := syscall.Fdatasync(int(l.file.Fd())); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

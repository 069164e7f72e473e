// Package spool keeps messages at rest. It knows nothing of time or of
// destinations: the queue decides what is tried next, the spool only promises
// that what was staged and committed can be read back byte for byte, or is
// reported as damaged and never handed out.
//
// A message is two records of the journal, so that recording an attempt does
// not write the body again:
//
//	's' 'e' id   envelope: the Message as tagged fields under a checksum; behind
//	             it, notes of attempts that began since it was written
//	's' 'b' id   body: lengths and checksums, our added header fields, and the
//	             message text itself, or, past InlineBytes or when the memory for
//	             texts that arrive is used up, the fact that it is in the file Dir/id
//	's' 'q' id   envelope of a message in quarantine, with the reason
//	's' 't' id   the control plane was told of that message
//
// The life of a body: a session takes a Writer from Create and streams into
// it; a scanner reads it back through Reader; Stage puts both records into the
// batch that also spends the quota and notes the event. A body in a file is
// synced, renamed to its id, and its directory synced, before the batch gets
// the record that names it: a record never points to a file that a power cut
// can take away. The reverse, a file without a record, is what a crash leaves
// behind; Open removes it.
//
// A body that is no file stays in memory until its first attempt is over
// (handover.go), as long as there is room (memory.go).
//
// The text is stored as it came. Fields that we add (Received and the like) go
// above it with Prepend and are kept apart, so nothing is ever re-serialised.
package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"activerelay/relayd/internal/journal"

	"github.com/prometheus/client_golang/prometheus"
)

// InlineBytes is the largest body kept in memory while it arrives and in the
// journal afterwards. A larger one is a file.
const InlineBytes = 256 << 10

var (
	// ErrNotFound means that no such message is in the spool.
	ErrNotFound = journal.ErrNotFound
	// ErrCorrupt means that a message is not what was stored. It has been put
	// into quarantine; a human must look.
	ErrCorrupt = errors.New("stored message is damaged")
	// ErrFull means that the disk has no room to spare for another message.
	ErrFull = errors.New("no room in the spool")
)

// Config wires the spool. Dir and Journal are required.
type Config struct {
	// Dir holds the bodies that are files; made with mode 0700 when missing.
	// It belongs to the spool alone.
	Dir string
	// Journal holds everything else.
	Journal *journal.Journal
	// Log receives what an operator must know. Nil discards.
	Log *slog.Logger
	// Metrics registers the spool's figures. Nil registers nothing.
	Metrics prometheus.Registerer
	// ReserveBytes is the space that Room keeps free for deliveries, notices
	// and the journal's own work. 0 means 64 MiB.
	ReserveBytes int64
	// WritingBytes is what the texts that are arriving may hold in memory
	// together, beyond the 8 KiB that each begins with. A text that would need
	// more goes on in a file, also below InlineBytes. 0 means 64 MiB.
	WritingBytes int64
	// HandoverBytes is the memory for texts that were just stored and wait for
	// their first attempt. One that finds no room there is read from the disk. 0
	// means 16 MiB, negative that none is kept.
	HandoverBytes int64
	// Now is the clock by which texts wait there. Nil means time.Now.
	Now func() time.Time
	// Faults, when set, is asked before every change of a file and can make it
	// fail, as in journal.Config; and so it is before every "quarantine". Nil in
	// production.
	Faults func(op, path string) error
}

// Spool is an open spool. Its methods may be called from any goroutine.
type Spool struct {
	dir     string
	folder  *os.File // Dir, held open to be synced
	journal *journal.Journal
	log     *slog.Logger
	reserve int64
	faults  func(op, path string) error
	metrics *metrics

	// filled is what clients' messages have taken since the disk was asked last.
	filled atomic.Int64

	memory   memory
	handover handover
	now      func() time.Time

	mu    sync.Mutex
	files map[string]struct{} // ids whose body is a file
}

// Open prepares the directory and removes what a crash left half done.
func Open(c Config) (*Spool, error) {
	if c.Dir == "" || c.Journal == nil {
		return nil, errors.New("open spool: a directory and a journal are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = 64 << 20
	}
	if c.WritingBytes == 0 {
		c.WritingBytes = 64 << 20
	}
	if c.HandoverBytes == 0 {
		c.HandoverBytes = 16 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Faults == nil {
		c.Faults = func(string, string) error { return nil }
	}
	s := &Spool{
		dir: c.Dir, journal: c.Journal, log: c.Log, reserve: c.ReserveBytes, faults: c.Faults,
		memory: memory{most: c.WritingBytes}, handover: handover{texts: map[string]*text{}, most: c.HandoverBytes}, now: c.Now,
		files: map[string]struct{}{},
	}
	if err := s.start(c.Metrics); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", c.Dir, err)
	}
	return s, nil
}

func (s *Spool) start(registry prometheus.Registerer) (err error) {
	if err := s.makeDir(); err != nil {
		return err
	}
	if s.folder, err = os.Open(s.dir); err != nil {
		return err
	}
	if err = s.sweep(); err == nil {
		s.metrics, err = newMetrics(registry, s)
	}
	if err != nil {
		return errors.Join(err, s.folder.Close())
	}
	return nil
}

// makeDir makes the directory and syncs its parent: a power cut that took the
// directory's own name would take every body in it.
func (s *Spool) makeDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(s.dir))
	if err != nil {
		return err
	}
	return errors.Join(s.synced("syncdir", parent.Name(), parent.Sync), parent.Close())
}

// lostSuffix marks the file of a message that a damaged log has lost: it stays for
// whoever puts the message together again by hand, from the copy of the log.
const lostSuffix = ".lost"

// sweep learns which bodies are files and removes the files of no message.
// What is no file (lost+found of a disk of its own) is none of ours.
func (s *Spool) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := e.Name()
		if !e.Type().IsRegular() || strings.HasSuffix(id, lostSuffix) {
			continue
		}
		known, err := s.journal.Has(bodyKey(id))
		if errors.Is(err, journal.ErrCorrupt) {
			known, err = true, nil // it cannot be told, so the file stays
		}
		if err != nil {
			return err
		}
		if known && !strings.HasSuffix(id, partSuffix) {
			s.files[id] = struct{}{}
			continue
		}
		path := filepath.Join(s.dir, id)
		if s.journal.ChangesLost() && !strings.HasSuffix(id, partSuffix) {
			s.log.Warn("keeping the body of a message that a damaged log has lost, or that was delivered", "file", path+lostSuffix)
			if err := os.Rename(path, path+lostSuffix); err != nil {
				return err
			}
			continue
		}
		s.log.Info("removing a body that belongs to no message", "file", id)
		if err := s.faults("remove", path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the directory. The journal is the caller's.
func (s *Spool) Close() error {
	s.metrics.unregister()
	err := s.folder.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func envelopeKey(id string) []byte { return append([]byte("se"), id...) }

// The ends of the ranges of keys.
var (
	envelopeEnd = []byte("sf")
	bodyEnd     = []byte("sc")
)

func bodyKey(id string) []byte { return append([]byte("sb"), id...) }

func quarantineKey(id string) []byte { return append([]byte("sq"), id...) }

func toldKey(id string) []byte { return append([]byte("st"), id...) }

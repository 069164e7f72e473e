package spool

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"activerelay/relayd/internal/journal"
)

// partSuffix marks the file of a message that is still arriving.
const partSuffix = ".part"

// Writer takes in the text of one message. It belongs to one goroutine.
// Whoever called Create calls Discard in the end, staged or not.
type Writer struct {
	spool  *Spool
	header []byte
	text   *text    // as far as it is in memory
	file   *os.File // what is not
	path   string
	size   int64
	sum    uint32
	client bool  // it comes from a client, and is kept out of the reserve
	err    error // the first failure: part of the text is missing
	kept   bool  // the batch with this text has its place in the journal
	closed bool
}

// Receive is Create for a message that a client sends. Ask Room first: it was right
// for each of many that come at once, and for a client that says less than it sends,
// but not for all together. So where only the reserve is left, Write and Stage fail
// with ErrFull.
func (s *Spool) Receive() (*Writer, error) {
	w, err := s.Create()
	if err == nil {
		w.client = true
	}
	return w, err
}

// Create starts a message of our own, which may use the reserve.
func (s *Spool) Create() (*Writer, error) {
	if err := s.journal.Err(); err != nil {
		return nil, fmt.Errorf("create message: %w", err)
	}
	return &Writer{spool: s, text: s.memory.newText()}, nil
}

// Write implements io.Writer. After an error the message cannot be kept: every
// later Write, and Stage, fails with it.
func (w *Writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, errDiscarded
	}
	if w.err == nil {
		w.err = w.take(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	w.size += int64(len(p))
	w.sum = crc32.Update(w.sum, castagnoli, p)
	return len(p), nil
}

var errDiscarded = errors.New("message was discarded")

func (w *Writer) take(p []byte) error {
	if w.file == nil && w.text.append(p) {
		return nil
	}
	if w.file == nil {
		if err := w.spill(); err != nil {
			return fmt.Errorf("move message to a file: %w", err)
		}
	}
	if err := w.writeFile(p); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

func (w *Writer) writeFile(p []byte) error {
	if err := w.keepReserve(len(p)); err != nil {
		return err
	}
	if err := w.spool.faults("write", w.path); err != nil {
		return err
	}
	_, err := w.file.Write(p)
	return err
}

// spill moves what has arrived so far from memory to a new file.
func (w *Writer) spill() error {
	if err := w.keepReserve(askEveryBytes); err != nil { // a file takes an inode too
		return err
	}
	if err := w.spool.faults("create", w.spool.dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(w.spool.dir, "*"+partSuffix) // mode 0600
	if err != nil {
		return err
	}
	w.file, w.path = f, f.Name()
	if err := w.writeFile(w.text.bytes()); err != nil {
		return err
	}
	w.release()
	return nil
}

func (w *Writer) release() {
	if w.text != nil {
		w.text.written()
		w.text = nil
	}
}

// Size is how many bytes of text have been written, without prepended fields.
func (w *Writer) Size() int64 { return w.size }

// Reader reads the text written so far, from its beginning, without prepended
// fields. Each call gives an independent reader; none may be used after the
// next Write or Discard.
func (w *Writer) Reader() io.ReadSeeker {
	if w.file != nil {
		return io.NewSectionReader(w.file, 0, w.size)
	}
	return bytes.NewReader(w.text.bytes())
}

// Prepend puts header fields above all that is there: the text and what was
// prepended before. Each line of fields ends in CRLF.
func (w *Writer) Prepend(fields []byte) {
	w.header = append(bytes.Clone(fields), w.header...)
}

// Stage adds the message to b, and sets m.Size. The text of a large message is
// on the disk when Stage returns; the message itself exists once b is
// committed. On error b is as it was. A text in memory is handed over to Body when
// b is durable, if the Writer was not discarded before.
func (s *Spool) Stage(b *journal.Batch, m *Message, w *Writer) error {
	if err := w.stageable(m.ID); err != nil {
		return fmt.Errorf("stage message: %w", err)
	}
	m.Size = int64(len(w.header)) + w.size
	takes := len(w.header)
	if w.text != nil {
		takes += 2 * len(w.text.bytes()) // in the log, and in a table
	}
	if err := w.keepReserve(takes); err != nil {
		return fmt.Errorf("stage message %s: %w", m.ID, err)
	}
	if w.file != nil {
		if err := w.settleFile(m.ID); err != nil {
			return fmt.Errorf("stage message %s: %w", m.ID, err)
		}
	}
	setEnvelope(b, m)
	w.setBody(b, m.ID)
	// From its place in the journal on, the text is no longer ours to drop,
	// even if the sync behind it fails: the next process may find the record.
	b.Ordered(func(*journal.Batch) { w.kept = true })
	if t := w.text; t != nil {
		s.handover.offer(m.ID, t, w.header, s.now())
		b.OnDurable(func() { s.handover.durable(t) })
	}
	return nil
}

// stageable refuses a text that is not whole, and any once the journal failed:
// no sync is asked for again after one that lied.
func (w *Writer) stageable(id string) error {
	switch {
	case w.closed:
		return errDiscarded
	case w.err != nil:
		return w.err
	}
	if err := w.spool.journal.Err(); err != nil {
		return err
	}
	return validID(id)
}

// settleFile makes the file durable under its final name. A failed sync fails
// the journal: the disk that holds both has lied once.
func (w *Writer) settleFile(id string) error {
	s := w.spool
	if err := s.synced("sync", w.path, w.file.Sync); err != nil {
		return err
	}
	final := filepath.Join(s.dir, id)
	if err := s.faults("rename", final); err != nil {
		return err
	}
	if err := os.Rename(w.path, final); err != nil {
		return err
	}
	w.path = final
	if err := s.synced("syncdir", s.dir, s.folder.Sync); err != nil {
		return err
	}
	s.mu.Lock()
	s.files[id] = struct{}{}
	s.mu.Unlock()
	return nil
}

func (s *Spool) synced(op, path string, sync func() error) error {
	err := s.faults(op, path)
	if err == nil {
		err = sync()
	}
	if err != nil {
		s.journal.Fail(fmt.Errorf("%s %s: %w", op, path, err))
	}
	return err
}

// Discard lets go of the Writer's memory and, if the message did not get into
// the journal, of its file. It may be called more than once.
func (w *Writer) Discard() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if w.text != nil {
		w.spool.handover.abandon(w.text)
	}
	w.release()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	if w.kept {
		return err
	}
	w.spool.forget(filepath.Base(w.path))
	return errors.Join(err, os.Remove(w.path))
}

func (s *Spool) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, id)
}

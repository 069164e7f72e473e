package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// A log may have two kinds of ends. What a crash leaves at the end of the last
// one is a batch that is not whole: nobody was told that it is durable, and the
// engine rightly forgets it and all behind it. Damage is when something that was
// synced cannot be read any more. The engine mostly takes that for an end, and
// would silently forget what comes after: acknowledged mail. So before it opens,
// mendLogs reads the logs, and where there is damage it puts a log in their place
// that has every batch that can still be read, keeps the damaged file in
// Dir/damaged, and says so.
//
// What tells one from the other is what is behind: a later log (an earlier one is
// synced whole), or a mark in a later batch of how far the log was synced when
// it was written. Damage in the very last group of batches has neither, and is
// taken for an end.
//
// What is lost is in the middle: later changes are there, so a count may have gone
// back, and a position may stand behind what it stands for. That is noted (lossFile)
// before the mended log is there, and stays so until those for whom it matters have
// begun anew: ChangesLost.
const damagedDir = "damaged"

// lossFile is there while changes are lost.
const lossFile = "changes-lost"

// ChangesLost reports whether changes that were durable are gone though later ones are
// there. It stays so, over restarts, until LossHandled.
func (j *Journal) ChangesLost() bool { return j.changesLost.Load() }

// LossHandled says that all whose records cannot do without a change have begun anew.
func (j *Journal) LossHandled() error {
	if !j.changesLost.Load() {
		return nil
	}
	if err := j.gate.enter(); err != nil {
		return err
	}
	defer j.gate.leave()
	if err := errors.Join(j.fs.Remove(filepath.Join(j.dir, lossFile)), syncDirs(j.fs, j.dir)); err != nil {
		return fmt.Errorf("remove the note of what is lost: %w", err)
	}
	j.changesLost.Store(false)
	return nil
}

// findLoss reads whether changes are lost.
func (j *Journal) findLoss() error {
	_, err := j.fs.Stat(filepath.Join(j.dir, lossFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	j.changesLost.Store(err == nil)
	return err
}

func noteLoss(fs vfs.FS, dir string) error {
	f, err := fs.Create(filepath.Join(dir, lossFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return f.Close()
}

// markByte begins a mark in the log: data that the engine passes over.
const markByte = 's'

func appendMark(b []byte, synced uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, markByte), synced)
}

// logRecord is one batch in a log.
type logRecord struct {
	first, end uint64 // sequence numbers of its entries
	gap        int64  // offset of what is missing before it, or -1
}

// logFile is what was found in a log.
type logFile struct {
	path    string
	number  uint32
	records []logRecord
	gaps    bool   // before some record
	tail    int64  // offset of what is behind the last record and was meant to be one, or -1
	synced  int64  // by its chunks: synced up to this offset
	marked  uint64 // by its marks: synced up to this sequence number
}

// mendLogs makes the logs of a journal that is not open readable again.
func mendLogs(c Config, j *Journal) error {
	fs := newGuard(j, c)
	names, err := fs.List(c.Dir)
	if err != nil {
		return err
	}
	oldest := oldestLog(fs, c.Dir)
	var logs []logFile
	for _, name := range names {
		number, index, ok := wal.ParseLogFilename(name)
		if !ok || index != 0 || uint64(number) < oldest {
			continue
		}
		log, err := readLog(fs, filepath.Join(c.Dir, name), uint32(number), false)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if len(log.records) > 0 || log.tail >= 0 {
			logs = append(logs, log)
		}
	}
	slices.SortFunc(logs, func(a, b logFile) int { return int(a.number) - int(b.number) })
	for i, log := range logs {
		last := i == len(logs)-1
		if !log.gaps && (last || log.tail < 0) {
			if log.tail >= 0 {
				j.tellEnd(log.path, log.tail)
			}
			continue
		}
		if err := j.mendLog(fs, log, last); err != nil {
			return fmt.Errorf("mend %s: %w", log.path, err)
		}
	}
	return nil
}

func (j *Journal) tellEnd(path string, offset int64) {
	j.log.Warn("the journal's log ends in a batch that is not whole, as a crash leaves it: "+
		"nothing in it was acknowledged", "path", path, "offset", offset)
}

// readLog reads what is in a log, the marks only when asked to.
func readLog(fs vfs.FS, path string, number uint32, marks bool) (logFile, error) {
	log := logFile{path: path, number: number, tail: -1}
	f, err := fs.Open(path)
	if err != nil {
		return log, err
	}
	defer f.Close()
	s := newLogScanner(f, number)
	for {
		err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return log, err
		}
		head, ok := batchrepr.ReadHeader(s.record)
		if !ok {
			return log, fmt.Errorf("a batch of %d bytes: %w", len(s.record), ErrCorrupt)
		}
		log.gaps = log.gaps || s.gap >= 0
		log.records = append(log.records, logRecord{
			first: uint64(head.SeqNum), end: uint64(head.SeqNum) + uint64(head.Count), gap: s.gap,
		})
		if marks {
			log.marked = max(log.marked, markIn(s.record))
		}
	}
	if s.torn {
		log.tail = s.gap
	}
	log.synced = s.synced
	return log, nil
}

// markIn returns the mark in a batch, or 0.
func markIn(record []byte) uint64 {
	for r := batchrepr.Read(record); ; {
		kind, data, _, ok, err := r.Next()
		if !ok || err != nil {
			return 0
		}
		if kind == pebble.InternalKeyKindLogData && len(data) == 9 && data[0] == markByte {
			return binary.BigEndian.Uint64(data[1:])
		}
	}
}

// mendLog puts a log without damage in the place of one with it.
func (j *Journal) mendLog(fs vfs.FS, log logFile, last bool) error {
	if last {
		var err error
		if log, err = readLog(fs, log.path, log.number, true); err != nil {
			return err
		}
	}
	keep, places, lost := log.judge(last)
	if places == 0 { // an end, which the engine finds by itself
		j.tellEnd(log.path, log.firstGap())
		return nil
	}
	kept := filepath.Join(filepath.Dir(log.path), damagedDir, filepath.Base(log.path))
	if err := fs.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return err
	}
	if err := fs.Link(log.path, kept); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := noteLoss(fs, filepath.Dir(log.path)); err != nil {
		return err
	}
	if err := syncDirs(fs, filepath.Dir(kept), filepath.Dir(log.path)); err != nil {
		return err
	}
	mended := log.path + ".mended"
	if err := rewriteLog(fs, log, mended, keep); err != nil {
		return err
	}
	if err := fs.Rename(mended, log.path); err != nil {
		return err
	}
	if err := syncDirs(fs, filepath.Dir(log.path)); err != nil {
		return err
	}
	j.metrics.damage.WithLabelValues("log").Add(float64(places))
	j.log.Error("the journal's log was damaged: what can be read of it goes on. Look at the disk. "+
		"Acknowledged messages may be lost, delivered ones sent again: what they were is in the copy",
		"path", log.path, "copy", kept, "places", places, "first_offset", log.firstGap(), "changes_lost", lost)
	return nil
}

// judge says how many records to keep, how many places are damaged, and how many
// changes are lost in them. Once part of what is missing was synced, all that can
// be read behind is kept: it may have been acknowledged. The last log ends where
// nothing says so. At the front of a log only its own chunks can: the marks there
// may be about the log before.
func (log logFile) judge(last bool) (keep, places int, lost uint64) {
	end := uint64(0)
	for i, r := range log.records {
		if r.gap >= 0 {
			synced := log.synced > r.gap+chunkHeadBytes || log.marked >= r.first || i > 0 && log.marked > end
			if last && !synced {
				return i, places, lost
			}
			places++
			if i > 0 && r.first > end {
				lost += r.first - end
			}
		}
		end = r.end
	}
	if !last && log.tail >= 0 {
		places++
	}
	return len(log.records), places, lost
}

func (log logFile) firstGap() int64 {
	for _, r := range log.records {
		if r.gap >= 0 {
			return r.gap
		}
	}
	return log.tail
}

// rewriteLog writes the first keep records of a log to path, and syncs it.
func rewriteLog(fs vfs.FS, log logFile, path string, keep int) (err error) {
	in, err := fs.Open(log.path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	s, w := newLogScanner(in, log.number), &logChunks{out: out, number: log.number}
	for range keep {
		if err := s.next(); err != nil {
			return err
		}
		if err := w.write(s.record); err != nil {
			return err
		}
	}
	return out.Sync()
}

func syncDirs(fs vfs.FS, dirs ...string) error {
	for _, dir := range dirs {
		f, err := fs.OpenDir(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

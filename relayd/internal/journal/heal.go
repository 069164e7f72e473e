package journal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The engine never gets rid of a damaged table: what would merge it with others has to
// read it, so the levels above it grow for ever. heal cuts such tables out when the
// journal is opened, before anybody else uses it. Of the whole range of keys of a
// damaged table it writes what can be read, as all tables together show it, into new
// tables, with a mark (lost.go) over each place of which that cannot be told. Then one
// change of the manifest puts them in the place of all that was in the range: a crash
// leaves what was there before or what is there after. Everything that could be read
// can still be read, everything else is ErrCorrupt as before. Nothing old comes back: a
// key of a damaged place is taken over only if the engine finds it, or that it was
// deleted, in tables that are newer than the damaged one.
//
// That a table is damaged is known from its link in Dir/damaged, made when the damage
// was met. It stays there as the copy for humans until another heal. While there is
// such a table in the store nothing is merged: at damage behind certain keys the engine
// panics where nobody can recover, at every start anew.

// healingPrefix begins the names of new tables that are not the engine's yet.
const healingPrefix = "healing-"

// healMargin is what must stay free on the disk besides the new tables.
const healMargin = 64 << 20

// keepDamaged links a damaged table, which says that it is to be healed.
func (j *Journal) keepDamaged(fs vfs.FS, path string) {
	kept := filepath.Join(filepath.Dir(path), damagedDir)
	err := fs.MkdirAll(kept, 0o700)
	if err == nil {
		err = fs.Link(path, filepath.Join(kept, filepath.Base(path)))
	}
	if err == nil {
		err = syncDirs(fs, kept, filepath.Dir(path))
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		j.log.Warn("a damaged table of the journal cannot be noted, so the next start will not heal it", "path", path, "err", err)
	}
}

// hasDamaged reports whether a noted table may belong to the store.
func hasDamaged(fs vfs.FS, dir string) bool {
	kept, err := fs.List(filepath.Join(dir, damagedDir))
	return err == nil && slices.ContainsFunc(kept, func(name string) bool {
		_, err := fs.Stat(filepath.Join(dir, name))
		return err == nil && strings.HasSuffix(name, ".sst")
	})
}

// damagedSpan is a range of keys to be written anew.
type damagedSpan struct {
	start, end []byte
	tables     []string // the damaged ones
	bytes      uint64   // at most, of the new ones
}

func (s damagedSpan) overlaps(t pebble.SSTableInfo) bool {
	return bytes.Compare(t.Smallest.UserKey, s.end) < 0 && bytes.Compare(s.start, tableEnd(t)) < 0
}

// tableEnd is the first key behind a table.
func tableEnd(t pebble.SSTableInfo) []byte {
	if t.Largest.IsExclusiveSentinel() {
		return t.Largest.UserKey
	}
	return append(bytes.Clone(t.Largest.UserKey), 0)
}

// heal cuts out the damaged tables that were met so far. What keeps it from that is
// told, and the journal goes on around the damage; an error is one of the marks.
func (j *Journal) heal(fs vfs.FS, dir string, unmerged bool) (err error) {
	defer recoverAs(&err)
	held := j.compactions.isHeld() // else no damage was known as the engine began to merge
	if err = removeHealing(fs, dir); err == nil && held {
		err = j.cutOutAll(fs, dir)
	}
	if err != nil {
		j.log.Warn("the journal is not healed: it goes on around the damage and merges no tables, so reading becomes slower in the "+
			"course of days. The next start tries again", "err", err)
	} else if held && !unmerged {
		j.pressure.damage.Store(false)
		j.compactions.resume()
	}
	lost, err := j.firstLost(nil, nil)
	j.lost = lost != nil || errors.Is(err, ErrCorrupt)
	if errors.Is(err, ErrCorrupt) {
		return nil // a mark cannot be read; who reads there hears so
	}
	return err
}

func (j *Journal) cutOutAll(fs vfs.FS, dir string) error {
	healed := map[string]bool{}
	for {
		spans, noted, err := j.damagedSpans(fs, dir)
		if err == nil && len(spans) > 0 {
			if err = room(fs, dir, spans); err == nil {
				err = j.db.Flush() // then all keys are in tables: see keysOf
			}
			if err == nil {
				spans, noted, err = j.damagedSpans(fs, dir)
			}
		}
		if err != nil {
			return err
		}
		if len(spans) == 0 {
			break
		}
		for _, s := range spans {
			if slices.ContainsFunc(s.tables, func(name string) bool { return healed[name] }) {
				return fmt.Errorf("%v are still there", s.tables)
			}
			if err = j.cutOut(fs, dir, s); err != nil {
				break
			}
			for _, name := range s.tables {
				healed[name] = true
			}
		}
		if err != nil {
			// It may have met further damage, which is then a part of the next try.
			if _, now, again := j.damagedSpans(fs, dir); again != nil || now == noted {
				return errors.Join(err, removeHealing(fs, dir))
			}
		}
	}
	if len(healed) > 0 {
		j.dropKept(fs, dir, healed)
	}
	return nil
}

// damagedSpans are the ranges of the noted tables that belong to the store, and how
// many tables are noted.
func (j *Journal) damagedSpans(fs vfs.FS, dir string) (spans []damagedSpan, noted int, err error) {
	kept, err := fs.List(filepath.Join(dir, damagedDir))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(kept) == 0 {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	tables, err := j.tables()
	if err != nil {
		return nil, 0, err
	}
	for _, t := range tables {
		if name := t.BackingSSTNum.String() + ".sst"; slices.Contains(kept, name) {
			spans = append(spans, damagedSpan{start: t.Smallest.UserKey, end: tableEnd(t), tables: []string{name}})
		}
	}
	for i := range spans {
		spans[i].widen(tables)
	}
	return merge(spans), len(kept), nil
}

// widen makes a span end between tables.
func (s *damagedSpan) widen(tables []pebble.SSTableInfo) {
	for grown := true; grown; {
		grown, s.bytes = false, 0
		for _, t := range tables {
			if !s.overlaps(t) {
				continue
			}
			s.bytes += t.Size
			if bytes.Compare(t.Smallest.UserKey, s.start) < 0 {
				s.start, grown = t.Smallest.UserKey, true
			}
			if end := tableEnd(t); bytes.Compare(s.end, end) < 0 {
				s.end, grown = end, true
			}
		}
	}
}

// merge joins the spans that are the same: wide ones are, or do not overlap.
func merge(spans []damagedSpan) (merged []damagedSpan) {
	for _, s := range spans {
		i := slices.IndexFunc(merged, func(m damagedSpan) bool { return bytes.Equal(m.start, s.start) })
		if i < 0 {
			merged = append(merged, s)
		} else {
			merged[i].tables = append(merged[i].tables, s.tables...)
		}
	}
	return merged
}

// room is an error if the disk has none for the new tables.
func room(fs vfs.FS, dir string, spans []damagedSpan) error {
	usage, err := fs.GetDiskUsage(dir)
	need := uint64(healMargin)
	for _, s := range spans {
		need += s.bytes
	}
	if err == nil && usage.AvailBytes < need {
		return fmt.Errorf("%d bytes are free on the disk, %d are needed", usage.AvailBytes, need)
	}
	return nil
}

func (j *Journal) tables() (all []pebble.SSTableInfo, err error) {
	levels, err := j.db.SSTables()
	return slices.Concat(levels...), err
}

// cutOut puts what can be read of a span in the place of it.
func (j *Journal) cutOut(fs vfs.FS, dir string, s damagedSpan) error {
	j.log.Warn("healing the journal: tables are written anew without the damaged ones", "damaged", s.tables,
		"from_key", fmt.Sprintf("%q", s.start), "to_key", fmt.Sprintf("%q", s.end), "at_most_bytes", s.bytes)
	c := &healingCopy{j: j, fs: fs, dir: dir, span: s}
	if err := c.write(); err != nil {
		return errors.Join(err, c.abandon())
	}
	_, err := j.db.IngestAndExcise(context.Background(), c.paths, nil, nil, pebble.KeyRange{Start: s.start, End: s.end})
	if err = cmp.Or(j.Err(), err); err != nil {
		return err
	}
	places := []string{}
	for _, l := range c.lost[:min(len(c.lost), 10)] {
		places = append(places, fmt.Sprintf("%q to %q", l.from, l.to))
	}
	j.log.Error("the journal is healed: damaged tables are cut out, and all that could be read is kept. What was in the lost "+
		"places stays unknown until its owner writes it anew. Look at the disk", "damaged", s.tables,
		"copies", filepath.Join(dir, damagedDir), "keys", c.keys, "bytes", c.bytes, "lost_places", len(c.lost), "first_lost", places)
	return nil
}

// removeHealing removes the new tables that a crash has left.
func removeHealing(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	for _, name := range names {
		if strings.HasPrefix(name, healingPrefix) {
			err = errors.Join(err, fs.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

// dropKept keeps of the copies of damaged tables those of this heal, so that they do
// not fill the disk in the course of years, and those that were noted meanwhile, of
// tables that the next start heals.
func (j *Journal) dropKept(fs vfs.FS, dir string, healed map[string]bool) {
	kept := filepath.Join(dir, damagedDir)
	names, err := fs.List(kept)
	for _, name := range names {
		if _, gone := fs.Stat(filepath.Join(dir, name)); gone != nil && strings.HasSuffix(name, ".sst") && !healed[name] {
			err = errors.Join(err, fs.Remove(filepath.Join(kept, name)))
		}
	}
	if err != nil {
		j.log.Warn("copies of damaged tables were not removed", "err", err)
	}
}

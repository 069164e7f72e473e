package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// healingTableBytes is the size of keys and values in one new table.
const healingTableBytes = 64 << 20

// healingCopy writes what can be read of a span into new tables.
type healingCopy struct {
	j    *Journal
	fs   vfs.FS
	dir  string
	span damagedSpan

	marks []lostError // of earlier heals
	lost  []lostError // found now, in order
	paths []string
	keys  int
	bytes uint64

	w      *sstable.Writer // nil between tables
	filled uint64          // bytes in w
	from   []byte          // where its range begins
}

func (c *healingCopy) write() error {
	c.from = c.span.start
	if err := c.findMarks(); err != nil {
		return err
	}
	err := c.j.ScanAround(c.span.start, c.span.end, c.set, func(from, to []byte, _ error) error {
		from, to = bytes.Clone(from), bytes.Clone(to)
		c.lost = append(c.lost, lostError{from, to})
		return c.salvage(from, to)
	})
	if err != nil {
		return err
	}
	return c.finish(c.span.end)
}

// findMarks reads the marks of earlier heals, which hold on. Where that cannot be done
// all may be lost.
func (c *healingCopy) findMarks() error {
	for from := c.span.start; ; {
		lost, err := c.j.firstLost(from, c.span.end)
		if errors.Is(err, ErrCorrupt) {
			c.marks = []lostError{{c.span.start, c.span.end}}
			return nil
		}
		if err != nil || lost == nil {
			return err
		}
		c.marks = append(c.marks, *lost)
		from = lost.to
	}
}

func (c *healingCopy) set(key, value []byte) error {
	if c.w != nil && c.filled > healingTableBytes {
		if err := c.finish(bytes.Clone(key)); err != nil {
			return err
		}
		c.j.log.Info("healing the journal", "keys", c.keys, "bytes", c.bytes, "at_most_bytes", c.span.bytes)
	}
	if err := c.begin(); err != nil {
		return err
	}
	c.keys++
	c.bytes += uint64(len(key) + len(value))
	c.filled += uint64(len(key) + len(value))
	return c.w.Set(key, value)
}

// begin begins a new table, unless one is begun.
func (c *healingCopy) begin() error {
	if c.w != nil {
		return nil
	}
	path := filepath.Join(c.dir, fmt.Sprintf("%s%06d", healingPrefix, len(c.paths)))
	f, err := c.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	c.paths = append(c.paths, path)
	c.filled = 0
	c.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{
		TableFormat: engineFormat.MaxTableFormat(), Compression: sstable.SnappyCompression,
	})
	return nil
}

// finish ends the table before a key, with the marks that are due.
func (c *healingCopy) finish(before []byte) error {
	for _, l := range union(c.marks, c.lost) {
		from, to := l.from, l.to
		if bytes.Compare(from, c.from) < 0 {
			from = c.from
		}
		if bytes.Compare(before, to) < 0 {
			to = before
		}
		if bytes.Compare(from, to) >= 0 {
			continue
		}
		if err := c.begin(); err != nil {
			return err
		}
		if err := mark(c.w, from, to); err != nil {
			return err
		}
	}
	c.from = before
	if c.w == nil {
		return nil
	}
	w := c.w
	c.w = nil
	return w.Close() // syncs
}

// union merges ranges that overlap.
func union(a, b []lostError) (all []lostError) {
	both := slices.Concat(a, b)
	slices.SortFunc(both, func(a, b lostError) int { return bytes.Compare(a.from, b.from) })
	for _, l := range both {
		if last := len(all) - 1; last >= 0 && bytes.Compare(l.from, all[last].to) <= 0 {
			if bytes.Compare(all[last].to, l.to) < 0 {
				all[last].to = l.to
			}
			continue
		}
		all = append(all, l)
	}
	return all
}

// abandon closes the table under way.
func (c *healingCopy) abandon() error {
	if c.w != nil {
		_ = c.w.Close()
	}
	return removeHealing(c.fs, c.dir)
}

// salvage takes over what a scan did not see between two keys, and what can be read by
// itself: keys that newer tables have, and whole blocks between two damaged ones.
func (c *healingCopy) salvage(from, to []byte) error {
	keys, err := c.keysOf(from, to)
	if err != nil {
		return err
	}
	for _, key := range keys {
		value, err := c.j.Get(key)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
			continue
		}
		if err == nil {
			err = c.set(key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keysOf are all keys in a range of which a table tells, existing or not.
func (c *healingCopy) keysOf(from, to []byte) (keys [][]byte, err error) {
	tables, err := c.j.tables()
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if !(damagedSpan{start: from, end: to}).overlaps(t) {
			continue
		}
		found, err := tableKeys(c.fs, filepath.Join(c.dir, t.BackingSSTNum.String()+".sst"), from, to)
		if err != nil && !pebble.IsCorruptionError(err) {
			return nil, err
		}
		keys = append(keys, found...)
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), nil
}

// tableKeys are the keys of a table in a range, as far as they can be read.
func tableKeys(fs vfs.FS, path string, from, to []byte) (keys [][]byte, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return nil, err // it has closed the file
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	layout, err := r.Layout()
	if err != nil {
		return nil, err
	}
	// The first block that has a key from the range, as far as blocks can be read.
	first := sort.Search(len(layout.Data), func(i int) bool {
		for ; i < len(layout.Data); i++ {
			if in := blockKeys(r, layout, i); len(in) > 0 {
				return bytes.Compare(from, in[len(in)-1]) <= 0
			}
		}
		return true
	})
	for i := first; i < len(layout.Data); i++ {
		for _, key := range blockKeys(r, layout, i) {
			if bytes.Compare(to, key) <= 0 {
				return keys, nil
			}
			if bytes.Compare(from, key) <= 0 {
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// blockKeys are the keys of one block of a table, none if it is damaged. The engine
// reads single blocks only to describe them.
func blockKeys(r *sstable.Reader, of *sstable.Layout, i int) (keys [][]byte) {
	one := &sstable.Layout{Data: of.Data[i : i+1], Format: of.Format}
	_ = one.Describe(true, r, func(key *pebble.InternalKey, _ []byte) string {
		keys = append(keys, bytes.Clone(key.UserKey))
		return ""
	})
	return keys
}

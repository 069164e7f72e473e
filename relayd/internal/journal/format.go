package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// formatKeys say which format the store has, both the same: they lie so far apart
// that no table holds both, and one that is damaged keeps nothing else from being
// read. Releases before knew the first one only.
var formatKeys = [][]byte{[]byte("\x00format"), []byte("~format")}

// upgrade turns a journal of one format into one of the next. A kill may end it
// anywhere, and it then runs again from its beginning: each of its batches must
// leave what the old format allows, or what running it again puts right.
type upgrade func(*Journal) error

// upgrades are the steps from format 1 to the present one. A format is raised
// when a release before could misread what this one writes.
//
//	2  values may be appended to (Batch.Append), the log bears marks, and
//	   envelopes are no longer JSON: nothing to rewrite, old ones can be read
func upgrades() []upgrade {
	return []upgrade{
		func(*Journal) error { return nil },
	}
}

// checkFormat stamps a new store, brings an old one to the present format, and
// refuses one from the future.
func (j *Journal) checkFormat(steps []upgrade) error {
	present := uint32(len(steps) + 1)
	found, whole, err := j.format()
	if errors.Is(err, ErrNotFound) {
		return j.stamp(present)
	}
	if err != nil {
		return err
	}
	if found > present || found == 0 {
		return fmt.Errorf("format version %d, this release reads up to %d: %w: "+
			"it was written by a newer release: start that one again", found, present, ErrFormat)
	}
	if !whole && found == present {
		return j.stamp(present)
	}
	for version := found; version < present; version++ {
		if err := steps[version-1](j); err != nil {
			return fmt.Errorf("upgrade from format version %d: %w", version, err)
		}
		if err := j.stamp(version + 1); err != nil {
			return fmt.Errorf("upgrade from format version %d: %w", version, err)
		}
		j.log.Info("journal upgraded", "format", version+1)
	}
	return nil
}

// format reads which format the store has. It is not whole if that is not said
// everywhere; ErrNotFound is of a new store.
func (j *Journal) format() (version uint32, whole bool, err error) {
	said := false
	whole = true
	var missing, damaged error
	for _, key := range formatKeys {
		value, err := j.Get(key)
		switch {
		case err == nil && len(value) == 4:
			said, version = true, max(version, binary.BigEndian.Uint32(value))
			continue
		case err == nil:
			damaged = fmt.Errorf("format version has %d bytes: %w", len(value), ErrCorrupt)
		case errors.Is(err, ErrNotFound):
			missing = err
		case errors.Is(err, ErrCorrupt):
			damaged = err
		default:
			return 0, false, err
		}
		whole = false
	}
	if !said {
		return 0, false, firstOf(damaged, missing)
	}
	return version, whole, nil
}

// stamp says durably which format the store has.
func (j *Journal) stamp(version uint32) error {
	b := j.NewBatch()
	for _, key := range formatKeys {
		b.Set(key, binary.BigEndian.AppendUint32(nil, version))
	}
	return j.Commit(b)
}

package journal

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// Where heal has cut a damaged place out, a mark over its range of keys says that
// they are lost. Reading then answers as it did at the damage: ErrCorrupt, and not
// that there is nothing, since "no lease" or "no number" would be taken for the
// truth. A mark is a range key of the engine without a suffix. It goes where a
// DeleteRange goes over it; a key that is Set in it can be got, and is not met by
// scans. A release before heal takes what is lost for missing.

// lostError is ErrCorrupt for the keys from <= key < to.
type lostError struct{ from, to []byte }

// Error implements error.
func (e *lostError) Error() string {
	return fmt.Sprintf("%s: keys from %q to %q were in a damaged table", ErrCorrupt, e.from, e.to)
}

// Unwrap lets errors.Is find ErrCorrupt.
func (e *lostError) Unwrap() error { return ErrCorrupt }

// mark says in a table that the keys from <= key < to are lost.
func mark(w *sstable.Writer, from, to []byte) error { return w.RangeKeySet(from, to, nil, nil) }

// newIter reads keys, and the marks if there are any.
func (j *Journal) newIter(start, end []byte) (*pebble.Iterator, error) {
	o := &pebble.IterOptions{LowerBound: start, UpperBound: end}
	if j.lost {
		o.KeyTypes = pebble.IterKeyTypePointsAndRanges
	}
	return j.db.NewIter(o)
}

// lostAt is the mark over the place of an iterator, or nil.
func lostAt(it *pebble.Iterator) *lostError {
	if _, lost := it.HasPointAndRange(); !lost {
		return nil
	}
	from, to := it.RangeBounds()
	return &lostError{append([]byte(nil), from...), append([]byte(nil), to...)}
}

// firstLost is the first mark in a range, cut to it, or nil.
func (j *Journal) firstLost(start, end []byte) (*lostError, error) {
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end, KeyTypes: pebble.IterKeyTypeRangesOnly})
	if err != nil {
		return nil, engineError(err)
	}
	var lost *lostError
	if it.First() {
		lost = lostAt(it)
	}
	return lost, engineError(it.Close())
}

// missing is what to answer of a key for which the engine has err.
func (j *Journal) missing(key []byte, err error) error {
	err = engineError(err)
	if !errors.Is(err, ErrNotFound) || !j.lost {
		return err
	}
	lost, damage := j.firstLost(key, append(append([]byte(nil), key...), 0))
	if damage != nil {
		return damage
	}
	if lost != nil {
		return lost
	}
	return err
}

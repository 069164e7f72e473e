package journal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Get returns a copy of key's value, or ErrNotFound; ErrCorrupt where damage hides
// whether there is one. It sees every batch that has its place in the log, durable
// or not yet.
func (j *Journal) Get(key []byte) ([]byte, error) {
	if err := j.gate.enter(); err != nil {
		return nil, err
	}
	defer j.gate.leave()
	value, closer, err := j.db.Get(key)
	if err != nil {
		return nil, j.missing(key, err)
	}
	defer closer.Close()
	return bytes.Clone(value), nil
}

// Has reports whether key exists.
func (j *Journal) Has(key []byte) (bool, error) {
	if err := j.gate.enter(); err != nil {
		return false, err
	}
	defer j.gate.leave()
	_, closer, err := j.db.Get(key)
	if err != nil {
		if err = j.missing(key, err); errors.Is(err, ErrNotFound) {
			err = nil
		}
		return false, err
	}
	return true, closer.Close()
}

// Scan calls fn for every key that begins with prefix, in byte order, over the
// state at the moment of the call. The slices are valid during fn only. An
// error of fn ends the scan and is returned; ErrStop ends it without one.
func (j *Journal) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return j.ScanFrom(prefix, prefixEnd(prefix), fn)
}

// ScanFrom is Scan over the keys start <= key < end. A nil end means no end.
func (j *Journal) ScanFrom(start, end []byte, fn func(key, value []byte) error) error {
	if err := j.gate.enter(); err != nil {
		return err
	}
	defer j.gate.leave()
	it, err := j.newIter(start, end)
	if err != nil {
		return engineError(err)
	}
	lost, err := scan(it, fn)
	if lost != nil {
		err = lost
	}
	return errors.Join(err, engineError(it.Close()))
}

// scan ends at what is lost, at damage, which Close of the iterator reports, or with
// an error of fn.
func scan(it *pebble.Iterator, fn func(key, value []byte) error) (*lostError, error) {
	for ok := it.First(); ok; ok = it.Next() {
		if lost := lostAt(it); lost != nil {
			return lost, nil
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, nil
		}
		err = fn(it.Key(), value)
		if errors.Is(err, ErrStop) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Last returns a copy of the greatest key that begins with prefix, or
// ErrNotFound.
func (j *Journal) Last(prefix []byte) ([]byte, error) {
	if err := j.gate.enter(); err != nil {
		return nil, err
	}
	defer j.gate.leave()
	it, err := j.newIter(prefix, prefixEnd(prefix))
	if err != nil {
		return nil, engineError(err)
	}
	key, err := []byte(nil), ErrNotFound
	if it.Last() {
		key, err = bytes.Clone(it.Key()), nil
		if lost := lostAt(it); lost != nil {
			key, err = nil, lost
		}
	}
	if err := it.Close(); err != nil {
		return nil, engineError(err)
	}
	return key, err
}

// prefixEnd is the first key after all keys with the prefix; nil when none is.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// engineError turns the engine's errors into ours.
func engineError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	default:
		return err
	}
}

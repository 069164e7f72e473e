package journal

import (
	"bytes"
	"math/big"

	"github.com/cockroachdb/pebble/v2"
)

// ScanAround is ScanFrom that does not end at damage: it tells bad that of the
// keys from <= key < to what is there cannot be told, and goes on behind; where
// nothing can be read any more, to is end. An error of fn or bad ends it.
func (j *Journal) ScanAround(start, end []byte, fn func(key, value []byte) error, bad func(from, to []byte, cause error) error) error {
	if err := j.gate.enter(); err != nil {
		return err
	}
	defer j.gate.leave()
	for from := start; ; {
		var own error // of fn
		last, seen := bytes.Clone(from), false
		it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: end})
		if err != nil {
			return engineError(err)
		}
		own = scan(it, func(key, value []byte) error {
			last, seen = append(last[:0], key...), true
			return fn(key, value)
		})
		err = it.Close()
		if own != nil || !pebble.IsCorruptionError(err) {
			return firstOf(own, engineError(err))
		}
		if seen {
			last = append(last, 0) // the first key after it
		}
		next, more := j.readableFrom(last, end)
		if err := bad(last, next, engineError(err)); err != nil || !more {
			return err
		}
		from = next
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// numberBytes is how much of a key counts when the end of a damaged place is
// searched; keys of the edge are shorter.
const numberBytes = 32

// readableFrom is the first key from which on reading is possible again: keys are
// taken for numbers, growing steps from the damage on find one, and halves find
// the first. There are few looks, since each at the damage takes the engine some
// 10 ms, in which it searches for the flipped bit. Without such a key it is end
// itself, as the caller gave it and not padded as a number is.
func (j *Journal) readableFrom(from, end []byte) (key []byte, more bool) {
	low, limit := number(from), number(end) // reading fails at low
	if end == nil {
		limit.Lsh(big.NewInt(1), 8*numberBytes)
	}
	high := new(big.Int)
	for step := uint(0); ; step += 8 {
		high.Add(low, new(big.Int).Lsh(big.NewInt(1), step))
		if high.Cmp(limit) >= 0 {
			high.Set(limit)
			break
		}
		if j.readable(high, end) {
			break
		}
		low.Set(high)
	}
	for {
		middle := new(big.Int).Add(low, high)
		middle.Rsh(middle, 1)
		if middle.Cmp(low) == 0 {
			if high.Cmp(limit) == 0 {
				return end, false
			}
			return high.FillBytes(make([]byte, numberBytes)), true
		}
		if j.readable(middle, end) {
			high = middle
		} else {
			low = middle
		}
	}
}

func number(key []byte) *big.Int {
	var padded [numberBytes]byte
	copy(padded[:], key)
	return new(big.Int).SetBytes(padded[:])
}

// readable reports whether the first key from at on can be read, or there is none.
func (j *Journal) readable(at *big.Int, end []byte) bool {
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: at.FillBytes(make([]byte, numberBytes)), UpperBound: end})
	if err != nil {
		return false
	}
	if it.First() {
		_, err = it.ValueAndErr()
	}
	return firstOf(err, it.Error(), it.Close()) == nil
}

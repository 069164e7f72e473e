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
		last, seen := bytes.Clone(from), false
		it, err := j.newIter(from, end)
		if err != nil {
			return engineError(err)
		}
		lost, own := scan(it, func(key, value []byte) error {
			last, seen = append(last[:0], key...), true
			return fn(key, value)
		})
		err = it.Close()
		if own != nil || lost == nil && !pebble.IsCorruptionError(err) {
			return firstOf(own, engineError(err))
		}
		var next []byte
		var more bool
		if lost != nil {
			last, next, more = lost.from, lost.to, end == nil || bytes.Compare(lost.to, end) < 0
			err = lost
		} else {
			if seen {
				last = append(last, 0) // the first key after it
			}
			next, more = j.readableFrom(last, end)
			err = engineError(err)
		}
		if err := bad(last, next, err); err != nil || !more {
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
	for n := 0; ; n++ {
		// A place often ends where only zeros follow, and without this look each
		// of them would take many at the damage.
		if round := roundDown(high, low); n%8 == 0 && round != nil && j.readable(round, end) {
			high = round
			if before := new(big.Int).Sub(round, big.NewInt(1)); !j.readable(before, end) {
				low.Set(before)
			}
		}
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

// roundDown is the number above low with the most zeros at its end that is below
// high; nil if there is none.
func roundDown(high, low *big.Int) *big.Int {
	bits := uint(new(big.Int).Xor(high, low).BitLen()) &^ 7 // bytes behind the first that differs
	round := new(big.Int).Rsh(high, bits)
	if round.Lsh(round, bits); round.Cmp(low) <= 0 || round.Cmp(high) == 0 {
		return nil
	}
	return round
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

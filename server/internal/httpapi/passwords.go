package httpapi

import (
	"context"
	"crypto/rand"
	"runtime"
	"strings"

	"golang.org/x/sync/semaphore"

	"activerelay/api/verifier"
)

// passwordAlphabet leaves out characters that people mistake for others: 0, 1, I, O, l, o.
const passwordAlphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"

// A generated password is six groups of four characters: 139 bits.
const (
	passwordGroups    = 6
	passwordGroupSize = 4
)

// hashing bounds how many passwords are hashed at once: each takes about 20 MB and 25 ms of one processor, so without
// a bound a burst of requests would take all of both.
type hashing struct{ slots *semaphore.Weighted }

func newHashing() hashing {
	return hashing{slots: semaphore.NewWeighted(max(1, int64(runtime.GOMAXPROCS(0))/2))}
}

// hash returns the verifier of a password, after waiting for its turn. It must not run inside a transaction, which would
// keep every other writer waiting too.
func (h hashing) hash(ctx context.Context, password string) (string, error) {
	if err := h.slots.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer h.slots.Release(1)
	return verifier.Hash(password, rand.Reader, verifier.DefaultCost())
}

// newPassword returns a strong password such as "kQ3v-9xWb-T7mz-Lp2s-Yc5d-Hn8f".
func newPassword() string {
	var b strings.Builder
	for i := range passwordGroups * passwordGroupSize {
		if i > 0 && i%passwordGroupSize == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(randomCharacter())
	}
	return b.String()
}

// randomCharacter throws away bytes that would make some characters likelier than others.
func randomCharacter() byte {
	const fair = 256 - 256%len(passwordAlphabet)
	var one [1]byte
	for {
		_, _ = rand.Read(one[:]) // never fails
		if int(one[0]) < fair {
			return passwordAlphabet[int(one[0])%len(passwordAlphabet)]
		}
	}
}

package smtpd

import (
	"sync"
	"time"
)

// buckets count events by key and say who has to wait: each key may do burst at
// once, and perMinute more each minute.
type buckets struct {
	burst, perMinute float64

	mu   sync.Mutex
	keys map[string]bucket
}

// bucket is what a key has left. It may go below zero: then that many are
// waiting.
type bucket struct {
	left float64
	at   time.Time
}

// maxBuckets bounds the memory. Beyond it the keys that are full again go; if
// none is, all go: forgiving everybody is better than growing for an attacker.
const maxBuckets = 100_000

// newBuckets lets each key do perMinute at once.
func newBuckets(perMinute int) *buckets {
	return &buckets{burst: float64(perMinute), perMinute: float64(perMinute), keys: map[string]bucket{}}
}

// newStrictBuckets lets no minute see more than most, wherever it begins: half of
// it may come at once, and half over the minute.
func newStrictBuckets(most int) *buckets {
	burst := (most + 1) / 2
	return &buckets{burst: float64(burst), perMinute: float64(max(most-burst, 1)), keys: map[string]bucket{}}
}

// take counts one event and returns how long it has to wait for its turn. Who
// will not wait gives it back.
func (b *buckets) take(key string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.filled(key, now)
	k.left--
	if _, known := b.keys[key]; !known && len(b.keys) >= maxBuckets {
		b.shrink(now)
	}
	b.keys[key] = k
	if k.left >= 0 {
		return 0
	}
	return time.Duration(-k.left / b.perMinute * float64(time.Minute))
}

// try counts one event if its turn is now.
func (b *buckets) try(key string, now time.Time) bool {
	if b.take(key, now) == 0 {
		return true
	}
	b.give(key, now)
	return false
}

// give takes an event back.
func (b *buckets) give(key string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.filled(key, now)
	k.left = min(k.left+1, b.burst)
	b.keys[key] = k
}

// filled is the bucket of key at now.
func (b *buckets) filled(key string, now time.Time) bucket {
	k, ok := b.keys[key]
	if !ok {
		return bucket{left: b.burst, at: now}
	}
	if since := now.Sub(k.at); since > 0 {
		k.left = min(k.left+since.Minutes()*b.perMinute, b.burst)
		k.at = now
	}
	return k
}

func (b *buckets) shrink(now time.Time) {
	for key := range b.keys {
		if b.filled(key, now).left >= b.burst {
			delete(b.keys, key)
		}
	}
	if len(b.keys) >= maxBuckets {
		clear(b.keys)
	}
}

package httpapi

import (
	"sync"
	"time"
)

// restFactor is how many times as long as it took to make an answer is good for: who asks again and again keeps at most a
// fifth of one processor busy.
const restFactor = 4

// recent keeps answers that are dear to make for a while that follows from what they cost, and makes each once for all who
// ask meanwhile. The zero value is empty.
type recent[T any] struct {
	mu      sync.Mutex
	answers map[string]*recentAnswer[T]
}

type recentAnswer[T any] struct {
	mu    sync.Mutex
	value T
	// until is when value is to be made again. Guarded by mu.
	until time.Time
}

// get returns the answer of a key, made anew by make where there is none that is good.
func (r *recent[T]) get(key string, make func() (T, error)) (T, error) {
	a := r.answer(key)
	a.mu.Lock()
	defer a.mu.Unlock()
	begun := time.Now()
	if begun.Before(a.until) {
		return a.value, nil
	}
	value, err := make()
	if err == nil {
		ended := time.Now()
		a.value, a.until = value, ended.Add(restFactor*ended.Sub(begun))
	}
	return value, err
}

// answer finds or makes the place of a key; places that are not good any more give way to a new one.
func (r *recent[T]) answer(key string) *recentAnswer[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.answers[key]; a != nil {
		return a
	}
	for key, a := range r.answers {
		if a.mu.TryLock() {
			if !time.Now().Before(a.until) {
				delete(r.answers, key)
			}
			a.mu.Unlock()
		}
	}
	if r.answers == nil {
		r.answers = map[string]*recentAnswer[T]{}
	}
	a := &recentAnswer[T]{}
	r.answers[key] = a
	return a
}

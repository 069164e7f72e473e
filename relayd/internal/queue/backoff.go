package queue

import "time"

// Backoff is the wait after a failed attempt, counted from 1: one minute,
// doubling to about an hour. Greylisting servers want a few minutes, RFC 5321
// 4.5.4.1 asks for half an hour at least once the first tries have failed.
// random in [0, 1) moves the result by up to a fifth either way, so that mail
// that failed together does not come back together.
func Backoff(attempt int, random float64) time.Duration {
	const (
		first   = time.Minute
		longest = 64 * time.Minute
	)
	wait := longest
	if attempt < 7 {
		wait = first << max(0, attempt-1)
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*random))
}

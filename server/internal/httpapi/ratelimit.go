package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"activerelay/api/problem"
)

// Bounds of the buckets that are remembered: forgetting one only makes its client a newcomer.
const (
	maxBuckets     = 100_000
	bucketIdleTime = 5 * time.Minute
)

// burstSeconds is how many seconds' worth of requests may come at once.
const burstSeconds = 6

// rateLimits holds one token bucket for each key, an address or a token id, in this process.
type rateLimits struct {
	perSecond rate.Limit
	burst     int
	now       func() time.Time

	mu      sync.Mutex
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	limiter *rate.Limiter
	used    time.Time
}

func newRateLimits(perSecond float64, now func() time.Time) *rateLimits {
	return &rateLimits{
		perSecond: rate.Limit(perSecond), burst: max(1, int(math.Ceil(perSecond*burstSeconds))), now: now,
		buckets: map[string]*bucket{},
	}
}

// take spends one request of a key. It returns what is left, and how long to wait where nothing was.
func (l *rateLimits) take(key string) (left int, wait time.Duration) {
	now := l.now()
	limiter := l.bucket(key, now)
	if limiter.AllowN(now, 1) {
		return int(limiter.TokensAt(now)), 0
	}
	missing := 1 - limiter.TokensAt(now)
	return 0, time.Duration(missing / float64(l.perSecond) * float64(time.Second))
}

func (l *rateLimits) bucket(key string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[key]
	if !known {
		l.sweep(now)
		b = &bucket{limiter: rate.NewLimiter(l.perSecond, l.burst)}
		l.buckets[key] = b
	}
	b.used = now
	return b.limiter
}

// sweep forgets idle keys now and then, and all of them when there are too many.
func (l *rateLimits) sweep(now time.Time) {
	if len(l.buckets) >= maxBuckets {
		clear(l.buckets)
	}
	if now.Sub(l.swept) < bucketIdleTime {
		return
	}
	l.swept = now
	for key, b := range l.buckets {
		if now.Sub(b.used) > bucketIdleTime {
			delete(l.buckets, key)
		}
	}
}

// LimitByAddress bounds how many requests one client address may make before it is known who they are from: four times
// what one token may, because many tokens may share an address.
func (a *API) LimitByAddress(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if _, wait := a.addressLimits.take(c.RealIP()); wait > 0 {
			return problem.RateLimited(wait)
		}
		return next(c)
	}
}

// LimitByPrincipal bounds how many requests one token may make and says in each reply how many are left.
func (a *API) LimitByPrincipal(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := PrincipalFrom(c.Request().Context()).TokenID
		if id == "" {
			return next(c)
		}
		left, wait := a.limits.take(id)
		a.limits.describe(c.Response().Header(), left)
		if wait > 0 {
			return problem.RateLimited(wait)
		}
		return next(c)
	}
}

// describe writes the fields of draft-ietf-httpapi-ratelimit-headers: the policy, and what is left of it.
func (l *rateLimits) describe(header http.Header, left int) {
	full := math.Ceil(float64(l.burst-left) / float64(l.perSecond))
	header.Set("RateLimit-Policy", fmt.Sprintf(`"token";q=%d;w=%d`, l.burst, burstSeconds))
	header.Set("RateLimit", fmt.Sprintf(`"token";r=%d;t=%d`, left, int(full)))
}

package httpapi

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"activerelay/api/rest"
	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
)

// Config is what the API works with.
type Config struct {
	Store *store.Store
	// Publisher answers the policy polls of edges; its Run has to run beside the API.
	Publisher *publish.Publisher
	Log       *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// SecretsKey is the installation's 32-byte key, the same in all replicas. Page tokens and kept replies are bound to
	// it, and route passwords are sealed under it.
	SecretsKey [32]byte
	// Metrics is where this process's metrics are kept and read.
	Metrics *prometheus.Registry
	// Version is what health replies say.
	Version string
	// RequestsPerSecond is how many requests one token may make a second, on average; six seconds' worth may come at
	// once. One client address may make four times as many, with all its tokens. 0 means 200.
	RequestsPerSecond float64
	// TrustedProxies are the addresses whose X-Forwarded-For is believed. Empty means none.
	TrustedProxies []netip.Prefix
	// BodyTimeout is how long a request body may take. 0 means 15 seconds.
	BodyTimeout time.Duration
}

// API implements the operations of the contract. Its methods are safe for concurrent use.
type API struct {
	Config

	contract              *contract
	limits, addressLimits *rateLimits
	metrics               *metrics
	hashing               hashing
	queueSummaries        recent[queueSummary]
}

// Every operation of the contract exists.
var _ rest.StrictServerInterface = (*API)(nil)

// New checks the contract and returns the API. An operation without a declared scope or role is an error.
func New(config Config) (*API, error) {
	if config.Store == nil || config.Publisher == nil || config.Log == nil || config.Metrics == nil {
		return nil, errors.New("the API needs a store, a publisher, a logger and a metrics registry")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.RequestsPerSecond == 0 {
		config.RequestsPerSecond = 200
	}
	if config.BodyTimeout == 0 {
		config.BodyTimeout = 15 * time.Second
	}
	contract, err := loadContract()
	if err != nil {
		return nil, err
	}
	return &API{
		Config:        config,
		contract:      contract,
		limits:        newRateLimits(config.RequestsPerSecond, config.Now),
		addressLimits: newRateLimits(4*config.RequestsPerSecond, config.Now),
		metrics:       newMetrics(config.Metrics),
		hashing:       newHashing(),
	}, nil
}

// newID returns a random id with the prefix of its kind, e.g. "rip_01KAQ7M2Z8Y3F6N5T4R1W0X9VB". Ids of one kind sort by
// the time they were made.
func newID(prefix string, now time.Time) string { return prefix + newULID(now).String() }

func newULID(now time.Time) ulid.ULID {
	return ulid.MustNew(ulid.Timestamp(now), rand.Reader) // crypto/rand never fails
}

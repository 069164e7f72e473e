package relayd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"activerelay/api/admit"
	"activerelay/relayd/internal/admin"
	"activerelay/relayd/internal/policysync"
	"activerelay/relayd/internal/scan"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// scannerPingEvery is how often a scanner is asked whether it is there.
// While it is down the edge is not ready, so a balancer may send no mail that would
// find out that it is back; and within five seconds of its return mail is to pass.
const scannerPingEvery = 2 * time.Second

// health is what monitoring is told.
type health struct {
	config  Config
	disk    *disk
	policy  *policysync.Syncer
	view    func() admit.View
	scanner *scan.Clamd // nil = none

	accepting atomic.Bool // mail is accepted now
	stranger  atomic.Bool // the control plane does not take the credential
	calls     lastError   // to the control plane
	pings     lastError   // of the scanner
}

// lastError is how something went when it was last tried.
type lastError struct {
	mu  sync.Mutex
	err error
}

func (l *lastError) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *lastError) last() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// checks are in the order of a message's way. What only degrades leaves mail flowing.
func (h *health) checks() []admin.Check {
	return []admin.Check{
		{Name: "listener", Probe: h.listening},
		{Name: "policy", Probe: h.complete},
		{Name: "policy-fresh", Probe: h.fresh, Degraded: true},
		{Name: "control-plane", Probe: h.reachable, Degraded: true},
		{Name: "scanner", Probe: h.scannerUp},
		{Name: "scanner-configured", Probe: h.scannerConfigured},
		{Name: "journal", Probe: h.disk.journal.Err},
		{Name: "disk-room", Probe: func() error { return h.disk.spool.Room(h.policy.Table().Platform().MaxMessageBytes) }},
	}
}

func (h *health) listening() error {
	if !h.accepting.Load() {
		return errors.New("mail is not accepted: starting, or going down")
	}
	return nil
}

func (h *health) complete() error {
	if !h.policy.Status().Complete {
		return errors.New("no policy was received yet: everything is deferred")
	}
	return nil
}

func (h *health) fresh() error {
	if h.view().Fresh() {
		return nil
	}
	status := h.policy.Status()
	stale := fmt.Errorf("policy was last confirmed %s: refusals are deferrals", ago(h.config.Now(), status.LastSuccess))
	if status.LastError != nil {
		return fmt.Errorf("%w (last error: %w)", stale, status.LastError)
	}
	return stale
}

// reachable is what the calls and the polls say of the control plane.
func (h *health) reachable() error {
	polls, calls := h.policy.Status().LastError, h.calls.last()
	for _, err := range []error{polls, calls} {
		if unauthenticated(err) {
			return fmt.Errorf("%s: %w", strangerHint, err)
		}
	}
	return errors.Join(polls, calls)
}

// called notes the outcome of a call to the control plane that is no poll.
func (h *health) called(err error) {
	h.calls.note(err)
	h.answered(err)
}

// answered takes the outcome of a call or poll, and logs once that this edge is no longer known to the control plane.
func (h *health) answered(err error) {
	switch {
	case err == nil:
		h.stranger.Store(false)
	case unauthenticated(err) && !h.stranger.Swap(true):
		h.config.Log.Error(strangerHint, "data-dir", h.config.DataDir, "error", err)
	}
}

func ago(now, then time.Time) string {
	if then.IsZero() {
		return "before this start"
	}
	return now.Sub(then).Round(time.Second).String() + " ago"
}

func (h *health) scannerUp() error {
	if h.scanner == nil {
		return nil
	}
	if state := h.scanner.Health(); state.State == scan.Down {
		return fmt.Errorf("scanner is down since %s: %s", state.Since.UTC().Format(time.RFC3339), state.LastError)
	}
	return h.pings.last()
}

func (h *health) scannerConfigured() error {
	if h.scanner != nil || !h.policy.Status().Complete || h.policy.Table().Platform().AllowUnscanned {
		return nil
	}
	return errors.New("no scanner is configured (clamd), and the platform does not allow unscanned mail (allow_unscanned): everything is deferred")
}

// pingScanner asks the scanner regularly, so that readiness and the log know of its end before the next message does.
func (h *health) pingScanner(ctx context.Context) error {
	tick := time.NewTicker(scannerPingEvery)
	defer tick.Stop()
	for {
		if err := h.scanner.Ping(ctx); ctx.Err() == nil {
			h.pinged(ctx, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// pinged notes an answer of the scanner, and logs the first failure and each change.
func (h *health) pinged(ctx context.Context, err error) {
	before := h.pings.last()
	h.pings.note(err)
	switch {
	case err != nil && before == nil:
		h.config.Log.WarnContext(ctx, "content scanner does not answer; mail is deferred until it does", "clamd", h.config.Clamd, "error", err)
	case err == nil && before != nil:
		h.config.Log.InfoContext(ctx, "content scanner answers again", "clamd", h.config.Clamd)
	}
}

// newMetrics is the registry that every stage adds its own figures to.
func newMetrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// register adds what is known of policy.
func (h *health) register(registry prometheus.Registerer) {
	registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relayd_policy_revision", Help: "Policy revision that is enforced.",
		}, func() float64 { return float64(h.policy.Table().Revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relayd_policy_domains", Help: "Domains in the policy that is enforced.",
		}, func() float64 { return float64(h.policy.Table().DomainCount()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relayd_policy_age_seconds", Help: "Time since the policy was last confirmed; -1 before the first time since the start.",
		}, func() float64 {
			last := h.policy.Status().LastSuccess
			if last.IsZero() {
				return -1
			}
			return h.config.Now().Sub(last).Seconds()
		}),
	)
}

// Package admin answers, on a local listener, how the edge is: /healthz while the process can answer at all, /readyz while it
// would take mail, with the checks that fail named, and /metrics in the Prometheus text format. It changes nothing.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one thing that must hold for the edge to be ready.
type Check struct {
	Name string
	// Probe answers nil when it holds. It must not block.
	Probe func() error
	// Degraded marks a check whose failure is shown but leaves the edge ready, since it goes on relaying.
	Degraded bool
}

// Config wires a Server. Gatherer may be nil: no metrics.
type Config struct {
	Version  string
	Checks   []Check
	Gatherer prometheus.Gatherer
}

// Server answers the questions of monitoring.
type Server struct{ http http.Server }

// New answers a server that is not listening yet.
func New(c Config) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, report{Status: "ok", Version: c.Version})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		result, ready := probe(c)
		status := http.StatusOK
		if !ready {
			status = http.StatusServiceUnavailable
		}
		reply(w, status, result)
	})
	if c.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(c.Gatherer, promhttp.HandlerOpts{}))
	}
	return &Server{http: http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}}
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin listener: %w", err)
	}
	return nil
}

type report struct {
	Status  string   `json:"status"`
	Version string   `json:"version"`
	Checks  []result `json:"checks,omitempty"`
}

type result struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func probe(c Config) (report, bool) {
	out := report{Status: "ok", Version: c.Version}
	ready := true
	for _, check := range c.Checks {
		one := result{Name: check.Name, Status: "ok"}
		if err := check.Probe(); err != nil {
			one.Status, one.Detail = "failed", err.Error()
			if check.Degraded {
				one.Status = "degraded"
			} else {
				ready = false
			}
		}
		if one.Status != "ok" && out.Status != "failed" {
			out.Status = one.Status
		}
		out.Checks = append(out.Checks, one)
	}
	return out, ready
}

func reply(w http.ResponseWriter, status int, body report) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

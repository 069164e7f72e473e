package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"activerelay/server/internal/httpapi"
	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
)

// drainTimeout is how long requests in flight may take after the control plane was told to end.
const drainTimeout = 20 * time.Second

// Run serves until ctx ends, then drains: it stops accepting, ends long polls, lets requests in flight finish, writes
// down what is only in memory and closes the database. Ending when told is no error.
func Run(ctx context.Context, config Config) (err error) {
	if err := errors.Join(config.check(), config.checkFiles()); err != nil {
		return err
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	// Bound before anything is written: an address in use is told before the database is migrated and a token is made.
	listener, err := listen(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // closed already by who served it
	if err := createDataDir(config); err != nil {
		return err
	}
	bell := &publish.Bell{}
	opened, err := openStore(ctx, config, store.Config{Materialise: publish.Materialise, OnPublish: bell.Ring})
	if err != nil {
		return err
	}
	var owned owner
	defer func() { err = errors.Join(err, opened.Close(), owned.release()) }()
	if owned, err = own(opened); err != nil {
		return err
	}
	if err := migrate(ctx, config, opened); err != nil {
		return err
	}
	if err := openHistory(ctx, config, opened); err != nil {
		return err
	}
	key, err := firstStart(ctx, config, opened)
	if err != nil {
		return err
	}
	metrics := newMetrics(opened)
	publisher, err := publish.New(publish.Config{Store: opened, Bell: bell, Log: config.Log, Now: config.Now, Metrics: metrics})
	if err != nil {
		return err
	}
	proxies, err := config.proxies()
	if err != nil {
		return err
	}
	api, err := httpapi.New(httpapi.Config{
		Store: opened, Publisher: publisher, Log: config.Log, Now: config.Now, SecretsKey: key, Metrics: metrics,
		Version: config.Version, RequestsPerSecond: config.RequestsPerSecond, TrustedProxies: proxies,
	})
	if err != nil {
		return err
	}
	tlsConfig, err := serverTLS(config)
	if err != nil {
		return err
	}
	background := inBackground(ctx, publisher.Run, (&upkeep{store: opened, log: config.Log, now: config.Now}).run)
	defer func() { err = errors.Join(err, background()) }()
	return serve(ctx, config, newHTTPServer(ctx, config, front(api.Handler()), tlsConfig), listener, publisher)
}

func createDataDir(config Config) error {
	if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// openStore opens the database of the settings; what it works with beside them comes in base.
func openStore(ctx context.Context, config Config, base store.Config) (*store.Store, error) {
	base.URL, base.DataDir, base.Log, base.Now = config.Database, config.DataDir, config.Log, config.Now
	return store.Open(ctx, base)
}

// openHistory looks whether the database was restored, before an edge is told anything.
func openHistory(ctx context.Context, config Config, opened *store.Store) error {
	restored, err := publish.OpenHistory(ctx, opened)
	if restored {
		config.Log.WarnContext(ctx, "the database was restored, copied or moved: a new epoch begins; edges start their policy again, and no quota is granted until each has reported what it holds")
	}
	return err
}

func newMetrics(opened *store.Store) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relay_server_database_connections", Help: "Connections to the database that are in use for writing.",
		}, func() float64 { return float64(opened.Stats().InUse) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "relay_server_database_wait_seconds_total", Help: "Time that writers have waited for a connection.",
		}, func() float64 { return opened.Stats().WaitDuration.Seconds() }),
	)
	return registry
}

// inBackground runs loops until ctx ends and the returned function is called, whichever is later, so that they see the
// last request. The function waits for them.
func inBackground(ctx context.Context, loops ...func(context.Context) error) func() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	results := make([]error, len(loops))
	for i, loop := range loops {
		group.Go(func() { results[i] = loop(ctx) })
	}
	return func() error {
		cancel()
		group.Wait()
		return errors.Join(results...)
	}
}

// serve answers requests until ctx ends, and then those that have begun.
func serve(ctx context.Context, config Config, server *http.Server, listener net.Listener, publisher *publish.Publisher) error {
	server.RegisterOnShutdown(publisher.Close) // long polls end, and edges come back to the replica that remains
	secure := server.TLSConfig != nil          // asked now: Serve fills it in
	served := make(chan error, 1)
	go func() {
		if secure {
			served <- server.ServeTLS(listener, "", "")
			return
		}
		served <- server.Serve(listener)
	}()
	config.Log.InfoContext(ctx, "listening", slog.String("address", listener.Addr().String()),
		slog.Bool("tls", secure), slog.String("version", config.Version))
	if config.Listening != nil {
		config.Listening(listener.Addr())
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	config.Log.InfoContext(ctx, "draining", slog.Duration("at_most", drainTimeout))
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(deadline)
	if err != nil {
		err = errors.Join(fmt.Errorf("drain: requests were broken off: %w", err), server.Close())
	}
	<-served
	return err
}

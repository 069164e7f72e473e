// Package edgetest runs a real edge in the process of a test, against any control plane, on free ports of 127.0.0.1, and
// with a clock that the test may hold. It is apart from package relaytest because the stages of the edge test themselves with
// that one.
package edgetest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"activerelay/relayd"
)

// Config says how the edge differs from one on its defaults. Server and JoinToken are required, but an edge that has joined
// needs no token.
type Config struct {
	// Server is the URL of the control plane.
	Server    string
	JoinToken string
	// Now is the clock of the edge. Nil means time.Now. Deadlines of connections keep to the real one.
	Now func() time.Time
	// DataDir is kept when the edge ends, so that another one may go on with it. Empty means a temporary one.
	DataDir string
	// Configure changes any other setting, such as the log, of which warnings go to the test's output. Nil changes none.
	Configure func(*relayd.Config)
}

// Edge is an edge that accepts mail.
type Edge struct {
	relayd.Addresses
	DataDir string

	tb   testing.TB
	stop func() error
}

// Start runs an edge until the test ends or [Edge.Stop] is called, and waits until it accepts mail.
func Start(tb testing.TB, config Config) *Edge {
	tb.Helper()
	e := &Edge{DataDir: config.DataDir, tb: tb}
	if e.DataDir == "" {
		e.DataDir = tb.TempDir()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	listening, ended := make(chan relayd.Addresses, 1), make(chan error, 1)
	settings := Settings(tb, config)
	settings.DataDir = e.DataDir
	settings.Listening = func(at relayd.Addresses) { listening <- at }
	go func() { ended <- relayd.Run(ctx, settings) }()
	e.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	tb.Cleanup(e.Stop)
	select {
	case e.Addresses = <-listening:
	case err := <-ended:
		ended <- err
		tb.Fatalf("start the edge: %v", err)
	}
	return e
}

// Settings are those that Start would run an edge with, for what it cannot do: see one fail to start.
func Settings(tb testing.TB, config Config) relayd.Config {
	tb.Helper()
	settings := relayd.DefaultConfig()
	settings.Server, settings.JoinToken, settings.DataDir = config.Server, config.JoinToken, config.DataDir
	settings.Name, settings.Hostname = "edge1", "edge1.relay.example"
	settings.Listen, settings.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	settings.Now, settings.Version = config.Now, "test"
	settings.Log = slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if config.Configure != nil {
		config.Configure(&settings)
	}
	return settings
}

// Stop drains the edge as SIGTERM does and waits for its end. It may be called twice.
func (e *Edge) Stop() {
	e.tb.Helper()
	if err := e.stop(); err != nil {
		e.tb.Errorf("the edge: %v", err)
	}
}

// Package servertest runs a real control plane in the process of a test: on a temporary SQLite file unless the test says
// otherwise, on a free port of 127.0.0.1, with the token of its first start, and with a clock that the test may hold.
package servertest

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/api/client"
	"activerelay/server"
)

// Config says how the control plane differs from one on its defaults. The zero value is a good one.
type Config struct {
	// Now is the clock of the control plane. Nil means time.Now. Deadlines of connections keep to the real one.
	Now func() time.Time
	// Database is its URL, e.g. of a PostgreSQL server of the test. Empty means a file in DataDir.
	Database string
	// DataDir is kept when the control plane ends, so that another one may go on with it. Empty means a temporary one.
	DataDir string
	// Configure changes any other setting, such as the log, of which warnings go to the test's output. Nil changes none.
	Configure func(*server.Config)
}

// Server is a control plane that accepts requests.
type Server struct {
	// URL is where it is, without a slash at the end.
	URL string
	// Token is the operator's, made at the first start. It is empty where the database was begun from another DataDir.
	Token   string
	DataDir string
	// Contract is the transport of the clients that the server hands out; it holds every response to the contract.
	Contract *Contract

	tb   testing.TB
	stop func() error
}

// Start runs a control plane until the test ends or [Server.Stop] is called, and waits until it accepts requests.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	settings := server.DefaultConfig()
	settings.Listen, settings.Database, settings.DataDir = "127.0.0.1:0", config.Database, config.DataDir
	if settings.DataDir == "" {
		settings.DataDir = tb.TempDir()
	}
	if settings.Database == "" {
		settings.Database = "sqlite:"
	}
	settings.RequestsPerSecond = 1e6 // a clock that stands still gives no new ones
	settings.Now, settings.Version = config.Now, "test"
	settings.Log = slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if config.Configure != nil {
		config.Configure(&settings)
	}
	s := &Server{DataDir: settings.DataDir, Contract: NewContract(tb), tb: tb}
	address := s.run(settings)
	scheme := "http://"
	if settings.TLSCert != "" {
		scheme = "https://"
	}
	s.URL = scheme + address
	token, err := os.ReadFile(filepath.Join(settings.DataDir, "operator.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatalf("token of the control plane: %v", err)
	}
	s.Token = strings.TrimSpace(string(token))
	return s
}

// run starts the control plane and returns its address.
func (s *Server) run(settings server.Config) string {
	s.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	listening, ended := make(chan net.Addr, 1), make(chan error, 1)
	settings.Listening = func(address net.Addr) { listening <- address }
	go func() { ended <- server.Run(ctx, settings) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	s.tb.Cleanup(s.Stop)
	select {
	case address := <-listening:
		return address.String()
	case err := <-ended:
		ended <- err
		s.tb.Fatalf("start the control plane: %v", err)
		return ""
	}
}

// Stop drains the control plane as SIGTERM does and waits for its end. It may be called twice.
func (s *Server) Stop() {
	s.tb.Helper()
	if err := s.stop(); err != nil {
		s.tb.Errorf("the control plane: %v", err)
	}
}

// Client returns a client with the operator's token.
func (s *Server) Client() *client.ClientWithResponses { return s.ClientAs(s.Token) }

// ClientAs returns a client with a token; "" sends none.
func (s *Server) ClientAs(token string) *client.ClientWithResponses {
	s.tb.Helper()
	c, err := client.New(client.Config{URL: s.URL, Token: func() string { return token }, Transport: s.Contract})
	if err != nil {
		s.tb.Fatal(err)
	}
	return c
}

// Do makes a request, for what the generated client cannot say, and holds the response to the contract.
func (s *Server) Do(request *http.Request) (*http.Response, error) {
	return (&http.Client{Transport: s.Contract}).Do(request)
}

// Request returns a request as the operator, for what the generated client cannot say.
func (s *Server) Request(method, path, body string) *http.Request {
	s.tb.Helper()
	request, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.Token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	return request
}

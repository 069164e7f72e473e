package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"activerelay/api/keypair"
	"activerelay/server/internal/httpapi"
)

// Deadlines of a connection. Reading and writing are counted from the head of a request and bound a peer that does not
// read or send; both must be well above the longest long poll, 30 seconds, or they would break it off: net/http reads
// ahead while a handler works, and ends the request when that read times out.
const (
	headTimeout  = 10 * time.Second
	readTimeout  = 2 * time.Minute
	writeTimeout = 3 * time.Minute
	idleTimeout  = 2 * time.Minute
)

// headSlack is by how much net/http may read a longer head than the API accepts, so that the API gets to say so in a
// problem; what is longer still is answered 431 by net/http itself.
const headSlack = 32 << 10

func listen(ctx context.Context, config Config) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}

// serverTLS serves the certificate of the settings; nil when there is none.
func serverTLS(config Config) (*tls.Config, error) {
	if config.TLSCert == "" {
		return nil, nil
	}
	files, err := keypair.Open(config.TLSCert, config.TLSKey, config.Log)
	if err != nil {
		return nil, fmt.Errorf("tls-cert and tls-key: %w", err)
	}
	return files.Config(), nil
}

// newHTTPServer serves TLS when it is given a configuration. A request does not end with ctx: it is drained.
func newHTTPServer(ctx context.Context, config Config, handler http.Handler, tlsConfig *tls.Config) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    httpapi.MaxHeaderBytes + httpapi.MaxURIBytes + headSlack,
		ErrorLog:          slog.NewLogLogger(config.Log.Handler(), slog.LevelDebug), // strangers' broken connections
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		TLSConfig:         tlsConfig,
	}
}

// front sends who opens the address in a browser to the documentation. What the contract knows, it does not see.
func front(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			http.Redirect(w, r, "/docs", http.StatusFound)
			return
		}
		api.ServeHTTP(w, r)
	})
}

package relaytest

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// PolicyHost is the web server of a domain that publishes an MTA-STS policy.
type PolicyHost struct {
	addr    netip.AddrPort
	handler atomic.Value // http.HandlerFunc
	asked   atomic.Int64
}

// StartPolicyHost serves HTTPS with a certificate of ca for names, on loopback
// or, when listen is not empty, there. It has nothing to say until Publish or
// Answer.
func StartPolicyHost(t testing.TB, ca *Authority, listen string, names ...string) *PolicyHost {
	t.Helper()
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatalf("relaytest: listening for HTTPS: %v", err)
	}
	h := &PolicyHost{addr: listener.Addr().(*net.TCPAddr).AddrPort()}
	h.Answer(http.NotFound)
	server := &http.Server{Handler: h, TLSConfig: ca.Issue(t, time.Hour, names...), ReadHeaderTimeout: 10 * time.Second}
	server.ErrorLog = log.New(io.Discard, "", 0)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return h
}

// ServeHTTP implements http.Handler.
func (h *PolicyHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	h.handler.Load().(http.HandlerFunc)(w, r)
}

// Publish makes text the policy.
func (h *PolicyHost) Publish(text string) {
	h.Answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(text))
	})
}

// Answer makes f answer everything.
func (h *PolicyHost) Answer(f http.HandlerFunc) { h.handler.Store(f) }

// Port returns the server's port.
func (h *PolicyHost) Port() uint16 { return h.addr.Port() }

// Asked returns how many requests came.
func (h *PolicyHost) Asked() int { return int(h.asked.Load()) }

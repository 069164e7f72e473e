package server

import (
	"log/slog"
	"testing"

	"activerelay/server/internal/httpapi"
)

func TestControl9AllFourTimeoutsOfAConnectionAreSet(t *testing.T) {
	const longestPoll = 30 // seconds, the maximum of `wait` in the contract
	s := newHTTPServer(t.Context(), Config{Log: slog.New(slog.DiscardHandler)}, nil, nil)
	if s.ReadHeaderTimeout <= 0 || s.IdleTimeout <= 0 || s.ReadTimeout.Seconds() <= longestPoll || s.WriteTimeout.Seconds() <= longestPoll {
		t.Errorf("head %v, read %v, write %v, idle %v", s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout)
	}
	if s.MaxHeaderBytes < httpapi.MaxHeaderBytes || s.MaxHeaderBytes > 4*httpapi.MaxHeaderBytes {
		t.Errorf("heads of %d bytes are read", s.MaxHeaderBytes)
	}
}

package admin_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"activerelay/relayd/internal/admin"

	"github.com/prometheus/client_golang/prometheus"
)

func serve(t *testing.T, c admin.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- admin.New(c).Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	reply, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

func TestReadinessNamesTheCheckThatFails(t *testing.T) {
	base := serve(t, admin.Config{Checks: []admin.Check{
		{Name: "journal", Probe: func() error { return nil }},
		{Name: "policy", Probe: func() error { return errors.New("no first pass yet") }},
	}})
	status, body := get(t, base+"/readyz")
	if status != 503 || !strings.Contains(body, `{"name":"policy","status":"failed","detail":"no first pass yet"}`) {
		t.Fatalf("%d %s", status, body)
	}
	if status, _ := get(t, base+"/healthz"); status != 200 {
		t.Fatalf("alive answers %d", status)
	}
}

func TestAnEdgeWithoutItsControlPlaneIsDegradedAndStillReady(t *testing.T) {
	base := serve(t, admin.Config{Checks: []admin.Check{{Name: "control-plane", Degraded: true, Probe: func() error { return errors.New("refused") }}}})
	status, body := get(t, base+"/readyz")
	if status != 200 || !strings.Contains(body, `"status":"degraded"`) {
		t.Fatalf("%d %s", status, body)
	}
}

func TestMetricsAreThoseOfTheGivenRegistry(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "relayd_test_total", Help: "A test."}))
	status, body := get(t, serve(t, admin.Config{Gatherer: registry})+"/metrics")
	if status != 200 || !strings.Contains(body, "relayd_test_total 0") {
		t.Fatalf("%d %s", status, body)
	}
}

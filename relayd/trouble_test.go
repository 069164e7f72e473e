package relayd_test

import (
	"bytes"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd"
	"activerelay/relayd/relaytest/edgetest"
)

// logBuffer takes a log while a test reads it.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), text)
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestAnEdgeThatDefersEverythingForWantOfAScannerIsNotReady(t *testing.T) {
	w := newWorld(t)
	w.call("PATCH", "/v1/settings", `{"allow_unscanned":false}`, nil)
	log := &logBuffer{}
	e := w.addEdge(func(c *relayd.Config) { c.Log = log.logger() })
	if status, check := w.ready(e, "scanner-configured"); status != http.StatusServiceUnavailable || check != "failed" {
		t.Errorf("readiness %d, scanner-configured %q", status, check)
	}
	if r := send(t, e.Relay, "anna@example.com", "unseen"); !strings.HasPrefix(r, "451 4.7.1 ") {
		t.Errorf("reply %q", r)
	}
	if log.count("no content scanner is configured (clamd)") != 1 {
		t.Error("the log does not warn of it once")
	}
	w.call("PATCH", "/v1/settings", `{"allow_unscanned":true}`, nil)
	eventually(t, "readiness once unscanned mail is allowed", func() bool {
		status, _ := w.ready(e, "scanner-configured")
		return status == http.StatusOK
	})
}

func TestAScannerThatIsNotThereIsLoggedOnce(t *testing.T) {
	w := newWorld(t)
	log := &logBuffer{}
	e := w.addEdge(func(c *relayd.Config) {
		c.Clamd, c.Log = "unix:"+filepath.Join(t.TempDir(), "nowhere.ctl"), log.logger()
	})
	eventually(t, "a warning of the scanner", func() bool { return log.count("content scanner does not answer") == 1 })
	if status, check := w.ready(e, "scanner"); status != http.StatusServiceUnavailable || check != "failed" {
		t.Errorf("readiness %d, scanner %q", status, check)
	}
}

// Where a balancer sends no mail to an edge that is not ready, readiness is when mail passes again (matrix row 22).
func TestAnEdgeIsReadyWithinFiveSecondsOfItsScannersReturn(t *testing.T) {
	w := newWorld(t)
	log, socket := &logBuffer{}, filepath.Join(t.TempDir(), "clamd.ctl")
	e := w.addEdge(func(c *relayd.Config) { c.Clamd, c.Log = "unix:"+socket, log.logger() })
	eventually(t, "a warning of the scanner", func() bool { return log.count("content scanner does not answer") == 1 })
	scanner, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	defer scanner.Close()
	go func() {
		for {
			conn, err := scanner.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, len("zPING\x00"))) // who asks no more needs no answer
			_, _ = io.WriteString(conn, "PONG\x00")
			conn.Close()
		}
	}()
	eventually(t, "readiness once the scanner is back", func() bool {
		_, check := w.ready(e, "scanner")
		return check == "ok"
	})
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("ready %s after the scanner was back", took)
	}
}

func TestAJoinTokenThatWasUsedIsSaidToBe(t *testing.T) {
	w := newWorld(t)
	token := w.joinToken()
	first := edgetest.Settings(t, edgetest.Config{Server: w.plane.URL, JoinToken: token, DataDir: t.TempDir()})
	if err := relayd.Join(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	again := edgetest.Settings(t, edgetest.Config{Server: w.plane.URL, JoinToken: token, DataDir: t.TempDir()})
	err := relayd.Join(t.Context(), again)
	if err == nil || !strings.Contains(err.Error(), "has it expired or been revoked? Make another: relayctl join-token create") {
		t.Errorf("error %v", err)
	}
}

func TestJoiningAnUnknownAuthorityEndsAndNamesTheSetting(t *testing.T) {
	plane := httptest.NewTLSServer(http.NotFoundHandler())
	defer plane.Close()
	config := edgetest.Config{Server: plane.URL, JoinToken: "rly_join_x", DataDir: t.TempDir()}
	err := relayd.Join(t.Context(), edgetest.Settings(t, config))
	if err == nil || !strings.Contains(err.Error(), "--ca-file") {
		t.Fatalf("error %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: plane.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	config.Configure = func(c *relayd.Config) { c.CAFile = ca }
	if err := relayd.Join(t.Context(), edgetest.Settings(t, config)); err == nil || strings.Contains(err.Error(), "ca-file") {
		t.Errorf("with its certificate: %v, want what the server says", err)
	}
}

func TestARetiredEdgeSaysThatItIs(t *testing.T) {
	w := newWorld(t)
	log := &logBuffer{}
	e := w.addEdge(func(c *relayd.Config) { c.Log = log.logger() })
	var edges struct{ Items []struct{ ID string } }
	w.call("GET", "/v1/edges", "", &edges)
	w.call("POST", "/v1/edges/"+edges.Items[0].ID+"/retire", "", nil)
	const hint = "this edge was retired, or its credential was replaced; join anew with a fresh data directory"
	eventually(t, "the hint in the log", func() bool { return log.count(hint) > 0 })
	eventually(t, "the hint in the state of the edge", func() bool { return strings.Contains(readyText(t, e), hint) })
	if n := log.count(hint); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

func TestARestartedEdgeIsFreshAtOnce(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.stocked(e, "before")
	began := time.Now()
	again := w.restart(e)
	if text := readyText(t, again); strings.Contains(text, "nil") {
		t.Errorf("state %s", text)
	}
	eventually(t, "a fresh policy", func() bool {
		_, check := w.ready(again, "policy-fresh")
		return check == "ok"
	})
	if took := time.Since(began); took > 5*time.Second { // a poll that waits takes ten
		t.Errorf("fresh after %v", took)
	}
}

func readyText(t *testing.T, e *edgetest.Edge) string {
	t.Helper()
	reply, err := http.Get("http://" + e.Admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer reply.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(reply.Body); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

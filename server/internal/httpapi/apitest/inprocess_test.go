package apitest_test

import (
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"activerelay/server/internal/credential"
	"activerelay/server/internal/httpapi"
	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
	"activerelay/server/servertest"
)

// newInProcess is a world without a network: its calls go straight to the handler.
func newInProcess(tb testing.TB, change ...func(*httpapi.Config)) (*world, http.Handler) {
	tb.Helper()
	w := &world{database: storetest.SQLite(tb), clock: storetest.NewClock(morning), log: &logBook{}}
	w.Server = &servertest.Server{URL: "http://relay.test", DataDir: tb.TempDir(), Contract: servertest.NewContract(tb)}
	log, metrics, bell := slog.New(slog.DiscardHandler), prometheus.NewRegistry(), &publish.Bell{}
	opened := w.database.Open(tb, store.Config{Now: w.clock.Now, Log: log, Materialise: publish.Materialise, OnPublish: bell.Ring})
	publisher, err := publish.New(publish.Config{Store: opened, Bell: bell, Log: log, Now: w.clock.Now, Metrics: metrics})
	if err != nil {
		tb.Fatal(err)
	}
	config := httpapi.Config{
		Store: opened, Publisher: publisher, Log: log, Now: w.clock.Now, Metrics: metrics, RequestsPerSecond: 1e6,
	}
	_, _ = rand.Read(config.SecretsKey[:]) // never fails
	encoded := base64.StdEncoding.EncodeToString(config.SecretsKey[:])
	if err := os.WriteFile(filepath.Join(w.DataDir, "secrets.key"), []byte(encoded), 0o600); err != nil {
		tb.Fatal(err)
	}
	for _, one := range change {
		one(&config)
	}
	api, err := httpapi.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	made := credential.New(credential.Operator, newULID())
	w.Token = made.Token()
	row := store.Token{ID: "tok_" + made.ID.String(), Name: "operator", Role: "operator", SecretHash: made.Secret.Hash()}
	if err := opened.Write(tb.Context(), store.System(), func(tx *store.Tx) error { return tx.InsertToken(&row) }); err != nil {
		tb.Fatal(err)
	}
	handler := api.Handler()
	w.Contract.Serve(handler)
	return w, handler
}

// slowBody is how long a body may take where a test waits for it.
const slowBody = 200 * time.Millisecond

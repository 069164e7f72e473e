package server

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"activerelay/server/internal/credential"
	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest/pgtest"
)

func TestOfManyFirstStartsAtOnceOneWins(t *testing.T) {
	var postgres pgtest.Server
	if err := postgres.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(postgres.Stop)
	for name, database := range map[string]string{"SQLite": "sqlite:", "PostgreSQL": postgres.Database(t)} {
		t.Run(name, func(t *testing.T) {
			config := DefaultConfig()
			config.Database, config.DataDir, config.Now, config.Log = database, t.TempDir(), time.Now, slog.New(slog.DiscardHandler)
			opened, err := openStore(t.Context(), config, store.Config{Materialise: publish.Materialise})
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			if err := migrate(t.Context(), config, opened); err != nil {
				t.Fatal(err)
			}
			const starts = 8
			results := make(chan error, starts)
			for range starts {
				go func() {
					token := credential.New(credential.Operator, ulid.MustNew(ulid.Now(), rand.Reader))
					results <- insertFirstToken(t.Context(), opened, token)
				}()
			}
			won := 0
			for range starts {
				switch err := <-results; {
				case err == nil:
					won++
				case !errors.Is(err, errNotFirst):
					t.Error(err)
				}
			}
			if won != 1 {
				t.Fatalf("%d first tokens were made", won)
			}
		})
	}
}

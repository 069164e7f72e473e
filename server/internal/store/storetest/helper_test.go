package storetest_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sync/errgroup"

	"activerelay/api/quota"
	"activerelay/server/internal/store"
)

// helperURL is the variable that makes the test binary a process which writes to a database until it is killed.
const helperURL = "STORETEST_WRITE_TO"

const helperWriters = 4

func isHelper() bool { return os.Getenv(helperURL) != "" }

// helperMain writes with several goroutines, each to a domain of its own: a step of its counter, an audit entry, a policy
// document and a grant in one transaction. After each commit it prints the number of the writer.
func helperMain() int {
	s, err := store.Open(context.Background(), store.Config{
		URL: os.Getenv(helperURL), Log: slog.New(slog.DiscardHandler), Materialise: revisionOnly,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var group errgroup.Group
	for w := range helperWriters {
		group.Go(func() error {
			for {
				if err := s.Write(context.Background(), store.EdgeTenant(helperName(w), nil), helperStep(w)); err != nil {
					return err
				}
				// One write, so that lines do not mix.
				if _, err := os.Stdout.WriteString(strconv.Itoa(w) + "\n"); err != nil {
					return err
				}
			}
		})
	}
	fmt.Fprintln(os.Stderr, group.Wait())
	return 1
}

func helperName(writer int) string { return fmt.Sprintf("w%d.example", writer) }

func helperStep(writer int) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		row, err := tx.As(store.System()).LockDomain(helperName(writer))
		if err != nil {
			return err
		}
		row.LicensedUsers++
		tx.Audit(store.AuditRow{TokenID: "tok", ActorRole: "operator", Action: "x", Object: "domain/" + row.Name})
		tx.Publish(store.DomainKey(row.Name))
		if err := tx.UpdateDomain(&row); err != nil {
			return err
		}
		// The edge of this writer spends a unit each time; its counters are those of the step before.
		edge, err := tx.Edge(helperName(writer))
		if err != nil {
			return err
		}
		report := store.LeaseReport{Domain: row.Name, Want: 1}
		report.Counters = quota.Counters{Granted: edge.LeaseSequence, Spent: edge.LeaseSequence}
		_, err = tx.Lease(store.LeaseCall{
			BootNonce: "boot", Generation: 1, Sequence: edge.LeaseSequence + 1, Leases: []store.LeaseReport{report},
		})
		return err
	}
}

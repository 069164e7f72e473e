package server_test

import (
	"database/sql"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/server/internal/store/storetest/pgtest"
	"activerelay/server/servertest"
)

func TestKeptResultsAreForgottenAfterTheirTime(t *testing.T) {
	clock := &heldClock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	s := servertest.Start(t, servertest.Config{Now: clock.Now})
	key := "attempt-1"
	_, err := s.Client().CreateJoinTokenWithResponse(t.Context(), &api.CreateJoinTokenParams{IdempotencyKey: &key}, api.JoinTokenCreate{})
	must(t, err)
	db := besides(t, s)
	kept := func() (count int) {
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM idempotency_keys").Scan(&count))
		return count
	}
	if kept() != 1 {
		t.Fatalf("%d results are kept, want 1", kept())
	}
	clock.add(25 * time.Hour)
	eventually(t, "no kept result", func() bool { return kept() == 0 })
}

func TestDecisionsAreForgottenAfterThirtyDays(t *testing.T) {
	clock := &heldClock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	s := servertest.Start(t, servertest.Config{Now: clock.Now})
	db := besides(t, s)
	_, err := db.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
		INSERT INTO decisions (ref, occurred_at, edge, reason)
		SELECT 'OLD' || i, '2026-11-24 11:59:00+00:00', 'edg_1', 'ip-not-allowed' FROM n
		UNION ALL SELECT 'NEW', '2026-11-24 14:00:00+00:00', 'edg_1', 'ip-not-allowed'`)
	must(t, err)
	kept := func() (count int) {
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM decisions").Scan(&count))
		return count
	}
	clock.add(30*24*time.Hour + time.Minute)
	eventually(t, "only the new decision", func() bool { return kept() == 1 })
}

func TestOperationsOnTheQueueAreForgottenAfterThirtyDays(t *testing.T) {
	clock := &heldClock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	s := servertest.Start(t, servertest.Config{Now: clock.Now})
	db := besides(t, s)
	_, err := db.ExecContext(t.Context(), `INSERT INTO queue_operations (id, action, created_at)
		VALUES ('qop_old', 'hold', '2026-11-24 11:59:00+00:00'), ('qop_new', 'hold', '2026-11-24 14:00:00+00:00')`)
	must(t, err)
	clock.add(30*24*time.Hour + time.Minute)
	eventually(t, "only the new operation", func() bool {
		var ids string
		must(t, db.QueryRowContext(t.Context(), "SELECT group_concat(id) FROM queue_operations").Scan(&ids))
		return ids == "qop_new"
	})
}

// besides opens the database beside the control plane that has it in use, and waits its turn as that one does.
func besides(t *testing.T, s *servertest.Server) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.DataDir, "relay.db")+"?_pragma=busy_timeout(30000)")
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// heldClock stands still until it is moved.
type heldClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *heldClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *heldClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestAWideChangeReachesEveryDomainInTheBackground(t *testing.T) {
	const domains = 250 // more than are published in the transaction of the change
	s := servertest.Start(t, servertest.Config{})
	partner, err := s.Client().PutPartnerWithResponse(t.Context(), "acme", nil, api.PartnerPut{Name: "Acme"})
	must(t, err)
	if partner.StatusCode() != http.StatusCreated {
		t.Fatalf("partner: %s", partner.Body)
	}
	var list []string
	for i := range domains {
		list = append(list, `{"name":"d`+strconv.Itoa(i)+`.example","partner":"acme"}`)
	}
	send(t, s.Request("POST", "/v1/domains/batch", `{"domains":[`+strings.Join(list, ",")+`]}`))
	edge := join(t, s)
	_, epoch, after := pull(t, edge)
	change := s.Request("PATCH", "/v1/settings", `{"default_time_zone":"Europe/Berlin"}`)
	change.Header.Set("Content-Type", "application/merge-patch+json")
	send(t, change)
	changed := map[string]bool{}
	params := &api.PullPolicyParams{Epoch: &epoch, After: &after}
	eventually(t, "all domains in the new zone", func() bool {
		reply, err := edge.PullPolicyWithResponse(t.Context(), params)
		must(t, err)
		if reply.JSON200 == nil {
			return false
		}
		params.After = &reply.JSON200.Next
		for _, document := range reply.JSON200.Documents {
			if document.Domain != nil && *document.Domain.TimeZone == "Europe/Berlin" {
				changed[document.Key] = true
			}
		}
		return len(changed) == domains
	})
}

func TestEdgesAreToldWhenAnOverrideHasExpired(t *testing.T) {
	var postgres pgtest.Server
	must(t, postgres.Start())
	t.Cleanup(postgres.Stop)
	for name, database := range map[string]string{"SQLite": "", "PostgreSQL": postgres.Database(t)} {
		t.Run(name, func(t *testing.T) {
			clock := &heldClock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
			s := servertest.Start(t, servertest.Config{Now: clock.Now, Database: database})
			send(t, s.Request("PUT", "/v1/partners/acme", `{"name":"Acme"}`))
			send(t, s.Request("PUT", "/v1/domains/example.com", `{"partner":"acme"}`))
			send(t, s.Request("PUT", "/v1/domains/example.com/quota-override",
				`{"limit":5000,"expires_at":"2026-11-24T13:00:00Z","reason":"year-end invoices"}`))
			edge := join(t, s)
			limit := int64(0)
			params := &api.PullPolicyParams{}
			look := func() {
				reply, err := edge.PullPolicyWithResponse(t.Context(), params)
				must(t, err)
				if reply.JSON200 == nil {
					return
				}
				params.Epoch, params.After = &reply.JSON200.Epoch, &reply.JSON200.Next
				for _, document := range reply.JSON200.Documents {
					if document.Domain != nil {
						limit = document.Domain.Limit
					}
				}
			}
			look()
			if limit != 5000 {
				t.Fatalf("the edge is told a limit of %d, want that of the override", limit)
			}
			clock.add(61 * time.Minute)
			eventually(t, "the limit without the override", func() bool { look(); return limit == 1000 })
			told := revisionOf(t, *params.After)
			clock.add(61 * time.Minute)
			send(t, s.Request("PUT", "/v1/partners/second", `{"name":"Second"}`))
			look()
			if got := revisionOf(t, *params.After); got != told+1 {
				t.Fatalf("the domain was published again: revision %d after %d and one change", got, told)
			}
		})
	}
}

func revisionOf(t *testing.T, cursor string) int64 {
	t.Helper()
	number, _, _ := strings.Cut(cursor, ",")
	revision, err := strconv.ParseInt(number, 10, 64)
	must(t, err)
	return revision
}

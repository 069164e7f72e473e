package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"activerelay/server/internal/store"
)

func TestRevisionsFollowCommitsSoThatNoReaderSkipsAChange(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const writers, changes = 6, 15
		f.addPartner(t, acme)
		for w := range writers {
			f.addDomain(t, acme, fmt.Sprintf("w%d.example", w), nil)
		}
		var mu sync.Mutex
		var told []int64
		s := f.db.OpenOnly(t, store.Config{
			Now: f.clock.Now,
			Materialise: func(tx *store.Tx, key string) (store.Document, error) {
				row, err := tx.Domain(key[len("domain/"):])
				return store.Document{Partner: row.Partner, Body: fmt.Sprint(row.LicensedUsers)}, err
			},
			OnPublish: func(revision int64) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, revision)
			},
		})
		done := make(chan error, 1)
		go func() { done <- raiseAtOnce(s, writers, changes) }()

		// A follower asks after what it has, while others commit.
		table, cursor := map[string]string{}, store.PolicyCursor{}
		follow := func() {
			f.read(t, store.System(), func(tx *store.Tx) error {
				documents, err := tx.DocumentsAfter(cursor, 2)
				for _, d := range documents {
					table[d.Key], cursor = d.Body, store.PolicyCursor{Revision: d.Revision, Key: d.Key}
				}
				return err
			})
		}
		for running := true; running; {
			follow()
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				running = false
			default:
			}
		}
		for last := (store.PolicyCursor{Revision: -1}); last != cursor; {
			last = cursor
			follow()
		}
		for w := range writers {
			if got := table[store.DomainKey(fmt.Sprintf("w%d.example", w))]; got != fmt.Sprint(changes) {
				t.Errorf("the follower holds state %q of writer %d, want %d", got, w, changes)
			}
		}
		slices.Sort(told)
		if len(told) != writers*changes || told[0] != 1 || told[len(told)-1] != writers*changes {
			t.Errorf("told of %d revisions, want each of %d once", len(told), writers*changes)
		}
	})
}

// raiseAtOnce lets so many writers raise the licensed users of a domain of their own, side by side and each so often.
func raiseAtOnce(s *store.Store, writers, times int) error {
	writing, ctx := errgroup.WithContext(context.Background())
	for w := range writers {
		writing.Go(func() error {
			for range times {
				err := s.Write(ctx, store.Operator(), func(tx *store.Tx) error {
					row, err := tx.LockDomain(fmt.Sprintf("w%d.example", w))
					if err != nil {
						return err
					}
					row.LicensedUsers++
					tx.Publish(store.DomainKey(row.Name))
					return tx.UpdateDomain(&row)
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return writing.Wait()
}

func TestNothingIsPublishedWithoutACommit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		told := 0
		s := f.db.OpenOnly(t, store.Config{Now: f.clock.Now, OnPublish: func(int64) { told++ }})
		undone := errors.New("undone")
		err := s.Write(context.Background(), store.Operator(), func(tx *store.Tx) error {
			tx.Publish(store.PlatformKey)
			return undone
		})
		if !errors.Is(err, undone) || told != 0 {
			t.Errorf("got %v and told of %d revisions, want its own error and none", err, told)
		}
		broken := f.db.OpenOnly(t, store.Config{
			Now: f.clock.Now, OnPublish: func(int64) { told++ },
			Materialise: func(*store.Tx, string) (store.Document, error) { return store.Document{}, undone },
		})
		err = broken.Write(context.Background(), store.Operator(), func(tx *store.Tx) error {
			row := newPartner(acme)
			tx.Publish(store.PartnerKey(acme))
			return tx.InsertPartner(&row)
		})
		if !errors.Is(err, undone) || told != 0 {
			t.Errorf("got %v and told of %d revisions, want the error of the document and none", err, told)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			if _, err := tx.Partner(acme); !notFound(err) {
				t.Errorf("the change without its document: got %v, want not found", err)
			}
			revision, err := tx.Revision()
			if revision != 0 {
				t.Errorf("revision %d, want 0", revision)
			}
			return err
		})
	})
}

// Control 11.
func TestAuditIsAppendOnly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		db := f.db.SQL(t)
		statements := []string{"UPDATE audit SET actor_name = 'nobody'", "DELETE FROM audit"}
		if !f.db.OnSQLite() {
			statements = append(statements, "TRUNCATE audit")
		}
		for _, statement := range statements {
			if _, err := db.Exec(statement); err == nil {
				t.Errorf("%s: done, want that it is refused", statement)
			}
		}
	})
}

// Row 41 of the fault matrix.
func TestChangeFailsWhenItsAuditCannotBeWritten(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		db := f.db.SQL(t)
		breaks := "REVOKE INSERT ON audit FROM CURRENT_USER"
		if f.db.OnSQLite() {
			breaks = "CREATE TRIGGER audit_full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END"
		}
		if _, err := db.Exec(breaks); err != nil {
			t.Fatal(err)
		}
		told := false
		s := f.db.OpenOnly(t, store.Config{Now: f.clock.Now, Materialise: revisionOnly, OnPublish: func(int64) { told = true }})
		err := s.Write(context.Background(), store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockPartner(acme)
			if err != nil {
				return err
			}
			row.Name = "changed"
			tx.Audit(store.AuditRow{TokenID: "tok_op", ActorRole: "operator", Action: "updatePartner", Object: "partner/acme"})
			tx.Publish(store.PartnerKey(acme))
			return tx.UpdatePartner(&row)
		})
		if err == nil || told {
			t.Errorf("got %v, published %v; want that the change fails", err, told)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.Partner(acme)
			if row.Name == "changed" {
				t.Error("the change is there without its audit")
			}
			return err
		})
	})
}

func TestAuditListsChangesInTheirOrder(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for i := range 20 {
			f.write(t, store.Operator(), func(tx *store.Tx) error {
				for half := range 2 {
					tx.Audit(store.AuditRow{TokenID: "tok_op", ActorRole: "operator", Action: "x", Object: fmt.Sprintf("partner/%02d%d", i, half)})
				}
				return nil
			})
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			entries, err := tx.AuditEntries(store.AuditFilter{}, "", 100)
			objects := owners(entries, func(r store.AuditRow) string { return r.Object })
			slices.Reverse(objects)
			if len(objects) != 40 || !slices.IsSorted(objects) {
				t.Errorf("the log lists %v", objects)
			}
			one, err2 := tx.AuditEntries(store.AuditFilter{Object: "partner/071"}, "", 10)
			if len(one) != 1 {
				t.Errorf("%d entries about one object, want 1", len(one))
			}
			return errors.Join(err, err2)
		})
	})
}

// Control 8.
func TestOfParallelRequestsUnderOneKeyOneIsExecuted(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const requests = 50
		request := func(body string) (string, error) {
			var answer string
			err := f.attempt(store.Operator(), func(tx *store.Tx) error {
				row := &store.IdempotencyKey{Principal: "tok_1", Key: "k", Operation: "createPartner", RequestHash: []byte("h")}
				free, err := tx.ReserveIdempotencyKey(row)
				if err != nil {
					return err
				}
				if !free {
					kept, err := tx.IdempotencyKey("tok_1", "k")
					answer = string(kept.Body)
					return err
				}
				partner := newPartner(acme) // a second one would be a conflict
				if err := tx.InsertPartner(&partner); err != nil {
					return err
				}
				answer, row.Status, row.Body, row.Sealed = body, 201, []byte(body), true
				return tx.FinishIdempotencyKey(row)
			})
			return answer, err
		}
		answers := make([]string, requests)
		var group errgroup.Group
		for i := range requests {
			group.Go(func() (err error) {
				answers[i], err = request(fmt.Sprint("answer ", i))
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(answers); answers[0] == "" || answers[0] != answers[requests-1] {
			t.Errorf("the answers differ: %q … %q", answers[0], answers[requests-1])
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			other := &store.IdempotencyKey{Principal: "tok_2", Key: "k", Operation: "createPartner", RequestHash: []byte("h")}
			free, err := tx.ReserveIdempotencyKey(other)
			if !free {
				t.Error("the key of one principal is taken for another")
			}
			return err
		})
	})
}

func TestKeyOfAFailedRequestIsFreeAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		row := store.IdempotencyKey{Principal: "tok_1", Key: "k", Operation: "x", RequestHash: []byte("h")}
		for i := range 2 {
			failed := errors.New("failed")
			err := f.attempt(store.Operator(), func(tx *store.Tx) error {
				again := row
				if free, err := tx.ReserveIdempotencyKey(&again); err != nil || !free {
					t.Errorf("try %d: free %v, %v", i, free, err)
				}
				return failed
			})
			if !errors.Is(err, failed) {
				t.Error(err)
			}
		}
	})
}

func TestOldKeyIsTakenOverOnceOnly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const requests = 10
		row := store.IdempotencyKey{Principal: "tok_1", Key: "k", Operation: "x", RequestHash: []byte("old")}
		f.write(t, store.Operator(), func(tx *store.Tx) error { _, err := tx.ReserveIdempotencyKey(&row); return err })
		f.clock.Advance(25 * time.Hour)
		var executed sync.Map
		var group errgroup.Group
		for i := range requests {
			group.Go(func() error {
				took := false
				err := f.attempt(store.Operator(), func(tx *store.Tx) error {
					again := store.IdempotencyKey{Principal: "tok_1", Key: "k", Operation: "x", RequestHash: []byte("new")}
					took = false
					if free, err := tx.ReserveIdempotencyKey(&again); err != nil || free {
						return fmt.Errorf("free %v: %w", free, err)
					}
					kept, err := tx.IdempotencyKey("tok_1", "k")
					if err != nil || !kept.CreatedAt.Before(tx.Now.Add(-24*time.Hour)) {
						return err
					}
					took = true
					return tx.ReplaceIdempotencyKey(&again)
				})
				if took {
					executed.Store(i, true)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		count := 0
		executed.Range(func(any, any) bool { count++; return true })
		if count != 1 {
			t.Errorf("%d requests took the old key over, want 1", count)
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			kept, err := tx.IdempotencyKey("tok_1", "k")
			if string(kept.RequestHash) != "new" || !kept.CreatedAt.Equal(tx.Now) {
				t.Errorf("kept %q of %v, want the new request", kept.RequestHash, kept.CreatedAt)
			}
			if gone, err := tx.DeleteIdempotencyKeys(tx.Now); err != nil || gone != 0 {
				t.Errorf("%d keys forgotten, %v, want none", gone, err)
			}
			gone, err2 := tx.DeleteIdempotencyKeys(tx.Now.Add(time.Second))
			if gone != 1 {
				t.Errorf("%d keys forgotten, want 1", gone)
			}
			return errors.Join(err, err2)
		})
	})
}

func TestOldestDecisionsAreForgottenFirstAndAFewAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.write(t, store.EdgeTenant("edge_acme", nil), func(tx *store.Tx) error {
			batch := store.EventBatch{Generation: 9, FirstKept: 1}
			for ref, ago := range map[string]time.Duration{"first": 3 * time.Hour, "second": 2 * time.Hour, "third": time.Hour} {
				batch.Events = append(batch.Events, store.Event{
					Sequence: int64(len(batch.Events) + 1), Kind: store.EventRefused, Ref: ref, Reason: "ip-not-allowed", Time: noon.Add(-ago),
				})
			}
			_, err := tx.RecordEvents(batch)
			return err
		})
		forget := func(limit int) (more bool) {
			f.write(t, store.System(), func(tx *store.Tx) (err error) {
				more, err = tx.DeleteDecisions(noon.Add(-time.Minute), limit)
				return err
			})
			return more
		}
		knows := func(ref string) (known bool) {
			f.read(t, store.Operator(), func(tx *store.Tx) error {
				_, err := tx.Decision(ref)
				known = err == nil
				return nil
			})
			return known
		}
		if more := forget(1); !more || knows("first") || !knows("second") || !knows("third") {
			t.Errorf("more %t, first %t, second %t, third %t; want that the first is gone", more, knows("first"), knows("second"), knows("third"))
		}
		if more := forget(10); more || knows("second") || knows("third") {
			t.Errorf("more %t, second %t, third %t; want that all are gone", more, knows("second"), knows("third"))
		}
	})
}

// Controls 2 and 3.
func TestTokenIsRotatedTouchedAndRevoked(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		until := noon.Add(time.Hour)
		f.write(t, store.System(), func(tx *store.Tx) error {
			row, err := tx.LockToken("tok_acme")
			if err != nil {
				return err
			}
			row.PreviousHash, row.SecretHash, row.PreviousExpiresAt = row.SecretHash, []byte("next"), &until
			return tx.UpdateToken(&row)
		})
		f.clock.Advance(time.Minute)
		f.write(t, store.System(), func(tx *store.Tx) error { return tx.TouchToken("tok_acme") })
		var before store.Token
		f.read(t, store.System(), func(tx *store.Tx) (err error) {
			before, err = tx.Token("tok_acme")
			return err
		})
		if string(before.PreviousHash) != "tok_acme" || string(before.SecretHash) != "next" || !before.PreviousExpiresAt.Equal(until) {
			t.Errorf("rotated to %+v", before)
		}
		if before.Version != 2 || before.LastUsedAt == nil || !before.LastUsedAt.Equal(noon.Add(time.Minute)) {
			t.Errorf("version %d, last used %v: being used is no change", before.Version, before.LastUsedAt)
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error { return tx.RevokeTokens(acme, "acme.example") })
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			partner, err := tx.Token("tok_acme")
			customer, err2 := tx.Token("tok_c_acme")
			if partner.RevokedAt != nil || customer.RevokedAt == nil {
				t.Errorf("revoked %v and %v, want the token of the domain only", partner.RevokedAt, customer.RevokedAt)
			}
			if customer.Version != 2 {
				t.Errorf("version %d after the revocation, want the next one, 2", customer.Version)
			}
			return errors.Join(err, err2)
		})
		f.write(t, store.Operator(), func(tx *store.Tx) error { return tx.RevokeTokens(acme, "") })
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			partner, err := tx.Token("tok_acme")
			other, err2 := tx.Token("tok_beta")
			if partner.RevokedAt == nil || other.RevokedAt != nil {
				t.Error("want the partner's tokens revoked and no others")
			}
			return errors.Join(err, err2)
		})
	})
}

func TestJoinTokenIsUsedOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			return tx.InsertJoinToken(&store.JoinToken{ID: "jt_1", SecretHash: []byte("x"), Partners: store.Strings{acme}, ExpiresAt: noon.Add(time.Hour)})
		})
		var joined sync.Map
		var group errgroup.Group
		for i := range 8 {
			group.Go(func() error {
				used := errors.New("used")
				err := f.attempt(store.System(), func(tx *store.Tx) error {
					row, err := tx.LockJoinToken("jt_1")
					if err != nil {
						return err
					}
					if row.UsedAt != nil {
						return used
					}
					return tx.UseJoinToken(&row, fmt.Sprint("edge_", i))
				})
				if err == nil {
					joined.Store(i, true)
				} else if errors.Is(err, used) {
					err = nil
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		count := 0
		joined.Range(func(any, any) bool { count++; return true })
		if count != 1 {
			t.Errorf("%d edges joined with one token, want 1", count)
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.JoinToken("jt_1")
			if row.UsedAt == nil || row.UsedBy == "" || len(row.Partners) != 1 {
				t.Errorf("kept %+v", row)
			}
			if err := tx.DeleteJoinToken("jt_1"); err != nil {
				return err
			}
			if err := tx.DeleteJoinToken("jt_1"); !notFound(err) {
				t.Errorf("deleting it again: got %v, want not found", err)
			}
			return err
		})
	})
}

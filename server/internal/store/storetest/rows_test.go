package storetest_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/server/internal/store"
)

func TestUniqueKeysAreConflicts(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		owner := acme
		for constraint, insert := range map[string]func(tx *store.Tx) error{
			"partners_pkey": func(tx *store.Tx) error { row := newPartner(acme); return tx.InsertPartner(&row) },
			// The name belongs to whoever came first: even to another partner it is taken.
			store.DomainTaken: func(tx *store.Tx) error { row := newDomain(beta, "acme.example"); return tx.InsertDomain(&row) },
			"relay_ips_pkey": func(tx *store.Tx) error {
				row := newRelayIP("ip_acme", acme, "acme.example", "192.0.2.7/32")
				return tx.InsertRelayIP(&row)
			},
			"relay_ips_domain_address_key": func(tx *store.Tx) error {
				row := newRelayIP("ip_2", acme, "acme.example", "192.0.2.1/32")
				return tx.InsertRelayIP(&row)
			},
			"routes_domain_recipient_domain_key": func(tx *store.Tx) error {
				row := newRoute("rt_2", &owner, "acme.example", "")
				return tx.InsertRoute(&row)
			},
			"users_pkey": func(tx *store.Tx) error {
				row := newUser(acme, "acme.example", "user@acme.example")
				return tx.InsertUser(&row)
			},
			"tokens_pkey": func(tx *store.Tx) error { row := newToken("tok_acme", "operator", "", ""); return tx.InsertToken(&row) },
			"edges_pkey": func(tx *store.Tx) error {
				row := store.Edge{ID: "edge_all", Name: "again", PublicKey: "key"}
				return tx.InsertEdge(&row)
			},
		} {
			err := f.attempt(store.Operator(), insert)
			if !store.IsConflict(err, constraint) {
				t.Errorf("got %v, want a conflict on %s", err, constraint)
			}
		}
	})
}

func TestTakenDomainLeavesTheTransactionUsable(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			taken, free := newDomain(acme, "beta.example"), newDomain(acme, "free.example")
			if err := tx.InsertDomain(&taken); !store.IsConflict(err, store.DomainTaken) {
				t.Errorf("got %v, want a conflict", err)
			}
			return tx.InsertDomain(&free)
		})
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			_, err := tx.Domain("free.example")
			return err
		})
	})
}

func TestReferencesAreConflicts(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		for name, change := range map[string]func(tx *store.Tx) error{
			"a domain of no partner":     func(tx *store.Tx) error { row := newDomain(none, "x.example"); return tx.InsertDomain(&row) },
			"a partner that has domains": func(tx *store.Tx) error { return tx.DeletePartner(acme) },
			"a user of no domain": func(tx *store.Tx) error {
				row := newUser(acme, "x.example", "u@x.example")
				return tx.InsertUser(&row)
			},
			"a relay IP of no domain": func(tx *store.Tx) error {
				row := newRelayIP("ip_9", acme, "x.example", "192.0.2.9/32")
				return tx.InsertRelayIP(&row)
			},
		} {
			err := f.attempt(store.Operator(), change)
			conflict, ok := err.(*store.ErrConflict)
			if !ok || !conflict.ForeignKey() {
				t.Errorf("%s: got %v, want a conflict on a foreign key", name, err)
			}
		}
	})
}

func TestDeletedDomainTakesItsRowsAlongAndFreesItsName(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.write(t, store.PartnerTenant(acme), func(tx *store.Tx) error { return tx.DeleteDomain("acme.example") })
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			ips, err := tx.RelayIPsOf("acme.example")
			users, err2 := tx.UsersOf("acme.example")
			routes, err3 := tx.RoutesOf("acme.example")
			if len(ips)+len(users)+len(routes) != 0 {
				t.Errorf("%d relay IPs, %d users, %d routes are left", len(ips), len(users), len(routes))
			}
			return all(func() error { return err }, func() error { return err2 }, func() error { return err3 })
		})
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			if err := tx.DeletePartner(acme); err != nil {
				return err
			}
			row := newDomain(beta, "acme.example")
			return tx.InsertDomain(&row)
		})
	})
}

func TestRowsComeBackAsTheyWereWritten(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		// The clock runs on between the statements of a transaction; all rows carry the instant of the transaction.
		ticking := storetestTicking{clock: f.clock}
		s := f.db.OpenOnly(t, store.Config{Now: ticking.Now})
		zone, limit, when := "Asia/Kolkata", int64(7), noon.Add(1234567*time.Nanosecond).Truncate(time.Microsecond)
		var written store.Domain
		err := s.Write(context.Background(), store.Operator(), func(tx *store.Tx) (err error) {
			if written, err = tx.LockDomain("acme.example"); err != nil {
				return err
			}
			written.TimeZone, written.OverrideLimit, written.OverrideExpiresAt = &zone, &limit, &when
			written.LicensedUsers, written.IncludeSubdomains = 12, true
			written.Contacts = store.Strings{"ä@acme.example", `"q"@acme.example`}
			written.Suspend("unpaid", tx.Now)
			written.Relaying.Disable(store.CauseOperator, "spam", tx.Now)
			return tx.UpdateDomain(&written)
		})
		if err != nil {
			t.Fatal(err)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			read, err := tx.Domain("acme.example")
			if diff := cmp.Diff(written, read); diff != "" {
				t.Errorf("the row differs from what was written (-written +read):\n%s", diff)
			}
			return err
		})
		// Zero values must be writable.
		f.write(t, store.Operator(), func(tx *store.Tx) (err error) {
			if written, err = tx.LockDomain("acme.example"); err != nil {
				return err
			}
			written.TimeZone, written.OverrideLimit, written.OverrideExpiresAt = nil, nil, nil
			written.LicensedUsers, written.IncludeSubdomains, written.Contacts = 0, false, store.Strings{}
			written.Resume(tx.Now)
			written.Relaying.Enable(tx.Now)
			return tx.UpdateDomain(&written)
		})
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			read, err := tx.Domain("acme.example")
			if diff := cmp.Diff(written, read); diff != "" {
				t.Errorf("zero values were not written (-written +read):\n%s", diff)
			}
			return err
		})
	})
}

// storetestTicking moves its clock at each look.
type storetestTicking struct {
	clock interface{ Advance(time.Duration) }
}

func (c storetestTicking) Now() time.Time {
	c.clock.Advance(7 * time.Millisecond)
	return c.clock.(interface{ Now() time.Time }).Now()
}

// Control 10.
func TestUpdateOfARowThatWasChangedSinceIsAConflict(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		updates := map[string]func(tx *store.Tx, stale bool) error{
			"partner": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockPartner(acme)
				return stepped(err, &row.Version, stale, func() error { return tx.UpdatePartner(&row) })
			},
			"domain": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockDomain("acme.example")
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateDomain(&row) })
			},
			"relay IP": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockRelayIP("ip_acme")
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateRelayIP(&row) })
			},
			"route": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockRoute("rt_acme")
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateRoute(&row) })
			},
			"user": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockUser("user@acme.example")
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateUser(&row) })
			},
			"token": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockToken("tok_acme")
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateToken(&row) })
			},
			"settings": func(tx *store.Tx, stale bool) error {
				row, err := tx.LockSettings()
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateSettings(&row) })
			},
		}
		for name, update := range updates {
			for range 2 { // the second finds the version of the first
				if err := f.attempt(store.Operator(), func(tx *store.Tx) error { return update(tx, false) }); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			err := f.attempt(store.Operator(), func(tx *store.Tx) error { return update(tx, true) })
			if !store.IsConflict(err, store.VersionConstraint) {
				t.Errorf("a stale %s: got %v, want a conflict on the version", name, err)
			}
		}
	})
}

func stepped(err error, version *int64, stale bool, update func() error) error {
	if err != nil {
		return err
	}
	before := *version
	if stale {
		*version--
	}
	if err := update(); err != nil {
		return err
	}
	if *version != before+1 {
		return &store.ErrConflict{Constraint: "the version is not the next one"}
	}
	return nil
}

func TestRelayIPsAreFoundByAddress(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			for id, address := range map[string]string{"ip_24": "198.51.100.0/24", "ip_28": "198.51.100.16/28", "ip_48": "2001:db8:1::/48"} {
				row := newRelayIP(id, acme, "acme.example", address)
				if err := tx.InsertRelayIP(&row); err != nil {
					return err
				}
			}
			never := newRelayIP("ip_never", acme, "acme.example", "198.51.100.17/32")
			never.State, never.ActivatedAt = store.RelayIPRequested, nil
			return tx.InsertRelayIP(&never)
		})
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			for address, want := range map[string]string{
				"198.51.100.17": "ip_28", "198.51.100.1": "ip_24", "::ffff:198.51.100.40": "ip_24", "2001:db8:1:2::3": "ip_48",
				"198.51.101.1": "", "2001:db8:2::1": "",
			} {
				row, err := tx.MostSpecificRelayIP("acme.example", netip.MustParseAddr(address))
				if row.ID != want || (want == "") != notFound(err) {
					t.Errorf("%s: found %q, %v, want %q", address, row.ID, err, want)
				}
			}
			covering, err := tx.RelayIPs(store.RelayIPFilter{Covering: netip.MustParseAddr("198.51.100.17")}, "", 10)
			if len(covering) != 3 {
				t.Errorf("%d relay IPs hold the address, want 3", len(covering))
			}
			for prefix, taken := range map[string]bool{
				"198.51.100.17/32": true, "198.51.100.0/25": true, "198.51.101.0/24": false, "2001:db8:1:ff::/64": true,
			} {
				found, err := tx.AddressTakenByOther(beta, netip.MustParsePrefix(prefix))
				if err != nil || found != taken {
					t.Errorf("%s is taken by another: %v, %v, want %v", prefix, found, err, taken)
				}
			}
			own, err2 := tx.AddressTakenByOther(acme, netip.MustParsePrefix("198.51.100.17/32"))
			if own {
				t.Error("a partner's own address counts as another's")
			}
			return all(func() error { return err }, func() error { return err2 })
		})
	})
}

func TestDeletingWhatWasDisabledForAbuseIsNoticed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		disabled := func() (found bool) {
			f.read(t, store.Operator(), func(tx *store.Tx) (err error) {
				found, err = tx.DisabledForAbuse("acme.example")
				return err
			})
			return found
		}
		if disabled() {
			t.Error("a domain in order counts as disabled")
		}
		for name, change := range map[string]func(tx *store.Tx) error{
			"user": func(tx *store.Tx) error {
				row, err := tx.LockUser("user@acme.example")
				row.Relaying.Disable(store.CauseComplaints, "x", tx.Now)
				return all(func() error { return err }, func() error { return tx.UpdateUser(&row) })
			},
			"relay IP": func(tx *store.Tx) error {
				row, err := tx.LockRelayIP("ip_acme")
				row.State, row.Cause = store.RelayIPDisabled, store.CauseOperator
				return all(func() error { return err }, func() error { return tx.UpdateRelayIP(&row) })
			},
			"domain": func(tx *store.Tx) error {
				row, err := tx.LockDomain("acme.example")
				row.Relaying.Disable(store.CauseOperator, "x", tx.Now)
				return all(func() error { return err }, func() error { return tx.UpdateDomain(&row) })
			},
		} {
			undone := context.Canceled
			err := f.attempt(store.Operator(), func(tx *store.Tx) error {
				if err := change(tx); err != nil {
					return err
				}
				if found, err := tx.DisabledForAbuse("acme.example"); err != nil || !found {
					t.Errorf("a disabled %s: %v, %v, want that it is noticed", name, found, err)
				}
				return undone
			})
			if err != undone {
				t.Error(err)
			}
		}
	})
}

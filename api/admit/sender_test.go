package admit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api"
)

// told is what the client reads: code and sentence, or "ok" and the domain.
func told(v Verdict) string {
	if v.Action == Accept {
		if v.Domain == nil {
			return "ok"
		}
		return "ok " + v.Domain.Name
	}
	reply := v.Reply("", "")
	if (v.Action == Defer) != (reply.Code < 500) {
		return fmt.Sprintf("action %s with code %d", v.Action, reply.Code)
	}
	return fmt.Sprintf("%d %s", reply.Code, reply.Lines[0])
}

// senderCase is what a client with an address or a user says of itself, and what it is told.
type senderCase struct {
	name         string
	change       func(*world)
	client, user string
	from         string
	want         string
}

func judgeSenders(t *testing.T, cases []senderCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := Sender(changed(t, c.change), clientOf(t, c.client, c.user), addr(t, c.from))
			if got := told(v); got != c.want {
				t.Fatalf("got  %s\nwant %s\nreceipt %+v", got, c.want, v.Checks)
			}
		})
	}
}

func clientOf(t *testing.T, address, user string) Client {
	t.Helper()
	if address == "" {
		address = "198.51.100.7"
	}
	client := byIP(address)
	if user != "" {
		client.User = addr(t, user)
	}
	return client
}

func TestARelayIPSpeaksForItsDomainOnly(t *testing.T) {
	judgeSenders(t, []senderCase{
		{name: "an active relay IP may", client: "192.0.2.10", from: "anyone@example.com", want: "ok example.com"},
		{
			name: "an unknown address may not", client: "198.51.100.7", from: "a@example.com",
			want: "550 Relaying denied: client address 198.51.100.7 is not active for example.com; contact help@acme.example",
		},
		{
			name: "a relay IP of another domain may not", client: "192.0.2.20", from: "a@example.com",
			want: "550 Relaying denied: client address 192.0.2.20 is not active for example.com; contact help@acme.example",
		},
		{
			name: "a relay IP disabled by a person may not", client: "192.0.2.10", from: "a@example.com",
			change: func(w *world) { w.com.Clients[0].State = api.ClientPolicyStateDisabled },
			want:   "550 Relaying denied: client address 192.0.2.10 is not active for example.com; contact help@acme.example",
		},
		{
			name: "a relay IP disabled by complaints is told so", client: "192.0.2.10", from: "a@example.com",
			change: func(w *world) {
				w.com.Clients[0].State, w.com.Clients[0].Cause = api.ClientPolicyStateDisabled, ptr(api.ClientPolicyCauseComplaints)
			},
			want: "550 Relaying is disabled for 192.0.2.10 (abuse complaints); contact help@acme.example",
		},
		{
			name: "nobody may for a domain that is not registered", client: "192.0.2.10", from: "a@example.org",
			want: "550 Sender domain example.org is not registered for relaying",
		},
		{
			name: "a subdomain is another domain", client: "192.0.2.10", from: "a@mail.example.com",
			want: "550 Sender domain mail.example.com is not registered for relaying",
		},
		{
			name: "unless the domain includes it", client: "192.0.2.10", from: "a@mail.example.com",
			change: func(w *world) { w.com.IncludeSubdomains = true }, want: "ok example.com",
		},
	})
}

func TestAUserSpeaksForItselfAndItsAliasesOnly(t *testing.T) {
	judgeSenders(t, []senderCase{
		{name: "a user may as itself", user: "anna@example.com", from: "Anna@example.com", want: "ok example.com"},
		{name: "a user may as its alias", user: "anna@example.com", from: "info@example.com", want: "ok example.com"},
		{name: "a user may as an alias in another domain of the partner", user: "anna@example.com", from: "shop@example.net", want: "ok example.net"},
		{
			name: "a user may not as a colleague", user: "anna@example.com", from: "bo@example.com",
			want: "553 anna@example.com may not send as bo@example.com",
		},
		{
			name: "unless the domain allows it", user: "anna@example.com", from: "bo@example.com",
			change: func(w *world) { w.com.UsersMaySendAs = api.DomainPolicyUsersMaySendAsDomain }, want: "ok example.com",
		},
		{
			name: "and then in no other domain", user: "anna@example.com", from: "bo@example.net",
			change: func(w *world) { w.com.UsersMaySendAs = api.DomainPolicyUsersMaySendAsDomain },
			want:   "553 anna@example.com may not send as bo@example.net",
		},
		{
			name: "a user of another partner's domain is told it is not registered", user: "anna@example.com", from: "x@rival.test",
			want: "550 Sender domain rival.test is not registered for relaying",
		},
		{
			name: "a user that was removed may not", user: "gone@example.com", from: "gone@example.com",
			want: "553 gone@example.com may not send as gone@example.com",
		},
		{
			name: "a user's address does not help the user", client: "192.0.2.10", user: "anna@example.com", from: "bo@example.com",
			want: "553 anna@example.com may not send as bo@example.com",
		},
	})
}

func TestTheNullSenderWaitsForTheFromField(t *testing.T) {
	judgeSenders(t, []senderCase{
		{name: "of a relay IP", client: "192.0.2.10", from: "", want: "ok"},
		{name: "of a user too", user: "anna@example.com", from: "", want: "ok"},
		{name: "but not of a removed one", user: "gone@example.com", from: "", want: "553 gone@example.com may not send as this sender"},
	})
}

// standingCase is a domain, partner or user in some standing, and what the client is told.
type standingCase struct {
	name   string
	change func(*world)
	user   string // without one it is a relay IP
	want   string
}

func judgeStanding(t *testing.T, cases []standingCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			c.change(w)
			client, from := byIP("192.0.2.10"), "a@example.com"
			if c.user != "" {
				client, from = byUser(t, c.user), c.user
			}
			view := w.view(t)
			if got := told(Sender(view, client, addr(t, from))); got != c.want {
				t.Fatalf("got  %s\nwant %s", got, c.want)
			}
			if c.user == "" {
				return
			}
			// A user with the null sender is known already, and judged so.
			got, want := told(Sender(view, client, addr(t, ""))), strings.TrimSuffix(c.want, " example.com")
			if got != want && got != c.want {
				t.Fatalf("null sender: got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTheSuspendedAreDeferredForADayAndThenRefused(t *testing.T) {
	hoursAgo := func(h int) *time.Time { return ptr(noon().Add(-time.Duration(h) * time.Hour)) }
	suspended := api.AdministrativeStatusSuspended
	judgeStanding(t, []standingCase{
		{
			name: "a suspended domain", change: func(w *world) { w.com.Status, w.com.StatusSince = suspended, hoursAgo(1) },
			want: "450 Relaying is suspended for example.com; contact help@acme.example",
		},
		{
			name: "suspended for a day", change: func(w *world) { w.com.Status, w.com.StatusSince = suspended, hoursAgo(24) },
			want: "550 Relaying is suspended for example.com; contact help@acme.example",
		},
		{
			name: "suspended since nobody knows when", change: func(w *world) { w.com.Status = suspended },
			want: "450 Relaying is suspended for example.com; contact help@acme.example",
		},
		{
			name: "a platform without patience", change: func(w *world) { w.com.Status, w.settings.SuspendedDeferHours = suspended, 0 },
			want: "550 Relaying is suspended for example.com; contact help@acme.example",
		},
		{
			name: "a suspended partner", change: func(w *world) { w.acme.Status, w.acme.StatusSince = suspended, hoursAgo(1) },
			want: "450 Relaying is suspended for example.com; contact help@acme.example",
		},
		{
			name: "a suspended user", user: "anna@example.com", change: func(w *world) { w.com.Users[0].Status, w.com.Users[0].StatusSince = suspended, hoursAgo(30) },
			want: "550 Relaying is suspended for anna@example.com; contact help@acme.example",
		},
		{
			name: "another suspended user", user: "anna@example.com", change: func(w *world) { w.com.Users[1].Status = suspended },
			want: "ok example.com",
		},
	})
}

func TestTheAbusiveAreRefused(t *testing.T) {
	judgeStanding(t, []standingCase{
		{
			name: "an abusive domain", change: func(w *world) { w.com.Relaying = disabled() },
			want: "550 Relaying is disabled for example.com (abuse complaints); contact help@acme.example",
		},
		{
			name: "an abusive partner", change: func(w *world) { w.acme.Relaying = disabled() },
			want: "550 Relaying is disabled for example.com (abuse complaints); contact help@acme.example",
		},
		{
			name: "an abusive user", user: "anna@example.com", change: func(w *world) { w.com.Users[0].Relaying = disabled() },
			want: "525 Relaying is disabled for anna@example.com (abuse complaints); contact help@acme.example",
		},
		{
			name: "a user of an abusive domain", user: "anna@example.com", change: func(w *world) { w.com.Relaying = disabled() },
			want: "525 Relaying is disabled for example.com (abuse complaints); contact help@acme.example",
		},
		{
			name: "abusive and suspended", change: func(w *world) { w.com.Relaying, w.com.Status = disabled(), api.AdministrativeStatusSuspended },
			want: "550 Relaying is disabled for example.com (abuse complaints); contact help@acme.example",
		},
		{
			name: "a partner without a contact", change: func(w *world) { w.com.Relaying, w.acme.SupportContact = disabled(), nil },
			want: "550 Relaying is disabled for example.com (abuse complaints)",
		},
	})
}

func TestStalePolicyRefusesNothingForGood(t *testing.T) {
	type staleness struct {
		name   string
		change func(*View)
		stale  bool
	}
	fresh := []staleness{
		{name: "polled half a minute ago", change: func(v *View) { v.LastPoll = noon().Add(-30 * time.Second) }},
		{name: "polled longer ago", change: func(v *View) { v.LastPoll = noon().Add(-30*time.Second - 1) }, stale: true},
		{name: "never finished a pass", change: func(v *View) { v.Complete = false }, stale: true},
		{name: "never polled", change: func(v *View) { v.LastPoll = time.Time{} }, stale: true},
	}
	cases := []senderCase{
		{
			name: "unknown domain", client: "192.0.2.10", from: "a@example.org",
			want: "451 Cannot confirm just now that sender domain example.org is registered for relaying; try again later",
		},
		{
			name: "unknown address", client: "198.51.100.7", from: "a@example.com",
			want: "451 Cannot confirm just now that client address 198.51.100.7 is active for example.com; try again later; contact help@acme.example",
		},
		{
			name: "colleague", user: "anna@example.com", from: "bo@example.com",
			want: "451 Cannot confirm just now that anna@example.com may send as bo@example.com; try again later",
		},
		{
			name: "removed user", user: "gone@example.com", from: "gone@example.com",
			want: "451 Cannot confirm just now that gone@example.com may send as gone@example.com; try again later",
		},
		{
			name: "abusive domain", client: "192.0.2.10", from: "a@example.com", change: func(w *world) { w.com.Relaying = disabled() },
			want: "451 Relaying was disabled for example.com (abuse complaints) when policy was last heard; try again later; contact help@acme.example",
		},
		{
			name: "suspended for long", client: "192.0.2.10", from: "a@example.com",
			change: func(w *world) {
				w.com.Status, w.com.StatusSince = api.AdministrativeStatusSuspended, ptr(noon().Add(-99*time.Hour))
			},
			want: "450 Relaying is suspended for example.com; contact help@acme.example",
		},
		{name: "what is allowed stays allowed", client: "192.0.2.10", from: "a@example.com", want: "ok example.com"},
	}
	for _, s := range fresh {
		for _, c := range cases {
			t.Run(s.name+"/"+c.name, func(t *testing.T) {
				view := changed(t, c.change)
				s.change(&view)
				v := Sender(view, clientOf(t, c.client, c.user), addr(t, c.from))
				got := told(v)
				if s.stale && got != c.want {
					t.Fatalf("got  %s\nwant %s", got, c.want)
				}
				if !s.stale && v.Action == Defer {
					t.Fatalf("deferred though fresh: %s", got)
				}
			})
		}
	}
}

func TestWhatDoesNotCompileDefersOnlyWhatNeedsIt(t *testing.T) {
	judgeSenders(t, []senderCase{
		{
			name: "partner has not come", change: func(w *world) { w.without = []string{"partner/acme"} }, client: "192.0.2.10", from: "a@example.com",
			want: "451 Cannot confirm the relaying policy of example.com just now; try again later",
		},
		{
			name: "status of a newer control plane", change: func(w *world) { w.com.Status = "pending" }, client: "192.0.2.10", from: "a@example.com",
			want: "451 Cannot confirm the relaying policy of example.com just now; try again later",
		},
		{
			name: "body of another domain", change: func(w *world) { w.com.Name = "other.test" }, client: "192.0.2.10", from: "a@example.com",
			want: "451 Cannot confirm the relaying policy of example.com just now; try again later",
		},
		{
			name: "body of another domain, and the sender is a user's alias", change: func(w *world) { w.net.Name = "other.test" },
			user: "anna@example.com", from: "shop@example.net",
			want: "451 Cannot confirm the relaying policy of example.net just now; try again later",
		},
		{name: "a bad relay IP, and this one is good", change: badClient, client: "192.0.2.10", from: "a@example.com", want: "ok example.com"},
		{
			name: "a bad relay IP, and this one is not found", change: badClient, client: "192.0.2.11", from: "a@example.com",
			want: "451 Cannot confirm the relaying policy of example.com just now; try again later",
		},
		{name: "a bad relay IP, and the sender is a user", change: badClient, user: "anna@example.com", from: "anna@example.com", want: "ok example.com"},
		{name: "a bad user, and this one is good", change: badUser, user: "anna@example.com", from: "anna@example.com", want: "ok example.com"},
		{
			name: "a bad user, and this one is not found", change: badUser, user: "cy@example.com", from: "cy@example.com",
			want: "451 Cannot confirm the relaying policy of example.com just now; try again later",
		},
		{name: "a bad user, and the sender is a relay IP", change: badUser, client: "192.0.2.10", from: "a@example.com", want: "ok example.com"},
	})
}

func badClient(w *world) {
	w.com.Clients = append(w.com.Clients, api.ClientPolicy{ID: "bad", Address: "nowhere", State: api.ClientPolicyStateActive})
}

func badUser(w *world) {
	w.com.Users = append(w.com.Users, api.UserPolicy{Address: "nobody", Status: api.AdministrativeStatusActive, Relaying: enabled()})
}

func TestTheFromFieldMustBelongToTheSamePartner(t *testing.T) {
	shared := func(w *world) {
		w.net.Clients = append(w.net.Clients, api.ClientPolicy{ID: "rip_shared", Address: "192.0.2.10/32", State: api.ClientPolicyStateActive})
	}
	cases := []struct {
		name         string
		change       func(*world)
		client, user string
		envelope     string
		from         string
		want         string
	}{
		{name: "the same domain", client: "192.0.2.10", envelope: "a@example.com", from: "b@example.com", want: "ok example.com"},
		{name: "another domain of the partner, same relay IP", change: shared, client: "192.0.2.10", envelope: "a@example.com", from: "b@example.net", want: "ok example.net"},
		{
			name: "another domain of the partner, other relay IP", client: "192.0.2.10", envelope: "a@example.com", from: "b@example.net",
			want: "550 Relaying denied: client address 192.0.2.10 is not active for example.net; contact help@acme.example",
		},
		// 192.0.2.10 is active for rival.test too, which must not help.
		{
			name: "a domain of another partner", client: "192.0.2.10", envelope: "a@example.com", from: "b@rival.test",
			want: "550 Sender domain rival.test is not registered for relaying",
		},
		{
			name: "a domain that is not registered", client: "192.0.2.10", envelope: "a@example.com", from: "b@example.org",
			want: "550 Sender domain example.org is not registered for relaying",
		},
		{
			name: "a suspended domain of the partner", change: func(w *world) { shared(w); w.net.Status = api.AdministrativeStatusSuspended },
			client: "192.0.2.10", envelope: "a@example.com", from: "b@example.net",
			want: "450 Relaying is suspended for example.net; contact help@acme.example",
		},
		{name: "null sender", client: "192.0.2.10", envelope: "", from: "b@example.com", want: "ok example.com"},
		{name: "null sender, any domain that the address is active for", client: "192.0.2.10", envelope: "", from: "b@rival.test", want: "ok rival.test"},
		{
			name: "null sender, unknown address", client: "198.51.100.7", envelope: "", from: "b@example.com",
			want: "550 Relaying denied: client address 198.51.100.7 is not active for example.com; contact help@acme.example",
		},
		{
			name: "a user as another", user: "anna@example.com", envelope: "anna@example.com", from: "boss@example.com",
			want: "553 anna@example.com may not send as boss@example.com",
		},
		{name: "a user with the null sender", user: "anna@example.com", envelope: "", from: "anna@example.com", want: "ok example.com"},
		{
			name: "a user with the null sender as another", user: "anna@example.com", envelope: "", from: "bo@example.com",
			want: "553 anna@example.com may not send as bo@example.com",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			view, client := changed(t, c.change), clientOf(t, c.client, c.user)
			envelope := Sender(view, client, addr(t, c.envelope))
			if envelope.Action != Accept {
				t.Fatalf("envelope: %s", told(envelope))
			}
			if got := told(HeaderFrom(view, client, envelope.Domain, addr(t, c.from))); got != c.want {
				t.Fatalf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestAnotherPartnersDomainIsToldApartFromNoDomainByNothing holds the promise of
// tenancy: the whole verdict, receipt included, is the same whether rival.test
// is registered or not, and whatever its state.
func TestAnotherPartnersDomainIsToldApartFromNoDomainByNothing(t *testing.T) {
	states := map[string]func(*world){
		"active":       func(*world) {},
		"suspended":    func(w *world) { w.rival.Status = api.AdministrativeStatusSuspended },
		"disabled":     func(w *world) { w.rival.Relaying = disabled() },
		"no partner":   func(w *world) { w.without = []string{"partner/rival"} },
		"including":    func(w *world) { w.rival.IncludeSubdomains = true },
		"same address": func(w *world) { w.rival.Clients[0].Address = "198.51.100.7" },
	}
	for name, change := range states {
		for _, fresh := range []bool{true, false} {
			for _, from := range []string{"x@rival.test", "x@sub.rival.test"} {
				t.Run(fmt.Sprintf("%s/fresh %v/%s", name, fresh, from), func(t *testing.T) {
					with, none := newWorld(), newWorld()
					change(with)
					none.without = []string{"domain/rival.test"}
					for _, ask := range []func(View) Verdict{
						func(v View) Verdict { return Sender(v, byUser(t, "anna@example.com"), addr(t, from)) },
						func(v View) Verdict { return Sender(v, byUser(t, "gone@example.com"), addr(t, from)) },
						func(v View) Verdict {
							return HeaderFrom(v, byUser(t, "anna@example.com"), nil, addr(t, from))
						},
						func(v View) Verdict {
							client := byIP("192.0.2.10")
							envelope := Sender(v, client, addr(t, "a@example.com"))
							return HeaderFrom(v, client, envelope.Domain, addr(t, from))
						},
					} {
						a, b := with.view(t), none.view(t)
						a.Complete, b.Complete = fresh, fresh
						if diff := cmp.Diff(ask(b), ask(a)); diff != "" {
							t.Fatalf("not registered (-) and another partner's (+) differ:\n%s", diff)
						}
					}
				})
			}
		}
	}
}

func TestTheReceiptListsTheChecksInOrder(t *testing.T) {
	w := newWorld()
	accepted := Sender(w.view(t), byIP("192.0.2.10"), addr(t, "a@example.com"))
	want := []Check{
		{Name: CheckSenderDomain, Outcome: Passed, Detail: "example.com"},
		{Name: CheckClient, Outcome: Passed, Detail: "192.0.2.10/32"},
		{Name: CheckStanding, Outcome: Passed},
	}
	if diff := cmp.Diff(want, accepted.Checks); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	if accepted.RelayIP != "rip_example.com" || accepted.Partner.Slug != "acme" {
		t.Errorf("let in by %q of %q", accepted.RelayIP, accepted.Partner.Slug)
	}
	w.com.Status = api.AdministrativeStatusSuspended
	refused := Sender(w.view(t), byIP("192.0.2.10"), addr(t, "a@example.com"))
	if got := refused.Detail(); got != "standing failed: example.com is suspended" {
		t.Errorf("deciding check: %s", got)
	}
	if got := refused.Reply("01KAQ7M2", "fra1").Lines[1]; got != "reason=relay-suspended ref=01KAQ7M2 edge=fra1 rev=6" {
		t.Errorf("second line: %s", got)
	}
}

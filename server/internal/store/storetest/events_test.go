package storetest_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"activerelay/server/internal/store"
)

// Each event is counted once, however batches overlap, repeat and arrive late, and reports are what a count by hand says.
func TestReportsAreWhatACountByHandSays(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		runs := 0
		rapid.Check(t, func(t *rapid.T) {
			runs++
			f.clock.Set(noon)
			name := fmt.Sprintf("run%d", runs)
			f.addPartner(t, name)
			domains := []string{"a." + name + ".example", "b." + name + ".example"}
			for _, domain := range domains {
				f.addDomain(t, name, domain, nil)
			}
			feeds := make([]*feed, 2)
			for i := range feeds {
				feeds[i] = &feed{edge: fmt.Sprintf("edge_%s_%d", name, i)}
				f.addEdge(t, feeds[i].edge, name)
			}
			for range rapid.IntRange(1, 12).Draw(t, "steps") {
				feed := rapid.SampledFrom(feeds).Draw(t, "edge")
				for range rapid.IntRange(0, 8).Draw(t, "new events") {
					feed.events = append(feed.events, drawEvent(t, domains, feed))
				}
				feed.send(t, f)
			}
			for _, feed := range feeds {
				feed.sendAll(t, f)
			}
			compareReports(t, f, name, domains, slices.Concat(feeds[0].events, feeds[1].events))
		})
	})
}

// feed is the outbox of one edge.
type feed struct {
	edge         string
	events       []store.Event
	acknowledged int64
}

func drawEvent(t *rapid.T, domains []string, feed *feed) store.Event {
	pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
	e := store.Event{
		Sequence: int64(len(feed.events)) + 1, Time: noon.Add(-time.Duration(rapid.IntRange(0, 30).Draw(t, "age")) * time.Hour),
		Domain:        pick("domain", append(domains, "foreign.example")...),
		ClientAddress: pick("client", "192.0.2.1", "192.0.2.2", "2001:db8::1"),
		User:          pick("user", "", "u@example", "v@example"), Sender: pick("sender", "s1@example", "s2@example"),
		Recipients: rapid.Int64Range(1, 5).Draw(t, "recipients"), Kind: store.EventAccepted,
	}
	if rapid.Bool().Draw(t, "refused") {
		e.Kind, e.Reason, e.Recipients = store.EventRefused, pick("reason", "quota-reached", "bulk-refused"), 0
		e.Ref = fmt.Sprintf("%s-%d", feed.edge, e.Sequence)
	}
	return e
}

// send sends some of the outbox: events that were taken already among them, and perhaps with a hole before them.
func (o *feed) send(t *rapid.T, f *fixture) {
	from := rapid.IntRange(0, len(o.events)).Draw(t, "from")
	to := rapid.IntRange(from, len(o.events)).Draw(t, "to")
	o.report(t, f, o.events[from:to])
}

func (o *feed) sendAll(t *rapid.T, f *fixture) {
	o.report(t, f, o.events)
	if o.acknowledged != int64(len(o.events)) {
		t.Fatalf("%d of %d events are acknowledged", o.acknowledged, len(o.events))
	}
}

func (o *feed) report(t *rapid.T, f *fixture, events []store.Event) {
	f.write(t, store.EdgeTenant(o.edge, []string{o.edge[len("edge_") : len(o.edge)-2]}), func(tx *store.Tx) error {
		batch := store.EventBatch{Generation: 1, FirstKept: 1, Events: slices.Clone(events)}
		outcome, err := tx.RecordEvents(batch)
		if err == nil && (outcome.Fenced || outcome.Acknowledged < o.acknowledged || outcome.GapTo != 0) {
			t.Fatalf("a batch after %d is answered %+v", o.acknowledged, outcome)
		}
		o.acknowledged = outcome.Acknowledged
		return err
	})
}

// byHand counts events of one domain on one day, UTC.
type byHand struct {
	messages, recipients int64
	refusals             map[string]int64
	senders              map[[2]string]*store.SenderTotal
}

func countByHand(events []store.Event, domain, day string) *byHand {
	c := &byHand{refusals: map[string]int64{}, senders: map[[2]string]*store.SenderTotal{}}
	for _, e := range events {
		if e.Domain != domain || e.Time.Format(time.DateOnly) != day {
			continue
		}
		if e.Kind == store.EventAccepted {
			c.messages++
			c.recipients += e.Recipients
		} else {
			c.refusals[e.Reason]++
		}
		for _, sender := range [][2]string{{store.SenderClientAddress, e.ClientAddress}, {store.SenderUser, e.User}, {store.SenderAddress, e.Sender}} {
			if sender[1] == "" {
				continue
			}
			total := c.senders[sender]
			if total == nil {
				total = &store.SenderTotal{Kind: sender[0], Key: sender[1]}
				c.senders[sender] = total
			}
			if e.Kind == store.EventAccepted {
				total.Messages++
				total.Recipients += e.Recipients
				continue
			}
			total.Refused++
			i := slices.IndexFunc(total.Refusals, func(r store.RefusalCount) bool { return r.Reason == e.Reason })
			if i < 0 {
				total.Refusals, i = append(total.Refusals, store.RefusalCount{Reason: e.Reason}), len(total.Refusals)
			}
			total.Refusals[i].Messages++
		}
	}
	return c
}

func mostFirst(a, b store.RefusalCount) int {
	return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Reason, b.Reason))
}

func compareReports(t *rapid.T, f *fixture, partner string, domains []string, events []store.Event) {
	f.read(t, store.PartnerTenant(partner), func(tx *store.Tx) error {
		for _, day := range []string{"2026-11-21", "2026-11-22"} {
			for _, domain := range domains {
				want := countByHand(events, domain, day)
				reports, err := tx.DayReports(store.DayFilter{Domain: domain, From: day, To: day}, store.DayCursor{}, 10)
				if err != nil {
					return err
				}
				if len(want.senders) == 0 {
					if len(reports) != 0 {
						t.Fatalf("%s %s: a report of nothing: %+v", domain, day, reports)
					}
					continue
				}
				if len(reports) != 1 || reports[0].Messages != want.messages || reports[0].Recipients != want.recipients {
					t.Fatalf("%s %s: reported %+v, counted %d messages, %d recipients", domain, day, reports, want.messages, want.recipients)
				}
				if err := compareDay(t, tx, reports[0], want); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func compareDay(t *rapid.T, tx *store.Tx, day store.QuotaDay, want *byHand) error {
	refusals, err := tx.Refusals([]store.QuotaDay{day})
	if err != nil {
		return err
	}
	var counted []store.RefusalCount
	for reason, messages := range want.refusals {
		counted = append(counted, store.RefusalCount{Reason: reason, Messages: messages})
	}
	slices.SortFunc(counted, mostFirst)
	if diff := gocmp.Diff(counted, refusals[0]); diff != "" {
		t.Fatalf("refusals of %s (-counted +reported):\n%s", day.Domain, diff)
	}
	start, err := tx.DayStartOf(day.Domain, day.Day)
	if err != nil || !start.Equal(day.DayStart) {
		t.Fatalf("%s of %s starts at %v, %v", day.Day, day.Domain, start, err)
	}
	for _, kind := range []string{store.SenderClientAddress, store.SenderUser, store.SenderAddress} {
		var senders []store.SenderTotal
		for sender, total := range want.senders {
			if sender[0] == kind {
				slices.SortFunc(total.Refusals, mostFirst)
				senders = append(senders, *total)
			}
		}
		slices.SortFunc(senders, func(a, b store.SenderTotal) int {
			return cmp.Or(cmp.Compare(b.Messages+b.Refused, a.Messages+a.Refused), cmp.Compare(a.Key, b.Key))
		})
		senders = senders[:min(2, len(senders))]
		found, err := tx.TopSenders(day.Domain, day.DayStart, kind, 2)
		if err != nil {
			return err
		}
		if len(senders)+len(found) > 0 && !gocmp.Equal(senders, found) {
			t.Fatalf("top senders of %s (-counted +reported):\n%s", day.Domain, gocmp.Diff(senders, found))
		}
	}
	return nil
}

// An edge whose disk went back tells again, in a new generation, what it has; what it did since then has numbers of before too.
func TestWhatIsToldAgainInANewGenerationIsCountedOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		event := func(sequence int64, after time.Duration) store.Event {
			return store.Event{
				Sequence: sequence, Time: noon.Add(after + 123), Kind: store.EventAccepted, Domain: "acme.example", Sender: "s@acme.example",
				Recipients: 1, MessageID: fmt.Sprintf("message-%d-%v", sequence, after), RecipientDomains: []string{"far.example"},
			}
		}
		report := func(generation, want int64, events ...store.Event) {
			t.Helper()
			f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error {
				outcome, err := tx.RecordEvents(store.EventBatch{Generation: generation, FirstKept: 1, Events: events})
				if err == nil && (outcome.Fenced || outcome.Acknowledged != want) {
					t.Fatalf("answered %+v, want %d acknowledged", outcome, want)
				}
				return err
			})
		}
		counted := func(want int64) {
			t.Helper()
			f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
				days, err := tx.DayReports(store.DayFilter{Domain: "acme.example", From: "2026-11-22", To: "2026-11-22"}, store.DayCursor{}, 10)
				if err != nil || len(days) != 1 || days[0].Messages != want {
					t.Fatalf("reported %+v, %v, want %d messages", days, err, want)
				}
				senders, err := tx.TopSenders("acme.example", days[0].DayStart, store.SenderAddress, 1)
				if err != nil || len(senders) != 1 || senders[0].Messages != want {
					t.Fatalf("top senders %+v, %v, want %d messages", senders, err, want)
				}
				return nil
			})
		}
		report(1, 4, event(1, 1), event(2, 2*time.Second), event(3, time.Second), event(4, 4*time.Second))
		counted(4)
		// It was set back to before event 4, and made others since.
		report(2, 2, event(1, 1), event(2, 2*time.Second))
		report(2, 4, event(2, 2*time.Second), event(3, time.Second), event(4, time.Minute))
		counted(5)
		report(2, 5, event(5, 2*time.Minute))
		counted(6)
		// And twice more, once before it had told all of that.
		report(3, 2, event(1, 1), event(2, 2*time.Second))
		report(4, 3, event(1, 1), event(2, 2*time.Second), event(3, time.Second))
		report(4, 6, event(4, time.Minute), event(5, 2*time.Minute), event(6, 3*time.Minute))
		counted(7)
	})
}

// What an edge told while its clock was a day ahead says nothing of what is new once its disk and its clock are set back.
func TestNothingNewIsLostAfterAClockThatWasAhead(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		event := func(kind string, sequence int64, at time.Duration) store.Event {
			return store.Event{Sequence: sequence, Time: noon.Add(at), Kind: kind, Domain: "acme.example", Recipients: 1}
		}
		refused := event(store.EventRefused, 4, 3*time.Minute)
		refused.Ref, refused.Reason = "ref_1", "bulk-refused"
		quick := event(store.EventRefused, 5, 1) // its clock is set, and it refuses before any time of before is over
		quick.Ref, quick.Reason = "ref_2", "bulk-refused"
		report := func(generation int64, events ...store.Event) {
			t.Helper()
			f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error {
				_, err := tx.RecordEvents(store.EventBatch{Generation: generation, FirstKept: 1, Events: events})
				return err
			})
		}
		report(1, event(store.EventAccepted, 1, 0), event(store.EventAccepted, 2, 24*time.Hour), event(store.EventAccepted, 3, 24*time.Hour),
			event(store.EventAccepted, 4, 24*time.Hour), event(store.EventAccepted, 5, 24*time.Hour))
		f.clock.Advance(5 * time.Minute)
		report(2, event(store.EventAccepted, 1, 0), event(store.EventAccepted, 2, 3*time.Minute), event(store.EventAccepted, 3, 4*time.Minute),
			refused, quick)
		report(3, event(store.EventAccepted, 1, 0), event(store.EventAccepted, 2, 3*time.Minute), event(store.EventAccepted, 3, 4*time.Minute),
			refused, quick)
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			days, err := tx.DayReports(store.DayFilter{Domain: "acme.example", From: "2026-11-22", To: "2026-11-22"}, store.DayCursor{}, 10)
			if err != nil || len(days) != 1 || days[0].Messages != 7 {
				t.Fatalf("reported %+v, %v, want the five of the first clock and the two since", days, err)
			}
			refusals, err := tx.Refusals(days)
			if err != nil || len(refusals[0]) != 1 || refusals[0][0].Messages != 2 {
				t.Errorf("reported refusals %+v, %v, want both, once", refusals, err)
			}
			return err
		})
	})
}

func TestLostEventsAreRecordedAndBlockNothing(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		record := func(batch store.EventBatch) (outcome store.EventOutcome) {
			f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) (err error) {
				outcome, err = tx.RecordEvents(batch)
				return err
			})
			return outcome
		}
		event := func(sequence int64) store.Event {
			return store.Event{Sequence: sequence, Time: noon, Kind: store.EventAccepted, Domain: "acme.example", Recipients: 1}
		}
		if got := record(store.EventBatch{Generation: 1, FirstKept: 1, Events: []store.Event{event(1), event(2)}}); got.Acknowledged != 2 || len(got.Taken) != 2 {
			t.Errorf("got %+v, want two taken", got)
		}
		// What lies beyond a hole waits for it.
		if got := record(store.EventBatch{Generation: 1, FirstKept: 1, Events: []store.Event{event(5)}}); got.Acknowledged != 2 || len(got.Taken) != 0 {
			t.Errorf("got %+v, want that the fifth waits", got)
		}
		got := record(store.EventBatch{Generation: 1, FirstKept: 5, Events: []store.Event{event(5)}})
		if got.GapFrom != 3 || got.GapTo != 4 || got.Acknowledged != 5 {
			t.Errorf("got %+v, want that 3 and 4 are lost", got)
		}
		if got := record(store.EventBatch{Generation: 2, FirstKept: 1, Events: []store.Event{event(1)}}); got.Acknowledged != 1 || len(got.Taken) != 1 {
			t.Errorf("got %+v, want the first of the next generation", got)
		}
		if got := record(store.EventBatch{Generation: 1, FirstKept: 1, Events: []store.Event{event(6)}}); !got.Fenced {
			t.Errorf("got %+v, want that the old generation is over", got)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			entries, err := tx.AuditEntries(store.AuditFilter{Object: "edge/edge_1"}, "", 10)
			if len(entries) != 1 || entries[0].Reason != "events 3 to 4 are lost" {
				t.Errorf("the audit log says %+v", entries)
			}
			return err
		})
	})
}

func TestReportsOfADomainThatChangedHandsStayWithWhomTheyWere(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			moved := newDomain(beta, "acme.example")
			return all(func() error { return tx.DeleteDomain("acme.example") }, func() error { return tx.InsertDomain(&moved) })
		})
		start := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		for slug, want := range map[string]int{acme: 1, beta: 0} {
			f.read(t, store.PartnerTenant(slug), func(tx *store.Tx) error {
				senders, err := tx.TopSenders("acme.example", start, store.SenderClientAddress, 10)
				if len(senders) != want {
					t.Errorf("%s sees %d senders of the time before, want %d", slug, len(senders), want)
				}
				return err
			})
		}
	})
}

func TestNoticesGoOutOnceADay(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		sequence := map[string]int64{}
		use := func(edge string, start time.Time, granted, spent int64) store.LeaseGrant {
			sequence[edge]++
			report := store.LeaseReport{Domain: "acme.example", DayStart: start, Want: 500, AtLeast: 1}
			report.Counters.Granted, report.Counters.Spent = granted, spent
			return f.lease(t, edge, sequence[edge], report)
		}
		notices := func(edge string) (mails []store.NoticeMail) {
			f.read(t, store.EdgeTenant(edge, nil), func(tx *store.Tx) error {
				rows, err := tx.Instructions(100)
				for _, row := range rows {
					var mail store.NoticeMail
					if err := json.Unmarshal([]byte(row.Body), &mail); err != nil || row.Kind != store.InstructionSendNotice {
						t.Errorf("instruction %+v: %v", row, err)
					}
					mails = append(mails, mail)
				}
				return err
			})
			return mails
		}
		for day := range 2 {
			f.clock.Set(noon.AddDate(0, 0, day))
			one, two := use("edge_1", time.Time{}, 0, 0), use("edge_2", time.Time{}, 0, 0)
			start := one.Day.DayStart
			use("edge_1", start, *one.Granted, 400)
			if n := len(notices("edge_1")); n != 2*day {
				t.Errorf("day %d: %d notices at 40 %%, want those of the day before only", day, n)
			}
			one, two = use("edge_1", start, *one.Granted, 400), use("edge_2", start, *two.Granted, *two.Granted)
			for range 20 { // both go on until nothing is left, and say so again and again
				one = use("edge_1", start, *one.Granted, *one.Granted)
				two = use("edge_2", start, *two.Granted, *two.Granted)
			}
			if one.State != "reached" || two.State != "reached" || two.Day.Spent != 1000 {
				t.Fatalf("day %d: %+v, want the limit reached", day, two)
			}
			kinds := map[string]int{}
			for _, mail := range append(notices("edge_1"), notices("edge_2")...) {
				kinds[mail.Kind]++
				if mail.Domain != "acme.example" || mail.Limit != 1000 || mail.Used < 800 || len(mail.To) != 1 || mail.To[0] != "admin@acme.example" {
					t.Errorf("a notice says %+v", mail)
				}
			}
			if kinds["quota-warning"] != day+1 || kinds["quota-reached"] != day+1 {
				t.Errorf("after %d days: %v, want one of each a day", day+1, kinds)
			}
		}
		total := len(notices("edge_1"))
		f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(1, true) })
		if left := len(notices("edge_1")); total > 0 && left != total-1 {
			t.Errorf("%d of %d instructions are left after the first was acknowledged", left, total)
		}
		f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(1<<40, true) })
		if left := len(notices("edge_1")); left != 0 {
			t.Errorf("%d instructions are left after all were acknowledged", left)
		}
	})
}

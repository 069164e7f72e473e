package storetest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"activerelay/server/internal/store"
)

// tell records events of an edge, numbered on.
func (f *fixture) tell(t fatal, edge string, events ...store.Event) {
	t.Helper()
	f.write(t, store.EdgeTenant(edge, nil), func(tx *store.Tx) error {
		row, err := tx.Edge(edge)
		if err != nil {
			return err
		}
		numbered := slices.Clone(events)
		for i := range numbered {
			numbered[i].Sequence = row.EventAcknowledged + int64(i) + 1
			if numbered[i].Time.IsZero() {
				numbered[i].Time = noon
			}
		}
		_, err = tx.RecordEvents(store.EventBatch{Generation: row.EventGeneration, FirstKept: 1, Events: numbered})
		return err
	})
}

func accepted(id, domain string, destinations ...string) store.Event {
	return store.Event{
		Kind: store.EventAccepted, MessageID: id, Domain: domain, Sender: "anna@" + domain, Recipients: int64(len(destinations)),
		RecipientDomains: destinations,
	}
}

func outcome(kind, id, recipient string) store.Event {
	return store.Event{Kind: kind, MessageID: id, Domain: "acme.example", Recipient: recipient, Recipients: 1}
}

// waiting lists what a tenant sees as "message destination remaining state attempts".
func (f *fixture) waiting(t fatal, tenant store.Tenant, filter store.QueueFilter) []string {
	t.Helper()
	list := []string{}
	f.read(t, tenant, func(tx *store.Tx) error {
		rows, err := tx.QueuedMessages(filter, store.QueueCursor{}, 1000)
		for _, r := range rows {
			list = append(list, fmt.Sprintf("%s %s %d %s %d", r.MessageID, r.Destination, r.Remaining, r.State, r.Attempts))
		}
		return err
	})
	return list
}

const (
	first  = "01KAQ7M2Z8Y3F6N5T4R1W0X9VA"
	second = "01KAQ7M2Z8Y3F6N5T4R1W0X9VB"
)

// queueStep is what an edge tells, and what is in the queue then.
type queueStep struct {
	name   string
	events []store.Event
	want   []string
}

func queueSteps() []queueStep {
	deferred := outcome(store.EventDeferred, first, "b@y.example")
	deferred.Attempts, deferred.NextAttemptAt, deferred.Reply, deferred.RemoteHost = 3, noon.Add(time.Minute), "450 4.2.0 later", "mx.y.example"
	deferred.TLS, deferred.DelayReason = "TLS 1.3 dane", "deferred"
	return []queueStep{
		{"accepted", []store.Event{accepted(first, "acme.example", "y.example", "y.example", "z.example")}, []string{
			first + " y.example 2 queued 0", first + " z.example 1 queued 0",
		}},
		{"come and gone in one batch", []store.Event{
			accepted(second, "acme.example", "y.example"), outcome(store.EventDelivered, second, "b@y.example"),
		}, []string{first + " y.example 2 queued 0", first + " z.example 1 queued 0"}},
		{"not served", []store.Event{accepted(second, "foreign.example", "y.example")}, []string{
			first + " y.example 2 queued 0", first + " z.example 1 queued 0",
		}},
		{"deferred", []store.Event{deferred}, []string{first + " y.example 2 queued 3", first + " z.example 1 queued 0"}},
		{"held", []store.Event{{Kind: store.EventHeld, MessageID: first, Domain: "acme.example", RecipientDomains: []string{"z.example"}}}, []string{
			first + " y.example 2 queued 3", first + " z.example 1 held 0",
		}},
		{"released, one bounced", []store.Event{
			{Kind: store.EventReleased, MessageID: first, RecipientDomains: []string{"z.example"}}, outcome(store.EventBounced, first, "b@y.example"),
		}, []string{first + " y.example 1 queued 3", first + " z.example 1 queued 0"}},
		{"expired, quarantined", []store.Event{
			outcome(store.EventExpired, first, "c@y.example"), {Kind: store.EventQuarantined, MessageID: first, Detail: "a torn envelope"},
		}, []string{first + " z.example 1 quarantined 0"}},
		{"released", []store.Event{{Kind: store.EventReleased, MessageID: first, RecipientDomains: []string{"z.example"}}}, []string{
			first + " z.example 1 queued 0",
		}},
		{"cancelled", []store.Event{outcome(store.EventCancelled, first, "d@z.example")}, []string{}},
		{"damaged beyond reading", []store.Event{
			accepted(second, "acme.example", "y.example", "z.example"), {Kind: store.EventQuarantined, MessageID: second},
		}, []string{second + " y.example 1 quarantined 0", second + " z.example 1 quarantined 0"}},
		{"cancelled whole", []store.Event{{Kind: store.EventCancelled, MessageID: second}}, []string{}},
		{"an attempt of a message that nothing is known of", []store.Event{outcome(store.EventDeferred, second, "b@y.example")}, []string{
			second + " y.example 1 queued 0",
		}},
		{"told again", []store.Event{accepted(second, "acme.example", "w.example")}, []string{second + " w.example 1 queued 0"}},
	}
}

func TestTheQueueIsWhatTheEventsTell(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		for _, step := range queueSteps() {
			if step.name == "told again" { // which an edge does that was set back
				f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error {
					_, err := tx.RecordEvents(store.EventBatch{Generation: 2, FirstKept: 1})
					return err
				})
			}
			f.tell(t, "edge_1", step.events...)
			if diff := gocmp.Diff(step.want, f.waiting(t, store.Operator(), store.QueueFilter{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.name, diff)
			}
			if step.name == "expired, quarantined" {
				f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
					rows, err := tx.QueuedMessages(store.QueueFilter{State: store.Quarantined}, store.QueueCursor{}, 10)
					if err == nil && (len(rows) != 1 || rows[0].LastReply != "a torn envelope") {
						t.Errorf("in quarantine are %+v", rows)
					}
					return err
				})
			}
			if step.name == "deferred" {
				f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
					rows, err := tx.QueuedMessage(first)
					if err == nil && (len(rows) != 2 || rows[0].LastReply != "450 4.2.0 later" || rows[0].RemoteHost != "mx.y.example" ||
						rows[0].TLS != "TLS 1.3 dane" || rows[0].DelayReason != "deferred" || rows[1].DelayReason != "" ||
						!rows[0].NextAttemptAt.Equal(noon.Add(time.Minute)) || rows[0].Sender != "anna@acme.example" || rows[1].NextAttemptAt != nil) {
						t.Errorf("got %+v", rows)
					}
					return err
				})
			}
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			edge, err := tx.LockEdge("edge_1")
			return all(func() error { return err }, func() error { return tx.RetireEdge(&edge) })
		})
		if left := f.waiting(t, store.Operator(), store.QueueFilter{}); len(left) != 0 {
			t.Errorf("the retired edge has %q", left)
		}
	})
}

func TestTheQueueIsNarrowedAndPaged(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, owner := range []string{acme, beta} {
			f.addPartner(t, owner)
			f.addDomain(t, owner, owner+".example", nil)
		}
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		f.tell(t, "edge_1", accepted("m1", "acme.example", "y.example", "z.example"), accepted("m2", "beta.example", "y.example"))
		null := accepted("m3", "acme.example", "z.example")
		null.Sender = ""
		f.tell(t, "edge_2", null)
		for _, test := range []struct {
			tenant store.Tenant
			filter store.QueueFilter
			want   int
		}{
			{store.Operator(), store.QueueFilter{}, 4},
			{store.PartnerTenant(acme), store.QueueFilter{}, 3},
			{store.PartnerTenant(acme), store.QueueFilter{Partner: beta}, 0},
			{store.PartnerTenant(beta), store.QueueFilter{MessageIDs: []string{"m1"}}, 0},
			{store.Tenant{}, store.QueueFilter{}, 0},
			{store.Operator(), store.QueueFilter{Destination: "y.example"}, 2},
			{store.Operator(), store.QueueFilter{Domain: "acme.example", Destination: "y.example"}, 1},
			{store.Operator(), store.QueueFilter{Sender: "Anna@acme.example"}, 2},
			{store.Operator(), store.QueueFilter{NullSender: true}, 1},
			{store.Operator(), store.QueueFilter{Edge: "edge_2"}, 1},
			{store.Operator(), store.QueueFilter{State: store.Held}, 0},
		} {
			if got := f.waiting(t, test.tenant, test.filter); len(got) != test.want {
				t.Errorf("%+v: %q, want %d", test.filter, got, test.want)
			}
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			var seen []string
			at := store.QueueCursor{}
			for {
				rows, err := tx.QueuedMessages(store.QueueFilter{}, at, 1)
				if err != nil || len(rows) == 0 {
					if want := []string{"m1 y.example", "m1 z.example", "m2 y.example", "m3 z.example"}; !slices.Equal(seen, want) {
						t.Errorf("pages hold %q", seen)
					}
					return err
				}
				at = store.QueueCursor{MessageID: rows[0].MessageID, Destination: rows[0].Destination, Edge: rows[0].Edge}
				seen = append(seen, at.MessageID+" "+at.Destination)
			}
		})
	})
}

func TestWhatWasNotTriedForAWeekIsTakenForLostUnlessItIsHeld(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		f.tell(t, "edge_1", accepted(first, "acme.example", "y.example", "z.example"),
			store.Event{Kind: store.EventHeld, MessageID: first, RecipientDomains: []string{"z.example"}})
		late := accepted(second, "acme.example", "y.example")
		late.Time = noon.Add(time.Hour)
		f.tell(t, "edge_1", late)
		f.write(t, store.System(), func(tx *store.Tx) error {
			n, err := tx.DeleteStaleQueued(noon.Add(time.Minute))
			if n != 1 {
				t.Errorf("%d were taken for lost, want 1", n)
			}
			return err
		})
		want := []string{first + " z.example 1 held 0", second + " y.example 1 queued 0"}
		if diff := gocmp.Diff(want, f.waiting(t, store.Operator(), store.QueueFilter{})); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	})
}

// told are the queue instructions that an edge has not acknowledged.
func (f *fixture) told(t *testing.T, edge string) (kinds []string, bodies []store.QueueInstruction) {
	t.Helper()
	f.read(t, store.EdgeTenant(edge, nil), func(tx *store.Tx) error {
		rows, err := tx.Instructions(100)
		for _, row := range rows {
			var body store.QueueInstruction
			if err := json.Unmarshal([]byte(row.Body), &body); err != nil {
				return err
			}
			kinds, bodies = append(kinds, row.Kind), append(bodies, body)
		}
		return err
	})
	return kinds, bodies
}

func TestAnOperationInstructsTheEdgesAndKnowsWhatTheyMadeOfIt(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, owner := range []string{acme, beta} {
			f.addPartner(t, owner)
			f.addDomain(t, owner, owner+".example", nil)
		}
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		f.addEdge(t, "edge_beta", beta)
		f.tell(t, "edge_1", accepted("m1", "acme.example", "y.example"))
		f.tell(t, "edge_2", accepted("m2", "beta.example", "y.example"))

		one := store.QueueOperation{ID: "qop_1", Action: "cancel", Partner: acme, MessageIDs: store.Strings{"m1"}, Reason: "spam"}
		f.write(t, store.PartnerTenant(acme), func(tx *store.Tx) error { return tx.OperateQueue(&one) })
		kinds, bodies := f.told(t, "edge_1")
		want := store.QueueInstruction{OperationID: "qop_1", Partner: acme, MessageIDs: []string{"m1"}, Reason: "spam"}
		if diff := gocmp.Diff([]store.QueueInstruction{want}, bodies); diff != "" || kinds[0] != "queue-cancel" || one.Matched != 1 {
			t.Errorf("told %v (-want +got):\n%s", kinds, diff)
		}
		if kinds, _ := f.told(t, "edge_2"); len(kinds) != 0 {
			t.Errorf("the other edge was told %v", kinds)
		}
		foreign := store.QueueOperation{ID: "qop_x", Action: "cancel", Partner: acme, MessageIDs: store.Strings{"m2"}}
		if err := f.attempt(store.PartnerTenant(acme), func(tx *store.Tx) error { return tx.OperateQueue(&foreign) }); !notFound(err) {
			t.Errorf("another's message: got %v, want not found", err)
		}

		// Whatever fits: also edges that have told of none may have some.
		all := store.QueueOperation{ID: "qop_2", Action: "hold", Partner: acme, Destination: "y.example"}
		f.write(t, store.PartnerTenant(acme), func(tx *store.Tx) error { return tx.OperateQueue(&all) })
		for edge, want := range map[string]int{"edge_1": 2, "edge_2": 1, "edge_beta": 0} {
			if kinds, _ := f.told(t, edge); len(kinds) != want {
				t.Errorf("%s was told %v, want %d", edge, kinds, want)
			}
		}
		progress := func() (p store.QueueProgress) {
			f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) (err error) { _, p, err = tx.QueueOperation("qop_2"); return err })
			return p
		}
		if p := progress(); p != (store.QueueProgress{Edges: 2}) {
			t.Errorf("before: %+v", p)
		}
		f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(2, true) })
		done := store.Event{Kind: store.EventQueueOperation, Ref: "qop_2", Messages: 1, Recipients: 1}
		f.tell(t, "edge_1", done)
		if p := progress(); p != (store.QueueProgress{Edges: 2, Acknowledged: 1, Done: 1, Messages: 1, Recipients: 1}) {
			t.Errorf("half: %+v", p)
		}
		done.Messages, done.Recipients = 0, 0
		f.tell(t, "edge_2", done)
		f.tell(t, "edge_beta", store.Event{Kind: store.EventQueueOperation, Ref: "qop_2", Messages: 9, Recipients: 9}) // was not told
		if p := progress(); p.Done != 2 || p.Messages != 1 || p.FinishedAt == nil || !p.FinishedAt.Equal(noon) {
			t.Errorf("after: %+v", p)
		}
		f.write(t, store.System(), func(tx *store.Tx) error {
			n, err := tx.DeleteQueueOperations(noon.Add(time.Second))
			if n != 2 {
				t.Errorf("%d operations were forgotten, want 2", n)
			}
			return err
		})
		if err := f.Read(t.Context(), store.Operator(), func(tx *store.Tx) error { _, _, err := tx.QueueOperation("qop_2"); return err }); !notFound(err) {
			t.Errorf("a forgotten one: %v", err)
		}
	})
}

func TestAnOperationThatNoEdgeIsToldOfIsFinishedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addPartner(t, beta)
		progress := func(id string) (p store.QueueProgress) {
			f.write(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
				return tx.OperateQueue(&store.QueueOperation{ID: id, Action: "retry", Partner: acme, Destination: "y.example"})
			})
			f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) (err error) { _, p, err = tx.QueueOperation(id); return err })
			return p
		}
		if p := progress("qop_1"); p.Edges != 0 || p.FinishedAt == nil || !p.FinishedAt.Equal(noon) {
			t.Errorf("without an edge: %+v", p)
		}
		f.addEdge(t, "edge_beta", beta)
		if p := progress("qop_2"); p.Edges != 0 || p.FinishedAt == nil || !p.FinishedAt.Equal(noon) {
			t.Errorf("with an edge of another partner: %+v", p)
		}
		f.addEdge(t, "edge_1")
		if p := progress("qop_3"); p.Edges != 1 || p.FinishedAt != nil {
			t.Errorf("with an edge that was told: %+v", p)
		}
	})
}

func TestAnOperationThatAnEdgeDoesNotUnderstandFinishesAndCountsTheEdge(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		f.addEdge(t, "edge_3")
		f.write(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			return tx.OperateQueue(&store.QueueOperation{ID: "qop_1", Action: "hold", Partner: acme, Destination: "y.example"})
		})
		progress := func() (p store.QueueProgress) {
			f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) (err error) { _, p, err = tx.QueueOperation("qop_1"); return err })
			return p
		}
		unable := store.Event{Kind: store.EventInstructionUnknown, Ref: "qop_1", Detail: "kind not known to this version"}
		f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(1, true) })
		f.tell(t, "edge_1", store.Event{Kind: store.EventInstructionUnknown, Detail: "of another kind, without a reference"}, unable, unable)
		if p := progress(); p != (store.QueueProgress{Edges: 3, Acknowledged: 1, Done: 1, Unable: 1}) {
			t.Errorf("one is unable: %+v", p)
		}
		f.tell(t, "edge_2", store.Event{Kind: store.EventQueueOperation, Ref: "qop_1", Messages: 2, Recipients: 3})
		if p := progress(); p != (store.QueueProgress{Edges: 3, Acknowledged: 1, Done: 2, Unable: 1, Messages: 2, Recipients: 3}) {
			t.Errorf("one of three is to tell: %+v", p)
		}
		f.tell(t, "edge_3", unable)
		if p := progress(); p.Done != 3 || p.Unable != 2 || p.Messages != 2 || p.FinishedAt == nil || !p.FinishedAt.Equal(noon) {
			t.Errorf("all have told: %+v", p)
		}
		// It was upgraded before the acknowledgement arrived, and told again.
		f.tell(t, "edge_3", store.Event{Kind: store.EventQueueOperation, Ref: "qop_1", Messages: 1, Recipients: 1})
		if p := progress(); p.Done != 3 || p.Unable != 1 || p.Messages != 3 {
			t.Errorf("one is able now: %+v", p)
		}
	})
}

// Such an edge acknowledges every instruction and tells nothing of those that it passes over.
func TestAnEdgeThatKnowsNoOperationsIsNotWaitedFor(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addEdge(t, "edge_1")
		progress := func() (p store.QueueProgress) {
			f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) (err error) { _, p, err = tx.QueueOperation("qop_2"); return err })
			return p
		}
		acknowledge := func(number int64, operates bool) {
			f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(number, operates) })
		}
		for _, id := range []string{"qop_1", "qop_2", "qop_3"} {
			f.write(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
				return tx.OperateQueue(&store.QueueOperation{ID: id, Action: "hold", Partner: acme, Destination: "y.example"})
			})
		}
		f.tell(t, "edge_1", store.Event{Kind: store.EventQueueOperation, Ref: "qop_1", Messages: 1, Recipients: 1})
		acknowledge(1, false)
		if p := progress(); p != (store.QueueProgress{Edges: 1}) {
			t.Errorf("before it has come to it: %+v", p)
		}
		acknowledge(2, false)
		if p := progress(); p.Acknowledged != 1 || p.Done != 1 || p.Unable != 1 || p.FinishedAt == nil || !p.FinishedAt.Equal(noon) {
			t.Errorf("once it has passed over it: %+v", p)
		}
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			_, told, err := tx.QueueOperation("qop_1")
			if told.Unable != 0 || told.Messages != 1 {
				t.Errorf("of the one that it told of there is %+v", told)
			}
			_, next, err2 := tx.QueueOperation("qop_3")
			if next != (store.QueueProgress{Edges: 1}) {
				t.Errorf("of the one after there is %+v", next)
			}
			return all(func() error { return err }, func() error { return err2 })
		})
		// It was known for older than it is.
		f.tell(t, "edge_1", store.Event{Kind: store.EventQueueOperation, Ref: "qop_2", Messages: 2, Recipients: 3})
		if p := progress(); p.Done != 1 || p.Unable != 0 || p.Messages != 2 || p.FinishedAt == nil {
			t.Errorf("once it has told after all: %+v", p)
		}
		acknowledge(3, true)
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			_, p, err := tx.QueueOperation("qop_3")
			if p != (store.QueueProgress{Edges: 1, Acknowledged: 1}) {
				t.Errorf("of one that knows them and is to tell: %+v", p)
			}
			return err
		})
	})
}

// For each domain: accepted = delivered + bounced + expired + cancelled + held + queued, however events are batched.
func TestTheQueueBalancesWithTheOutcomesOfEveryDomain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addDomain(t, acme, "second.example", nil)
		runs := 0
		rapid.Check(t, func(t *rapid.T) {
			runs++
			edge := fmt.Sprintf("edge_%d", runs)
			f.addEdge(t, edge)
			left, pending := map[string]int64{}, []store.Event{}
			var batch []store.Event
			for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
				if len(pending) == 0 || rapid.Bool().Draw(t, "accept") {
					domain := rapid.SampledFrom([]string{"acme.example", "second.example"}).Draw(t, "domain")
					destinations := rapid.SliceOfN(rapid.SampledFrom([]string{"x.example", "y.example"}), 1, 4).Draw(t, "destinations")
					e := accepted(fmt.Sprintf("run%d-%d", runs, i), domain, destinations...)
					batch, left[domain] = append(batch, e), left[domain]+e.Recipients
					for _, d := range destinations {
						pending = append(pending, store.Event{MessageID: e.MessageID, Domain: domain, Recipient: "r@" + d, Recipients: 1})
					}
				} else {
					at := rapid.IntRange(0, len(pending)-1).Draw(t, "recipient")
					e := pending[at]
					e.Kind = rapid.SampledFrom([]string{
						store.EventDelivered, store.EventBounced, store.EventExpired, store.EventCancelled, store.EventDeferred, store.EventHeld,
					}).Draw(t, "outcome")
					switch e.Kind {
					case store.EventHeld:
						e.RecipientDomains = []string{e.Recipient[2:]}
					case store.EventDeferred:
					default:
						pending, left[e.Domain] = slices.Delete(pending, at, at+1), left[e.Domain]-1
					}
					batch = append(batch, e)
				}
				if rapid.IntRange(0, 3).Draw(t, "send") == 0 {
					f.tell(t, edge, batch...)
					batch = nil
				}
			}
			f.tell(t, edge, batch...)
			f.read(t, store.Operator(), func(tx *store.Tx) error {
				rows, err := tx.QueuedMessages(store.QueueFilter{Edge: edge}, store.QueueCursor{}, 1000)
				for _, row := range rows {
					left[row.Domain] -= row.Remaining
				}
				for domain, n := range left {
					if n != 0 {
						t.Errorf("%s: %d recipients too few in the queue", domain, n)
					}
				}
				return err
			})
		})
	})
}

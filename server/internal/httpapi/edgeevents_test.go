package httpapi_test

import (
	"strconv"
	"testing"
	"time"

	"activerelay/api"
)

func accepted(sequence int64, recipients int) object {
	return object{
		"sequence": sequence, "time": noon, "kind": "message-accepted", "domain": "example.com", "sender": "anna@example.com",
		"client_address": "192.0.2.10", "recipients": recipients, "units": 1, "day_start": midnight,
	}
}

func refused(sequence int64, ref, domain string) object {
	return object{
		"sequence": sequence, "time": noon, "kind": "message-refused", "domain": domain, "sender": "anna@example.com", "ref": ref,
		"reason": "quota-reached", "stage": "rcpt", "reply": "450 4.7.1 Relay limit reached for " + domain, "client_address": "192.0.2.10",
	}
}

func (e *edge) report(generation, firstKept int64, events ...object) reply {
	e.f.t.Helper()
	return e.call("POST", "/v1/edge/events", object{
		"generation": generation, "first_kept": firstKept, "events": append([]object{}, events...),
	})
}

func (r reply) acknowledges(number int64) {
	r.t.Helper()
	var ack api.EventAck
	r.want(200).into(&ack)
	if ack.Acknowledged != number {
		r.t.Errorf("acknowledged %d, want %d", ack.Acknowledged, number)
	}
}

// day is the report of the one day that there is, nil when there is none.
func (f *fixture) day() *api.QuotaReport {
	f.t.Helper()
	var page api.QuotaReportList
	f.call(f.Token, "GET", "/v1/quota-reports", nil).want(200).into(&page)
	if len(page.Items) == 0 {
		return nil
	}
	return &page.Items[0]
}

const ref = "01KAQ7M2Z8Y3F6N5T4R1W0X9VB"

func TestEventsAreCountedOnceHoweverOftenTheyAreSent(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	e := f.edge("fra1")
	batch := []object{accepted(1, 2), accepted(2, 3), refused(3, ref, "example.com")}
	e.report(1, 1, batch...).acknowledges(3)
	e.report(1, 1, batch...).acknowledges(3)
	e.report(1, 1, append(batch[1:], accepted(4, 1))...).acknowledges(4)
	got := f.day()
	if got == nil || got.Messages != 3 || got.Recipients != 6 || got.Refused != 1 {
		t.Errorf("the day shows %+v, want 3 messages to 6 recipients and 1 refused", got)
	}
	var decision api.Decision
	f.call(f.Token, "GET", "/v1/decisions/"+ref, nil).want(200).into(&decision)
	if decision.Edge != e.id || decision.Partner == nil || *decision.Partner != "acme" {
		t.Errorf("the decision is %+v, want the edge's, about acme", decision)
	}
}

func TestEventsBehindAHoleWaitForIt(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	e := f.edge("fra1")
	e.report(1, 1, accepted(1, 1), accepted(3, 1)).acknowledges(1)
	e.report(1, 1, accepted(2, 1), accepted(3, 1)).acknowledges(3)
	// What the edge no longer has is waited for by nobody, and written down.
	e.report(1, 10, accepted(10, 1)).acknowledges(10)
	if got := f.day(); got.Messages != 4 {
		t.Errorf("%d messages, want 4", got.Messages)
	}
	for entry := range f.audit("edge/" + e.id) {
		if entry.Action == "reportEvents" && entry.Reason != nil && *entry.Reason == "events 4 to 9 are lost" {
			return
		}
	}
	t.Error("the gap is not in the audit log")
}

func TestEventsOfAGenerationThatIsOverAreFenced(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	e.report(2, 5, object{"sequence": 5, "time": noon, "kind": "notice-queued"}).acknowledges(5)
	e.report(1, 1, object{"sequence": 1, "time": noon, "kind": "notice-queued"}).refused(409, "edge-fenced")
}

func TestControl13EventsCountForNoPartnerOutsideTheScope(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.partner("other")
	f.domain("other", "example.com", 100)
	var token api.TokenWithSecret
	f.call(f.Token, "POST", "/v1/tokens", object{"name": "other", "role": "partner", "partner": "other"}).want(201).into(&token)
	e := f.edge("fra1", "acme")
	e.report(1, 1, accepted(1, 1), refused(2, ref, "example.com")).acknowledges(2)
	if got := f.day(); got != nil {
		t.Errorf("the day of a foreign domain shows %+v", got)
	}
	f.call(token.Token, "GET", "/v1/decisions/"+ref, nil).refused(404, "not-found")
	f.call(f.Token, "GET", "/v1/decisions/"+ref, nil).want(200) // the operator sees who said so
}

func TestAPartnerCanLookUpWhatAUserWasRefusedForADomainThatIsNoneOfOurs(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	var token api.TokenWithSecret
	f.call(f.Token, "POST", "/v1/tokens", object{"name": "acme", "role": "partner", "partner": "acme"}).want(201).into(&token)
	event := refused(1, ref, "")
	delete(event, "domain")
	event["user"], event["sender"] = "anna@example.com", "anna@elsewhere.example"
	f.edge("fra1").report(1, 1, event).acknowledges(1)
	var decision api.Decision
	f.call(token.Token, "GET", "/v1/decisions/"+ref, nil).want(200).into(&decision)
	if decision.Domain == nil || *decision.Domain != "example.com" {
		t.Errorf("the decision is %+v, want it shown to the user's domain", decision)
	}
	if got := f.day(); got != nil {
		t.Errorf("the day shows %+v, want that it counts for no domain", got)
	}
}

func TestAFullBatchIsTakenWhole(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 10_000)
	e := f.edge("fra1")
	events := make([]object, 1000)
	for i := range events {
		events[i] = accepted(int64(i+1), 1)
		events[i]["sender"] = "user" + strconv.Itoa(i%7) + "@example.com"
		events[i]["time"] = noon.Add(time.Duration(i) * time.Millisecond)
	}
	e.report(1, 1, events...).acknowledges(1000)
	if got := f.day(); got.Messages != 1000 {
		t.Errorf("%d messages, want 1000", got.Messages)
	}
}

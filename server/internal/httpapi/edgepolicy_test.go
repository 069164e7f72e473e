package httpapi_test

import (
	"net/url"
	"strconv"
	"testing"
	"time"

	"activerelay/api"
)

// patience is how long a test waits for what happens at once on a machine that is not busy.
const patience = 30 * time.Second

// place is where an edge stands in the policy.
type place struct{ epoch, after string }

func (p pulled) at() place { return place{p.page.Epoch, p.page.Next} }

type pulled struct{ page api.PolicyPage }

// keys are the documents of a page.
func (p pulled) keys() map[string]api.PolicyDocument {
	keys := map[string]api.PolicyDocument{}
	for _, document := range p.page.Documents {
		keys[document.Key] = document
	}
	return keys
}

func pollPath(at place, wait int, acknowledged int64) string {
	query := url.Values{"wait": {strconv.Itoa(wait)}, "acknowledged": {strconv.FormatInt(acknowledged, 10)}}
	if at.epoch != "" {
		query.Set("epoch", at.epoch)
		query.Set("after", at.after)
	}
	return "/v1/edge/policy?" + query.Encode()
}

// pull makes one poll that has something to bring.
func (e *edge) pull(epoch, after string) pulled {
	e.f.t.Helper()
	var got pulled
	e.call("GET", pollPath(place{epoch, after}, 0, 0), nil).want(200).into(&got.page)
	return got
}

// polling is a poll in the background.
type polling struct {
	f     *fixture
	reply chan reply
}

func (e *edge) startPoll(at place, wait int) polling {
	p := polling{f: e.f, reply: make(chan reply, 1)}
	go func() {
		got, err := e.f.try(e.f.t.Context(), e.credential, "GET", pollPath(at, wait, 0), nil, nil)
		if err != nil {
			e.f.t.Error(err)
		}
		p.reply <- got
	}()
	return p
}

func (p polling) result() reply {
	p.f.t.Helper()
	select {
	case got := <-p.reply:
		return got
	case <-time.After(patience):
		p.f.t.Fatal("the poll goes on waiting")
		return reply{}
	}
}

// untilPolling returns when so many polls are in work.
func (f *fixture) untilPolling(count int) {
	f.t.Helper()
	for begin := time.Now(); f.metric("relay_server_policy_polls_waiting") != strconv.Itoa(count); {
		if time.Since(begin) > patience {
			f.t.Fatalf("never %d polls in work", count)
		}
	}
}

func TestAWaitingPollIsWokenByAChange(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	e := f.edge("fra1")
	at := e.pull("", "").at()
	poll := e.startPoll(at, 30)
	f.untilPolling(1)
	f.call(f.Token, "POST", "/v1/partners/acme/suspend", object{"reason": "contract ended"}).want(200)
	var got pulled
	poll.result().want(200).into(&got.page)
	document := got.keys()["partner/acme"]
	if len(got.page.Documents) != 1 || document.Partner == nil || document.Partner.Status != api.AdministrativeStatusSuspended {
		t.Errorf("the poll brought %+v, want partner/acme suspended", got.page.Documents)
	}
	if got.page.Epoch != at.epoch || got.page.More {
		t.Errorf("the page is %+v, want the same epoch and no more", got.page)
	}
}

func TestAPollWithNothingToSayIsTheHeartbeat(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	at := e.pull("", "").at()
	e.call("GET", pollPath(at, 0, 0), nil).want(204)
	begin := time.Now()
	e.call("GET", pollPath(at, 1, 0), nil).want(204)
	if took := time.Since(begin); took < time.Second {
		t.Errorf("nothing was answered after %s, want the whole second that the poll may take", took)
	}
	var shown api.Edge
	f.call(f.Token, "GET", "/v1/edges/"+e.id, nil).want(200).into(&shown)
	if shown.LastSeenAt == nil || !shown.LastSeenAt.Equal(noon) || shown.EnforcedEpoch == nil || *shown.EnforcedEpoch != at.epoch {
		t.Errorf("the edge is %+v, want seen at noon, in epoch %s", shown, at.epoch)
	}
}

func TestAPollTellsWhichRevisionTheEdgeEnforces(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	at := e.pull("", "").at()
	f.partner("acme")
	page := e.pull(at.epoch, at.after)
	enforced := func() int64 {
		var shown api.Edge
		f.call(f.Token, "GET", "/v1/edges/"+e.id, nil).want(200).into(&shown)
		return *shown.EnforcedRevision
	}
	revision := page.keys()["partner/acme"].Revision
	if got := enforced(); got >= revision {
		t.Errorf("the edge enforces %d before it said so, the change is %d", got, revision)
	}
	e.call("GET", pollPath(page.at(), 0, 0), nil).want(204)
	if got := enforced(); got != revision {
		t.Errorf("the edge enforces %d, want %d", got, revision)
	}
}

func TestAForeignEpochIsGone(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	at := e.pull("", "").at()
	e.call("GET", pollPath(place{"another-history", at.after}, 30, 0), nil).refused(410, "policy-gone")
	// Another edge of the same database sees another history when it sees other partners.
	f.partner("acme")
	f.edge("ams1", "acme").call("GET", pollPath(at, 0, 0), nil).refused(410, "policy-gone")
	// A revision that the database never had proves that it was restored; that ends the epoch for everybody.
	e.call("GET", pollPath(place{at.epoch, "1000000,~"}, 0, 0), nil).refused(410, "policy-gone")
	e.call("GET", pollPath(at, 0, 0), nil).refused(410, "policy-gone")
	if again := e.pull("", "").at(); again.epoch == at.epoch {
		t.Errorf("the epoch is %s as before", again.epoch)
	}
}

func TestAnAfterThatIsNoneIsRefused(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	at := e.pull("", "").at()
	e.call("GET", pollPath(place{at.epoch, "yesterday"}, 0, 0), nil).want(400)
	e.call("GET", "/v1/edge/policy?after="+url.QueryEscape(at.after), nil).want(400)
}

func TestANoticeGoesToOneEdgeUntilItIsSent(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 10, "it@example.com")
	e, other := f.edge("fra1"), f.edge("ams1")
	at := e.pull("", "").at()
	poll := e.startPoll(at, 30)
	f.untilPolling(1)

	all := e.ask("example.com", 10)
	all["at_least"] = 10 // the other edge would be left half
	e.lease(all)
	e.lease(e.spent("example.com", 10, 8))
	var got pulled
	poll.result().want(200).into(&got.page)
	if len(got.page.Instructions) != 1 {
		t.Fatalf("the poll brought %+v, want one instruction", got.page)
	}
	told := got.page.Instructions[0]
	if told.Kind != api.InstructionKindSendNotice || told.Notice == nil || told.Notice.Kind != api.NoticeKindQuotaWarning ||
		told.Notice.Domain != "example.com" || told.Notice.Used != 8 || told.Notice.Limit != 10 || told.Notice.To[0] != "it@example.com" {
		t.Errorf("the instruction is %+v with %+v, want the warning of 8 of 10", told, told.Notice)
	}
	if theirs := other.pull("", ""); len(theirs.page.Instructions) != 0 {
		t.Errorf("the other edge is told %+v too", theirs.page.Instructions)
	}
	var again pulled
	e.call("GET", pollPath(at, 0, 0), nil).want(200).into(&again.page)
	if len(again.page.Instructions) != 1 {
		t.Error("the instruction is not repeated before it is acknowledged")
	}
	e.call("GET", pollPath(at, 0, told.Number), nil).want(204)
	e.call("GET", pollPath(at, 0, 0), nil).want(204)
}

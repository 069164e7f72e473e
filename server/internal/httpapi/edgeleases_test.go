package httpapi_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/server/internal/credential"
)

// midnight is when the day of the tests began.
var midnight = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// ask is a wish for units by an edge that holds none.
func (e *edge) ask(domain string, want int64) object {
	return object{"domain": domain, "granted": 0, "spent": 0, "returned": 0, "want": want}
}

// spent is a report of the running day that wants nothing.
func (e *edge) spent(domain string, granted, spent int64) object {
	return object{"domain": domain, "day_start": midnight, "granted": granted, "spent": spent, "returned": 0, "want": 0}
}

// leaseCall is the next call of the edge.
func (e *edge) leaseCall(reports ...object) object {
	e.sequence++
	return object{
		"boot_nonce": e.bootNonce, "generation": e.generation, "sequence": e.sequence, "complete": true, "leases": append([]object{}, reports...),
	}
}

func (e *edge) lease(reports ...object) api.LeaseReply {
	e.f.t.Helper()
	var got api.LeaseReply
	e.call("POST", "/v1/edge/leases", e.leaseCall(reports...)).want(200).into(&got)
	return got
}

func TestTwoEdgesTogetherNeverHoldMoreThanTheLimit(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	const limit = 100
	f.domain("acme", "example.com", limit)
	edges := []*edge{f.edge("fra1"), f.edge("ams1")}
	granted := make([]int64, len(edges))
	var group sync.WaitGroup
	for i, e := range edges {
		group.Go(func() {
			for round := range 40 {
				// Each asks for one more than it holds until there is nothing left; what it holds it spends.
				report := e.spent("example.com", granted[i], granted[i])
				report["want"] = int64(1 + round%5)
				if granted[i] == 0 {
					report = e.ask("example.com", 3)
				}
				got, err := f.try(t.Context(), e.credential, "POST", "/v1/edge/leases", e.leaseCall(report), nil)
				if err != nil {
					t.Error(err)
					return
				}
				var answer api.LeaseReply
				got.into(&answer)
				if len(answer.Leases) == 1 && answer.Leases[0].Granted != nil {
					granted[i] = *answer.Leases[0].Granted
				}
			}
		})
	}
	group.Wait()
	if sum := granted[0] + granted[1]; sum != limit {
		t.Errorf("granted %v, together %d, want exactly %d", granted, sum, limit)
	}
	for i, e := range edges {
		e.lease(e.spent("example.com", granted[i], granted[i]))
	}
	last := edges[0].lease(object{
		"domain": "example.com", "day_start": midnight, "granted": granted[0], "spent": granted[0], "returned": 0, "want": 1, "at_least": 1,
	}).Leases[0]
	if last.State != api.LeaseGrantStateReached || *last.Limit != limit || *last.Used != limit {
		t.Errorf("the answer after the last unit is %+v, want that the limit is reached", last)
	}
	var shown api.DomainQuota
	f.call(f.Token, "GET", "/v1/domains/example.com/quota", nil).want(200).into(&shown)
	if shown.Used != limit || shown.Remaining != 0 || len(shown.Leases) != 2 {
		t.Errorf("the quota shows %+v, want all %d used by two edges", shown, limit)
	}
}

func TestACallThatIsRepeatedIsGrantedOnce(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	e := f.edge("fra1")
	call := e.leaseCall(e.ask("example.com", 10))
	var first, again api.LeaseReply
	e.call("POST", "/v1/edge/leases", call).want(200).into(&first)
	e.call("POST", "/v1/edge/leases", call).want(200).into(&again)
	if *first.Leases[0].Granted != 10 || *again.Leases[0].Granted != 10 {
		t.Errorf("granted %d, then %d, want 10 both times", *first.Leases[0].Granted, *again.Leases[0].Granted)
	}
	lease := first.Leases[0]
	if !lease.DayStart.Equal(midnight) || !lease.DayEnd.Equal(midnight.AddDate(0, 0, 1)) || !first.Now.Equal(noon) {
		t.Errorf("the day is %s to %s at %s", lease.DayStart, lease.DayEnd, first.Now)
	}
}

func TestADomainThatTheEdgeMayNotServeIsUnknownToIt(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.partner("other")
	f.domain("other", "example.com", 100)
	e := f.edge("fra1", "acme")
	got := e.lease(e.ask("example.com", 10), e.ask("nowhere.example", 10)).Leases
	for _, lease := range got {
		if lease.State != api.LeaseGrantStateUnknownDomain || lease.Granted != nil || lease.Limit != nil {
			t.Errorf("the lease is %+v, want nothing but that the domain is unknown", lease)
		}
	}
}

func TestControl12AnEdgeThatWasSetBackIsFencedAndStartsAnew(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	e := f.edge("fra1")
	e.lease(e.ask("example.com", 60))
	e.lease(e.spent("example.com", 60, 50))
	e.call("POST", "/v1/edge/leases", e.leaseCall(e.spent("example.com", 60, 20))).refused(409, "edge-fenced")

	told := e.lease(e.spent("example.com", 60, 20))
	if told.Generation != e.generation+1 || len(told.Leases) != 0 {
		t.Fatalf("the next call is told %+v, want the next generation alone", told)
	}
	e.generation = told.Generation
	// The units of the old life may all have been spent, so they stay counted.
	if lease := e.lease(e.ask("example.com", 100)).Leases[0]; *lease.Granted != 40 {
		t.Errorf("granted %d in the new generation, want the 40 that the old one did not hold", *lease.Granted)
	}
	for entry := range f.audit("edge/" + e.id) {
		if entry.Action == "leaseQuota" {
			return
		}
	}
	t.Error("the fence is not in the audit log")
}

// The same backup may be put back more than once, when the generation of that time has long been written off.
func TestControl12AnEdgeThatWasSetBackBeyondItsGenerationIsFencedToo(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	e := f.edge("fra1")
	backup := *e
	e.lease(e.ask("example.com", 10))
	for start, want := range []int64{90, 0} {
		*e = backup
		e.bootNonce = fmt.Sprint("boot-on-the-backup-", start)
		e.call("POST", "/v1/edge/leases", e.leaseCall(e.ask("example.com", 90))).refused(409, "edge-fenced")
		e.generation = e.lease().Generation
		for range 3 { // also once its calls are numbered like those that it has forgotten
			if lease := e.lease(e.ask("example.com", 90)).Leases[0]; *lease.Granted != want {
				t.Errorf("start %d: granted %d, want %d: all else may have been spent", start, *lease.Granted, want)
			}
		}
	}
}

func TestControl12ACopyOfARunningEdgeIsFenced(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	e := f.edge("fra1")
	e.lease(e.ask("example.com", 10))
	clone := *e
	clone.bootNonce = "boot-of-the-copy"
	clone.lease() // a restart, for all that can be told
	e.sequence = clone.sequence
	e.call("POST", "/v1/edge/leases", e.leaseCall()).refused(409, "edge-fenced")
}

func TestControl12TheCredentialOfOneEdgeSpeaksForNoOther(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "example.com", 100)
	mine, other := f.edge("fra1"), f.edge("ams1")
	other.lease(other.ask("example.com", 40))
	mine.lease(mine.ask("example.com", 10))
	var shown api.DomainQuota
	f.call(f.Token, "GET", "/v1/domains/example.com/quota", nil).want(200).into(&shown)
	held := map[string]int64{}
	for _, lease := range shown.Leases {
		held[lease.Edge] = lease.Held
	}
	if held[mine.id] != 10 || held[other.id] != 40 {
		t.Errorf("held %v, want 10 by %s and 40 by %s", held, mine.id, other.id)
	}
	// The secret of one under the id of the other is no credential.
	own, err := credential.Parse(mine.credential)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := credential.Parse(other.credential)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Secret = own.Secret
	f.call(theirs.Token(), "GET", "/v1/whoami", nil).refused(401, "unauthenticated")
}

package relayd_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd"
	"activerelay/relayd/relaytest"
	"activerelay/relayd/relaytest/edgetest"
)

func TestMailThatPolicyAllowsIsRelayedByTheRouteOfItsDomain(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	if r := send(t, e.Relay, "anna@example.com", "first"); !strings.HasPrefix(r, "250 2.0.0 ") {
		t.Fatalf("reply %q", r)
	}
	eventually(t, "the message at the destination", func() bool { return slices.Equal(subjects(w.mx), []string{"first"}) })
	if got := w.mx.Messages()[0]; got.From != "anna@example.com" || !slices.Equal(got.Addresses(), []string{"bob@example.net"}) || got.Helo != "edge1.relay.example" {
		t.Errorf("envelope %+v", got)
	}
	if r := send(t, e.Relay, "anna@other.example", "not ours"); !strings.HasPrefix(r, "550 5.7.1 Sender domain other.example is not registered") {
		t.Errorf("reply to an unknown domain %q", r)
	}
	var quota struct{ Used, Limit int64 }
	eventually(t, "one message in the count of the control plane", func() bool {
		w.call("GET", "/v1/domains/example.com/quota", "", &quota)
		return quota.Used == 1
	})
	if status, check := w.ready(e, "listener"); status != http.StatusOK || check != "ok" {
		t.Errorf("readiness %d, listener %q", status, check)
	}
}

func TestTheLimitOfADayIsToldWithItsFiguresAndTheMidnightOfTheDomain(t *testing.T) {
	w := newWorld(t)
	w.call("PATCH", "/v1/settings", `{"quota_floor":3}`, nil)
	e := w.addEdge(nil)
	var last string
	for n := range 4 {
		last = send(t, e.Relay, "anna@example.com", fmt.Sprint(n))
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	year, month, day := w.clock().In(zone).Date()
	midnight := time.Date(year, month, day+1, 0, 0, 0, 0, zone)
	want := "450 4.7.1 Relay limit reached for example.com: 3 of 3 messages today; resets " + midnight.Format(time.RFC3339)
	if first, _, _ := strings.Cut(last, "\n"); first != want {
		t.Errorf("reply %q, want %q", first, want)
	}
	w.advance(midnight.Sub(w.clock()) + time.Second)
	eventually(t, "mail of the next day", func() bool { return strings.HasPrefix(send(t, e.Relay, "anna@example.com", "next day"), "250 ") })
}

// Days of 23 and 25 hours, and days that begin at one o'clock because their midnight does not exist: the limit holds to the
// last second of the day, and not a second longer.
func TestTheLimitStartsAgainAtTheFirstInstantOfTheLocalDay(t *testing.T) {
	for _, test := range []struct{ name, zone, begins, ends string }{
		{name: "23 hours", zone: "Europe/Berlin", begins: "2026-03-29T00:00:00+01:00", ends: "2026-03-30T00:00:00+02:00"},
		{name: "25 hours", zone: "Europe/Berlin", begins: "2026-10-25T00:00:00+02:00", ends: "2026-10-26T00:00:00+01:00"},
		{name: "no midnight follows", zone: "America/Havana", begins: "2026-03-07T00:00:00-05:00", ends: "2026-03-08T01:00:00-04:00"},
		{name: "no midnight came before", zone: "America/Santiago", begins: "2026-09-06T01:00:00-03:00", ends: "2026-09-07T00:00:00-03:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			begins, err := time.Parse(time.RFC3339, test.begins)
			if err != nil {
				t.Fatal(err)
			}
			ends, err := time.Parse(time.RFC3339, test.ends)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorldAt(t, begins, test.zone)
			w.call("PATCH", "/v1/settings", `{"quota_floor":2}`, nil)
			e := w.addEdge(nil)
			var last string
			for n := range 3 {
				last = send(t, e.Relay, "anna@example.com", fmt.Sprint(n))
			}
			want := "450 4.7.1 Relay limit reached for example.com: 2 of 2 messages today; resets " + test.ends
			if first, _, _ := strings.Cut(last, "\n"); first != want {
				t.Fatalf("reply %q, want %q", first, want)
			}
			w.advance(ends.Sub(begins) - time.Second)
			if last = send(t, e.Relay, "anna@example.com", "a second too early"); strings.HasPrefix(last, "250 ") {
				t.Fatalf("a second before the end of the day: %q", last)
			}
			w.advance(time.Second)
			eventually(t, "mail of the next day", func() bool { return strings.HasPrefix(send(t, e.Relay, "anna@example.com", "next day"), "250 ") })
		})
	}
}

func TestAChangeOfPolicyIsEnforcedWithoutARestart(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.call("POST", "/v1/domains/example.com/suspend", `{"reason":"contract ended"}`, nil)
	eventually(t, "the suspension at the edge", func() bool {
		return strings.HasPrefix(send(t, e.Relay, "anna@example.com", "suspended"), "450 4.7.1 Relaying is suspended for example.com")
	})
}

func TestWithoutTheControlPlaneTheEdgeRelaysFromItsReserveAndThenDefers(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.stocked(e, "before")
	w.plane.Stop()
	w.advance(10 * time.Minute)
	accepted, last := 1, ""
	for range 1001 {
		if last = send(t, e.Relay, "anna@example.com", fmt.Sprint(accepted)); !strings.HasPrefix(last, "250 ") {
			break
		}
		accepted++
	}
	if accepted < 2 || !strings.HasPrefix(last, "451 4.3.0 ") || !strings.Contains(last, "reason=quota-unavailable") {
		t.Fatalf("accepted %d, then %q; want some from the reserve and then a deferral", accepted, last)
	}
	eventually(t, "all accepted mail at the destination", func() bool { return len(subjects(w.mx)) == accepted })
	if r := send(t, e.Relay, "anna@other.example", "unknown"); !strings.HasPrefix(r, "451 4.3.0 ") {
		t.Errorf("reply to a domain that may have been registered meanwhile %q, want a deferral", r)
	}
	eventually(t, "a degraded edge that is ready all the same", func() bool {
		status, check := w.ready(e, "control-plane")
		return status == http.StatusOK && check == "degraded"
	})
}

func TestARestartedEdgeServesFromItsOwnDiskWhileTheControlPlaneIsAway(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.stocked(e, "before")
	w.plane.Stop()
	again := w.restart(e)
	if r := send(t, again.Relay, "anna@example.com", "after"); !strings.HasPrefix(r, "250 ") {
		t.Fatalf("reply %q", r)
	}
	eventually(t, "both messages at the destination", func() bool { return slices.Equal(subjects(w.mx), []string{"before", "after"}) })
}

func TestMailThatWaitsIsDeliveredAfterARestart(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.mx.Close()
	if r := send(t, e.Relay, "anna@example.com", "waiting"); !strings.HasPrefix(r, "250 ") {
		t.Fatalf("reply %q", r)
	}
	elsewhere := relaytest.StartMX(t, relaytest.Script{})
	var routes struct{ Items []struct{ ID string } }
	w.call("GET", "/v1/routes?domain=example.com", "", &routes)
	w.call("PATCH", "/v1/routes/"+routes.Items[0].ID, fmt.Sprintf(`{"port":%d}`, elsewhere.Port()), nil)
	w.enforces(e)
	w.advance(5 * time.Minute)
	w.restart(e)
	eventually(t, "the message at its new route", func() bool { return slices.Equal(subjects(elsewhere), []string{"waiting"}) })
}

// Matrix row 9: two relayd on one queue.
func TestASecondEdgeOnOneDataDirectoryIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	settings := edgetest.Settings(t, edgetest.Config{Server: w.plane.URL, JoinToken: w.joinToken(), DataDir: e.DataDir})
	took := time.Hour
	for tries := 0; tries < 5 && took > time.Second; tries++ { // the machine may have other work
		began := time.Now()
		err := relayd.Run(t.Context(), settings)
		took = time.Since(began)
		if err == nil || !strings.Contains(err.Error(), "two edges cannot share one data directory") || !strings.Contains(err.Error(), e.DataDir) {
			t.Fatalf("error %v", err)
		}
	}
	if took > time.Second {
		t.Errorf("refused after %v, want at most 1 s", took)
	}
	if r := send(t, e.Relay, "anna@example.com", "undisturbed"); !strings.HasPrefix(r, "250 ") {
		t.Errorf("reply of the first edge %q", r)
	}
}

func TestAnEdgeThatCannotJoinSaysWhy(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct{ name, token, want string }{
		{name: "no token", want: "this edge has not joined a control plane yet; set RELAYD_JOIN_TOKEN"},
		{name: "a token of nobody", token: "rly_join_nobody", want: "join " + w.plane.URL},
	} {
		t.Run(test.name, func(t *testing.T) {
			settings := edgetest.Settings(t, edgetest.Config{Server: w.plane.URL, JoinToken: test.token, DataDir: t.TempDir()})
			if err := relayd.Run(t.Context(), settings); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestJoiningAloneLeavesAnIdentityThatNeedsNoTokenLater(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	settings := edgetest.Settings(t, edgetest.Config{Server: w.plane.URL, JoinToken: w.joinToken(), DataDir: dir})
	if err := relayd.Join(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	e := edgetest.Start(t, edgetest.Config{Server: w.plane.URL, DataDir: dir, Now: w.clock})
	w.knows(e, "example.com")
}

func TestADataDirectoryServesOneIdentityOnly(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	e.Stop()
	other := w.addEdge(nil)
	other.Stop()
	copyFile(t, filepath.Join(other.DataDir, "identity.json"), filepath.Join(e.DataDir, "identity.json"))
	err := relayd.Run(t.Context(), edgetest.Settings(t, edgetest.Config{Server: w.plane.URL, DataDir: e.DataDir}))
	if err == nil || !strings.Contains(err.Error(), "with a data directory of its own") {
		t.Errorf("error %v", err)
	}
}

func TestAnEdgeThatIsToldToEndWhileItWaitsForTheControlPlaneEnds(t *testing.T) {
	settings := edgetest.Settings(t, edgetest.Config{Server: "http://127.0.0.1:9", JoinToken: "rly_join_x", DataDir: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := relayd.Run(ctx, settings); err != nil {
		t.Errorf("error %v, want none", err)
	}
}

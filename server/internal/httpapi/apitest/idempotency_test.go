package apitest_test

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const idempotencyKey = "Idempotency-Key"

func withKey(c call, key string) call {
	c.header = http.Header{idempotencyKey: {key}}
	return c
}

// Row 39, for every operation that takes an Idempotency-Key.
func TestControl8ARepeatedRequestHasOneEffectAndTheSameReply(t *testing.T) {
	w := newWorld(t)
	tried := 0
	for _, op := range operations(t) {
		if op.declared.Parameters.GetByInAndName("header", idempotencyKey) == nil {
			if op.method == http.MethodPost && op.scope != "edge" {
				t.Errorf("%s is a POST without an Idempotency-Key", op.id)
			}
			continue
		}
		tried++
		m := &matrix{world: w}
		role := "operator"
		if op.scope == "edge" {
			role = "edge"
		}
		s, a := m.ownScene(t, op, actor{role: role, token: w.Token})
		c := withKey(w.callOf(t, op, s, a.token), "attempt-of-"+op.id)
		first := w.do(t, c)
		if first.status > 299 {
			t.Errorf("%s: got %d %s", op.id, first.status, first.body)
			continue
		}
		before := w.effects(t)
		again := w.do(t, c)
		if again.status != first.status || !bytes.Equal(again.body, first.body) || again.header.Get("ETag") != first.header.Get("ETag") {
			t.Errorf("%s: first %d %s, again %d %s", op.id, first.status, first.body, again.status, again.body)
		}
		if again.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%s: a replay is not told from the first reply", op.id)
		}
		if op.declared.RequestBody != nil {
			other := c
			other.body = differing(t, c.body)
			if answer := w.do(t, other); answer.status != http.StatusConflict || answer.problem(t).Reason != "idempotency-conflict" {
				t.Errorf("%s with another body: got %d %s", op.id, answer.status, answer.body)
			}
		}
		if after := w.effects(t); after != before {
			t.Errorf("%s: the repetitions changed something: %v, before %v", op.id, after, before)
		}
	}
	if tried < 25 {
		t.Errorf("only %d operations were tried", tried)
	}
}

// effects are figures that every change moves.
func (w *world) effects(t *testing.T) [2]int {
	t.Helper()
	return [2]int{w.count(t, "SELECT count(*) FROM audit"), w.count(t, "SELECT value FROM revision")}
}

// differing is another valid body of the same operation: one property has another value, or is there beside the others.
func differing(t *testing.T, body any) any {
	t.Helper()
	given, ok := body.(map[string]any)
	if !ok {
		t.Fatalf("the body %v is no object", body)
	}
	other := maps.Clone(given)
	if domains, has := given["domains"].([]map[string]any); has {
		other["domains"] = append(slices.Clone(domains), map[string]any{"name": "another.example"})
		return other
	}
	for _, name := range []string{"reason", "name", "version", "valid_seconds", "overlap_seconds", "recipient_domain"} {
		switch given[name].(type) {
		case nil:
			continue
		case string:
			other[name] = "another.example"
		default:
			other[name] = 7200
		}
		return other
	}
	switch {
	case given["message_ids"] != nil:
		other["reason"] = "another"
	case given["feedback_id"] != nil || given["domain"] != nil:
		other["comment"] = "another"
	case given["address"] != nil:
		other["description"] = "another"
	default:
		other["password"] = "another long password"
	}
	return other
}

func TestControl8FiftyAtOnceHaveOneEffect(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		body := map[string]any{"role": "operator", "name": "made once"}
		replies := make([]reply, 50)
		errs := make([]error, len(replies))
		var group sync.WaitGroup
		for i := range replies {
			group.Go(func() {
				replies[i], errs[i] = w.settled(t.Context(), withKey(call{method: "POST", path: "/v1/tokens", token: w.Token, body: body}, "fifty-at-once"))
			})
		}
		group.Wait()
		for i, answer := range replies {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			if answer.status != http.StatusCreated || !bytes.Equal(answer.body, replies[0].body) {
				t.Fatalf("one is answered %d %s, another %d %s", answer.status, answer.body, replies[0].status, replies[0].body)
			}
		}
		if made := w.count(t, "SELECT count(*) FROM tokens WHERE name = 'made once'"); made != 1 {
			t.Errorf("%d tokens were made, want 1", made)
		}
	})
}

// settled makes a call again while the database says that it is busy, as a client does.
func (w *world) settled(ctx context.Context, c call) (reply, error) {
	for {
		answer, err := w.attempt(ctx, c)
		if err != nil || answer.status != http.StatusServiceUnavailable {
			return answer, err
		}
	}
}

func TestControl8AResultSurvivesARestartAndIsKeptForADay(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		c := withKey(call{method: "POST", path: "/v1/tokens", token: w.Token, body: map[string]any{"role": "operator", "name": "x"}}, "over-a-restart")
		first := w.do(t, c)
		first.wants(t, http.StatusCreated, "")
		w.Stop()
		next := startWorld(t, w.database, w.DataDir)
		if again := next.do(t, c); !bytes.Equal(again.body, first.body) {
			t.Errorf("after the restart: %d %s, before %s", again.status, again.body, first.body)
		}
		next.clock.Advance(24 * time.Hour)
		if again := next.do(t, c); !bytes.Equal(again.body, first.body) {
			t.Errorf("after 24 hours: %d %s, first %s", again.status, again.body, first.body)
		}
		next.clock.Advance(time.Second)
		if again := next.do(t, c); again.status != http.StatusCreated || bytes.Equal(again.body, first.body) {
			t.Errorf("after more than 24 hours the old reply is still given: %d %s", again.status, again.body)
		}
	})
}

func TestControl8WhatFailedIsNotKept(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	c := withKey(call{method: "POST", path: "/v1/domains/late.example/suspend", token: w.Token, body: map[string]any{"reason": "r"}}, "before-it-exists")
	w.do(t, c).wants(t, http.StatusNotFound, "not-found")
	w.ask(t, "PUT", "/v1/domains/late.example", map[string]any{"partner": "acme"})
	w.do(t, c).wants(t, http.StatusOK, "")

	stranger := c
	stranger.token = ""
	w.do(t, stranger).wants(t, http.StatusUnauthorized, "unauthenticated")
	readOnly, _ := w.newToken(t, map[string]any{"role": "operator", "read_only": true})
	stranger.token = readOnly
	w.do(t, stranger).wants(t, http.StatusForbidden, "forbidden")
}

func TestControl8AKeyIsItsTokensOwn(t *testing.T) {
	w := newWorld(t)
	body := map[string]any{"role": "operator", "name": "x"}
	other, _ := w.newToken(t, map[string]any{"role": "operator"})
	first := w.do(t, withKey(call{method: "POST", path: "/v1/tokens", token: w.Token, body: body}, "shared-key"))
	second := w.do(t, withKey(call{method: "POST", path: "/v1/tokens", token: other, body: body}, "shared-key"))
	if second.status != http.StatusCreated || bytes.Equal(first.body, second.body) {
		t.Errorf("another token's reply was replayed: %s", second.body)
	}
	elsewhere := w.do(t, withKey(call{method: "POST", path: "/v1/join-tokens", token: w.Token, body: map[string]any{}}, "shared-key"))
	elsewhere.wants(t, http.StatusConflict, "idempotency-conflict")
}

// Replies that show a secret cannot be read from the database, not even with the key of the installation.
func TestControl8AReplayedSecretIsSealedInTheDatabase(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		var secrets []string
		for _, c := range []struct {
			path, shown string
			body        any
		}{
			{"/v1/tokens", "token", map[string]any{"role": "operator", "name": "x"}},
			{"/v1/users", "password", map[string]any{"address": "anna@" + s.domain}},
			{"/v1/join-tokens", "token", map[string]any{}},
		} {
			sent := withKey(call{method: "POST", path: c.path, token: w.Token, body: c.body}, "sealed-in-the-database")
			if c.path != "/v1/tokens" {
				sent.header[idempotencyKey][0] += strings.ReplaceAll(c.path, "/", "-")
			}
			first := w.do(t, sent)
			secret := text(first.json(t), c.shown)
			if again := w.do(t, sent); secret == "" || text(again.json(t), c.shown) != secret {
				t.Errorf("%s: the secret is not replayed: %s", c.path, again.body)
			}
			secrets = append(secrets, secret)
		}
		for _, secret := range append(secrets, "sealed-in-the-database") {
			if tables := w.keptIn(t, secret); len(tables) > 0 {
				t.Errorf("%s can be read in %v", secret, tables)
			}
		}
		if w.count(t, "SELECT count(*) FROM idempotency_keys") != 3 {
			t.Error("the replies are kept elsewhere than this test looks")
		}
	})
}

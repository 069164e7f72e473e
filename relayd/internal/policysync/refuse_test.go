package policysync_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reply makes the control plane answer a body of its own until the next call.
func (p *plane) reply(raw string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raw, p.cut, p.kind = raw, false, ""
}

// pageOf writes a page of the epoch e1.
func pageOf(next string, more bool, documents string) string {
	return fmt.Sprintf(`{"epoch":"e1","next":%q,"more":%v,"now":"2026-11-22T10:00:00Z","instructions":[],"documents":%s}`, next, more, documents)
}

func tombstone(revision int, name string) string {
	return fmt.Sprintf(`{"key":"domain/%s","revision":%d,"deleted":true}`, name, revision)
}

func list(documents ...string) string { return "[" + strings.Join(documents, ",") + "]" }

// Row 37 of the fault matrix: what cannot be the next page changes nothing, in memory or on the disk. The edge enforces
// one.example at revision 1 and two.example at revision 2.
func TestAPageThatCannotBeTheNextIsRefusedAndTheLastGoodKept(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.put("one.example", 1000)
	p.put("two.example", 1000)
	e := open(t, p, dir)
	e.pull(t, 1)
	want, at := held(e.Table()), e.Status().After
	for what, raw := range map[string]string{
		"empty object":              `{}`,
		"null":                      `null`,
		"wrong type":                `[]`,
		"no JSON":                   `<html>`,
		"truncated":                 pageOf("9,~", false, list(tombstone(3, "one.example")))[:60],
		"documents of a wrong type": pageOf("9,~", false, `{}`),
		"no documents":              pageOf("9,~", false, `null`),
		"documents left out":        `{"epoch":"e1","next":"9,~","more":false,"now":"2026-11-22T10:00:00Z","instructions":[]}`,
		"no position":               pageOf("", false, `[]`),
		"no epoch":                  `{"epoch":"","next":"9,x","more":false,"now":"2026-11-22T10:00:00Z","documents":[],"instructions":[]}`,
		"a position without a key":  pageOf("9", false, `[]`),
		"a position that is a word": pageOf("latest,~", false, `[]`),
		"a negative position":       pageOf("-1,~", false, `[]`),
		"a position past counting":  pageOf("99999999999999999999,~", false, `[]`),
		"an older page":             pageOf("1,domain/one.example", false, list(tombstone(1, "one.example"))),
		"an older document":         pageOf("9,~", false, list(tombstone(1, "one.example"))),
		"the same document again":   pageOf("9,~", false, list(tombstone(2, "two.example"))),
		"an older document between": pageOf("9,~", false, list(tombstone(3, "x.example"), tombstone(1, "one.example"))),
		"out of order":              pageOf("9,~", false, list(tombstone(4, "one.example"), tombstone(3, "two.example"))),
		"a document past its end":   pageOf("3,domain/one.example", false, list(tombstone(3, "one.example"), tombstone(4, "two.example"))),
		"more, but no documents":    pageOf("9,~", true, `[]`),
		"documents missing":         pageOf("9,domain/z.example", true, list(tombstone(3, "one.example"))),
	} {
		p.reply(raw)
		if err := e.Pull(context.Background(), 0); err == nil {
			t.Errorf("%s: taken for a page", what)
		}
		if got := held(e.Table()); !slices.Equal(got, want) || e.Status().After != at {
			t.Errorf("%s: changed the policy to %v at %s", what, got, e.Status().After)
		}
	}
	e.journal.Close()
	e = open(t, p, dir)
	defer e.journal.Close()
	if got := held(e.Table()); !slices.Equal(got, want) || e.Status().After != at {
		t.Errorf("after a restart: %v at %s", got, e.Status().After)
	}
	p.reply("")
	p.remove("one.example")
	e.pull(t, 1)
	if got := held(e.Table()); !slices.Equal(got, p.names()) {
		t.Errorf("the next good page: %v", got)
	}
}

func TestAReplyThatEndsEarlyOrIsNoJSONIsRefused(t *testing.T) {
	p := newPlane(t)
	p.put("one.example", 1000)
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	e.pull(t, 1)
	want := held(e.Table())
	whole := pageOf("2,~", false, list(tombstone(2, "one.example")))
	for what, change := range map[string]func(){
		"cut by the network": func() { p.cut = true },
		"another type":       func() { p.kind = "text/html" },
	} {
		p.reply(whole)
		p.mu.Lock()
		change()
		p.mu.Unlock()
		if err := e.Pull(context.Background(), 0); err == nil || !slices.Equal(held(e.Table()), want) {
			t.Errorf("%s: taken (%v)", what, err)
		}
	}
	p.reply(whole) // it is their delivery that was wrong
	if err := e.Pull(context.Background(), 0); err != nil || len(held(e.Table())) != 0 {
		t.Errorf("the whole page: %v", err)
	}
}

func TestPolicyIsNotConfirmedBeforeItsFirstPassIsWhole(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	for i := range 5 {
		p.put(fmt.Sprintf("d%d.example", i), 1000)
	}
	e := open(t, p, dir)
	for range 2 { // of three pages
		e.pull(t, 1)
		if e.Status().Complete {
			t.Fatalf("confirmed with %d of 5 domains", len(held(e.Table())))
		}
		e.journal.Close()
		e = open(t, p, dir)
	}
	defer func() { e.journal.Close() }()
	p.reply(`{}`)
	if err := e.Pull(context.Background(), 0); err == nil || e.confirmed() {
		t.Fatalf("confirmed after a failed poll (%v)", err)
	}
	p.reply("")
	e.pull(t, 1)
	if !e.confirmed() || !slices.Equal(held(e.Table()), p.names()) {
		t.Errorf("after the last page: %v, %v", e.Status(), held(e.Table()))
	}
}

// An empty policy is a whole one; no answer at all is not.
func TestOnlyAPageEndsAPassFromTheBeginning(t *testing.T) {
	p := newPlane(t)
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	good := p.server.Config.Handler
	p.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if err := e.Pull(context.Background(), 0); err == nil || e.confirmed() {
		t.Fatalf("nothing confirmed it (%v)", err)
	}
	p.server.Config.Handler = good
	e.pull(t, 1)
	if !e.confirmed() {
		t.Error("an empty policy is not confirmed")
	}
}

func TestAForeignEpochReplacesPolicyOnlyOnceItsPassIsWhole(t *testing.T) {
	for _, gone := range []bool{true, false} { // told with 410, or only by its pages
		p, dir := newPlane(t), t.TempDir()
		for i := range 5 {
			p.put(fmt.Sprintf("d%d.example", i), 1000)
		}
		e := open(t, p, dir)
		e.pull(t, 3)
		before := held(e.Table())
		p.mu.Lock()
		p.epoch, p.gone = "e2", gone
		p.mu.Unlock()
		p.remove("d1.example")
		p.put("d2.example", 7)
		for i := range 3 {
			e.pull(t, 1)
			if got := held(e.Table()); !slices.Equal(got, before) || e.Status().Epoch != "e1" {
				t.Fatalf("gone %v, poll %d: %v of %s", gone, i, got, e.Status().Epoch)
			}
			if i == 1 { // and over a restart, which begins the pass again
				e.journal.Close()
				e = open(t, p, dir)
				if got := held(e.Table()); !slices.Equal(got, before) || !e.Status().Complete {
					t.Fatalf("gone %v: after a restart %v", gone, got)
				}
				e.pull(t, 1)
			}
		}
		e.pull(t, 3)
		for range 2 {
			if got := held(e.Table()); !slices.Equal(got, p.names()) || e.Status().Epoch != "e2" {
				t.Fatalf("gone %v: %v of %s, want %v", gone, got, e.Status().Epoch, p.names())
			}
			e.journal.Close()
			e = open(t, p, dir)
		}
		e.journal.Close()
	}
}

// A document of an early page may be deleted before the pass comes to its end.
func TestADomainDeletedDuringANewPassStaysDeletedAfterARestart(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		p.put(name, 1000)
	}
	e := open(t, p, dir)
	e.pull(t, 2)
	p.mu.Lock()
	p.epoch, p.gone = "e2", true
	p.mu.Unlock()
	e.pull(t, 2) // 410, then the page with a and b
	p.remove("a.example")
	e.pull(t, 1)
	for range 2 {
		if got := held(e.Table()); !slices.Equal(got, p.names()) || e.Status().Epoch != "e2" {
			t.Fatalf("%v of %s, want %v", got, e.Status().Epoch, p.names())
		}
		e.journal.Close()
		e = open(t, p, dir)
	}
	e.journal.Close()
}

// damage flips a bit of the records with a prefix.
func (e *edge) damage(t *testing.T, prefix string) {
	t.Helper()
	b := e.journal.NewBatch()
	err := e.journal.Scan([]byte(prefix), func(k, v []byte) error {
		v = slices.Clone(v)
		v[0] ^= 1
		b.Set(slices.Clone(k), v)
		return nil
	})
	if err != nil || e.journal.Commit(b) != nil {
		t.Fatal(err)
	}
}

// The position without its documents would be an empty policy that counts as whole: everything would be refused for good.
func TestDroppingDamagedPolicyLeavesNeitherItsPositionNorItsDocuments(t *testing.T) {
	for _, prefix := range []string{"pd", "pm"} {
		p, dir := newPlane(t), t.TempDir()
		p.put("one.example", 1000)
		p.put("two.example", 2000)
		e := open(t, p, dir)
		e.pull(t, 1)
		e.damage(t, prefix)
		e.journal.Close()
		for range 3 { // it dies each time before it could pull
			e = open(t, p, dir)
			if got := held(e.Table()); len(got) != 0 || e.Status().Complete || e.Status().After != "" {
				t.Fatalf("%s: %v, %+v", prefix, got, e.Status())
			}
			e.journal.Close()
		}
		p.mu.Lock()
		delete(p.documents, "domain/one.example") // so long ago that nothing tells of it any more
		p.mu.Unlock()
		e = open(t, p, dir)
		e.pull(t, 1)
		e.journal.Close()
		e = open(t, p, dir)
		if got := held(e.Table()); !slices.Equal(got, p.names()) || !e.Status().Complete {
			t.Errorf("%s: %v after pulling anew, want %v", prefix, got, p.names())
		}
		e.journal.Close()
	}
}

// What a damaged log has lost may be a page, while the position behind a later one is there: nothing would ever bring it again.
func TestPolicyIsPulledAnewWhereTheJournalHasLostChanges(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.put("one.example", 1000)
	e := open(t, p, dir)
	e.pull(t, 1)
	e.journal.Close()
	if err := os.WriteFile(filepath.Join(dir, "changes-lost"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e = open(t, p, dir)
	defer e.journal.Close()
	if got := held(e.Table()); len(got) != 0 || e.Status().Complete || e.Status().After != "" {
		t.Errorf("trusted a policy with a hole: %v, %+v", got, e.Status())
	}
	e.pull(t, 1)
	if got := held(e.Table()); !slices.Equal(got, p.names()) {
		t.Errorf("after pulling anew: %v", got)
	}
}

func TestEachPollSaysWhatIsEnforced(t *testing.T) {
	p := newPlane(t)
	for i := range 3 {
		p.put(fmt.Sprintf("d%d.example", i), 1000)
	}
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	e.pull(t, 3)
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := []string{"", "2,domain/d1.example", "3,~"}; !slices.Equal(p.acked, want) {
		t.Errorf("polls after %q, want %q", p.acked, want)
	}
}

func TestATableThatIsReadStaysAsItIs(t *testing.T) {
	p := newPlane(t)
	p.put("one.example", 1000)
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	e.pull(t, 1)
	table, before := e.Table(), held(e.Table())
	p.remove("one.example")
	p.put("two.example", 1000)
	e.pull(t, 1)
	if got := held(table); !slices.Equal(got, before) || slices.Equal(held(e.Table()), before) {
		t.Errorf("the old table became %v", got)
	}
}

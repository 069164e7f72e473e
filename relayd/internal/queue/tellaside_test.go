package queue_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/queue"
)

// set writes a record of the journal.
func (e *edge) set(key, record string) {
	e.t.Helper()
	b := e.journal.NewBatch()
	b.Set([]byte(key), []byte(record))
	if err := e.journal.Commit(b); err != nil {
		e.t.Fatal(err)
	}
}

// setAside are the events since the start of the edge that tell of a message in quarantine.
func (e *edge) setAside(id string) (told []api.EdgeEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.events {
		if event.Kind == api.EdgeEventKindMessageQuarantined && *event.MessageID == id {
			told = append(told, event)
		}
	}
	return told
}

// The control plane would show the messages as queued for ever.
func TestAMessageThatTheStartFindsDamagedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		log := maillog.NewBuffer(&lines, nil)
		e := newEdge(t, func(c *queue.Config) { c.Log = maillog.New(maillog.Config{Out: log}) })
		defer e.close()
		envelope, note := e.store("anna@example.com", "b@y.test"), e.store("anna@example.com", "c@z.test")
		whole := e.store("anna@example.com", "d@z.test")
		e.set("se"+envelope, "garbage")
		record, err := e.journal.Get([]byte("se" + note))
		if err != nil {
			t.Fatal(err)
		}
		e.set("se"+note, string(record)+"garbage")
		e.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []string{envelope, note}
		slices.Sort(want)
		if aside := e.inQuarantine(); !slices.Equal(aside, want) || len(e.setAside(whole)) > 0 {
			t.Errorf("in quarantine %q, of the whole one it is told %+v", aside, e.setAside(whole))
		}
		for id, domain := range map[string]string{envelope: "", note: "example.com"} {
			told := e.setAside(id)
			if len(told) != 1 || told[0].Detail == nil || (told[0].Domain == nil) != (domain == "") || domain != "" && *told[0].Domain != domain {
				t.Errorf("%s of %q: told %+v", id, domain, told)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		if text := lines.String(); strings.Count(text, "of a domain that cannot be told") != 1 || !strings.Contains(text, "msg=held id="+envelope) {
			t.Errorf("the log:\n%s", text)
		}
	})
}

// A crash may take the event of a quarantine; what it leaves is not told again, or each start would tell of all that is there.
func TestWhatIsInQuarantineIsToldAtTheNextStartIfItWasNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer func() { e.close() }()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { panic("index out of range") }
		e.run()
		id := e.add("anna@example.com", "b@y.test")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		e.isQuarantined(id)
		e.close()
		first := e.setAside(id)
		e.events = nil // lost, and with it what says that it was told
		e.open()
		b := e.journal.NewBatch()
		b.Delete([]byte("st" + id))
		if err := e.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		e.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		again := e.setAside(id)
		if len(first) != 1 || len(again) != 1 || *again[0].Detail != *first[0].Detail || *again[0].Domain != "example.com" {
			t.Errorf("told %+v, then %+v", first, again)
		}
		// And not for ever: a start tells of nothing that was told.
		restart := func() {
			e.close()
			e.events = nil
			e.open()
			e.run()
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		restart()
		if told := e.setAside(id); len(told) > 0 {
			t.Errorf("a third time it is told %+v", told)
		}
		// What is released is not told to be in quarantine by a start that comes later.
		e.courier.decide = nil
		e.operate(queue.Release, queue.Selection{Messages: []string{id}})
		restart()
		if told := e.setAside(id); len(told) > 0 {
			t.Errorf("after its release it is told %+v", told)
		}
	})
}

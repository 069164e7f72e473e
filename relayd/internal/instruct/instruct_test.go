package instruct_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/instruct"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

type edge struct {
	runner  *instruct.Runner
	journal *journal.Journal
	spool   *spool.Spool
	outbox  *outbox.Outbox
	queue   *queue.Queue
	operate func(context.Context, queue.Operation, queue.Tally, func(*journal.Batch, queue.Tally, bool) error) error
	queued  []string
	close   func()
}

// nobody is a courier that is never called: the queue does not run.
type nobody struct{}

func (nobody) Attempt(context.Context, queue.Job) []queue.Result { panic("the queue does not run") }

func open(t *testing.T, dir string) *edge {
	t.Helper()
	return openWith(t, dir, time.Minute)
}

func openWith(t *testing.T, dir string, patience time.Duration) *edge {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC) }
	j, err := journal.Open(journal.Config{Dir: dir + "/journal"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(spool.Config{Dir: dir + "/spool", Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	o, err := outbox.Open(outbox.Config{Journal: j, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{spool: s, outbox: o, close: func() { s.Close(); j.Close() }}
	e.queue, err = queue.New(queue.Config{
		Spool: s, Journal: j, Courier: nobody{}, Note: o.Append, Hostname: "edge.example", Now: now, Entropy: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.journal, e.operate = j, e.queue.Operate
	e.runner, err = instruct.New(instruct.Config{
		Operate: func(ctx context.Context, op queue.Operation, tally queue.Tally, record func(*journal.Batch, queue.Tally, bool) error) error {
			return e.operate(ctx, op, tally, record)
		},
		Journal: j, Spool: s, Outbox: o, Enqueue: func(m *spool.Message) { e.queued = append(e.queued, m.ID) }, Hostname: "edge.example",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: now, Entropy: rand.Reader, Patience: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func notice(number int64) api.Instruction {
	support := "support@acme.example"
	return api.Instruction{Number: number, Kind: api.InstructionKindSendNotice, Notice: &api.Notice{
		ID: "n1", Kind: api.NoticeKindQuotaReached, Domain: "example.com", To: []string{"admin@example.com", "not an address", "it@example.com"},
		From: "postmaster@relay.example", Limit: 1000, Used: 1000, Unit: api.QuotaUnitMessage,
		ResetsAt: time.Date(2026, 11, 23, 0, 0, 0, 0, time.FixedZone("", 3600)), SupportContact: &support,
	}}
}

func TestANoticeIsStoredOnceForEveryContactThatIsAnAddress(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	for range 2 {
		if err := e.runner.Carry(context.Background(), sent(t, notice(7))); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.queued) != 1 || e.runner.Acknowledged() != 7 {
		t.Fatalf("queued %v, acknowledged %d", e.queued, e.runner.Acknowledged())
	}
	m, err := e.spool.Load(e.queued[0])
	if err != nil || !m.Notice || m.Units != 0 || len(m.Recipients) != 2 || m.From.Local != "" {
		t.Fatalf("message %+v, %v", m, err)
	}
	body, err := e.spool.Body(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Subject: Relay limit reached for example.com\r\n", "Used:    1000 of 1000 messages today\r\n",
		"Resets:  2026-11-23T00:00:00+01:00\r\n", "Auto-Submitted: auto-generated\r\n", "Your provider: support@acme.example\r\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("notice lacks %q:\n%s", want, text)
		}
	}
	e.close()

	again := open(t, dir)
	defer again.close()
	if err := again.runner.Carry(context.Background(), sent(t, notice(7))); err != nil {
		t.Fatal(err)
	}
	if len(again.queued) != 0 || again.runner.Acknowledged() != 7 {
		t.Fatalf("after a restart: queued %v, acknowledged %d", again.queued, again.runner.Acknowledged())
	}
}

// sent are instructions as they come over the wire.
func sent(t *testing.T, instructions ...api.Instruction) (texts []json.RawMessage) {
	t.Helper()
	for _, instruction := range instructions {
		text, err := json.Marshal(instruction)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}

// The control plane may be newer than the edge.
func TestAnInstructionThatIsNotUnderstoodChangesNothingIsReportedAndDoesNotBlockTheNext(t *testing.T) {
	for _, c := range []struct{ name, instruction, ref string }{
		{name: "kind", instruction: `{"number":1,"kind":"teleport"}`},
		{name: "kind of operation", instruction: `{"number":1,"kind":"queue-reroute","queue":{"operation_id":"qop_1","domain":"example.com"}}`, ref: "qop_1"},
		{name: "no selection", instruction: `{"number":1,"kind":"queue-cancel"}`},
		{name: "field of a selection", instruction: `{"number":1,"kind":"queue-cancel","queue":{"operation_id":"qop_1","client_address":"192.0.2.1"}}`, ref: "qop_1"},
		{name: "field of an operation", instruction: `{"number":1,"kind":"queue-cancel","not_before":"2026-11-23T00:00:00Z","queue":{"operation_id":"qop_1"}}`, ref: "qop_1"},
		{name: "kind of notice", instruction: `{"number":1,"kind":"send-notice","notice":{"id":"n1","kind":"partner-suspended","to":["admin@example.com"]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t, t.TempDir())
			defer e.close()
			waiting := e.store(t, "example.com", 1)
			err := e.runner.Carry(t.Context(), append([]json.RawMessage{json.RawMessage(c.instruction)}, sent(t, notice(2))...))
			if err != nil || e.runner.Acknowledged() != 2 || len(e.queued) != 1 {
				t.Fatalf("err %v, acknowledged %d, queued %v", err, e.runner.Acknowledged(), e.queued)
			}
			if _, err := e.spool.Load(waiting[0]); err != nil {
				t.Errorf("mail that waited: %v", err)
			}
			events := e.events(t)
			if len(events) != 2 || events[0].Kind != api.EdgeEventKindInstructionUnknown || events[1].Kind != api.EdgeEventKindNoticeQueued {
				t.Fatalf("events %+v", events)
			}
			if ref := events[0].Ref; (ref == nil) != (c.ref == "") || ref != nil && *ref != c.ref {
				t.Errorf("the event names operation %v, want %q", ref, c.ref)
			}
		})
	}
}

func TestANoticeIsSentAlsoWithAFieldThatCameLater(t *testing.T) {
	e := open(t, t.TempDir())
	defer e.close()
	text := bytes.Replace(sent(t, notice(1))[0], []byte(`"notice":{`), []byte(`"notice":{"logo":"https://acme.example/logo.png",`), 1)
	if err := e.runner.Carry(t.Context(), []json.RawMessage{text}); err != nil || len(e.queued) != 1 {
		t.Fatalf("err %v, queued %v", err, e.queued)
	}
}

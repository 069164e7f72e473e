package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/server"
	"activerelay/server/servertest"

	"github.com/oklog/ulid/v2"
)

// eventsPerBatch is the contract's maximum, which a busy edge sends.
const eventsPerBatch = 1000

// BenchmarkEvents takes in what an edge tells of mail that it relays: batches of a thousand events, each message accepted and a
// moment later delivered, over loopback HTTP. "cpu-ms/1000msg" is the processor time of the control plane, and of a client that
// only sends prepared bytes, for a thousand messages; it bears a busy machine better than the time that passes.
func BenchmarkEvents(b *testing.B) {
	databases := map[string]func(testing.TB) string{"sqlite": func(testing.TB) string { return "" }, "postgres": servertest.PostgreSQL}
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(name, func(b *testing.B) {
			gcPercent := debug.SetGCPercent(server.GCPercent) // as in the program
			b.Cleanup(func() { debug.SetGCPercent(gcPercent) })
			bench := newAPIBench(b, databases[name](b))
			edge := bench.edges[0]
			var spent time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer() // bodies are made one by one: many that wait would be a heap that spares the collector
				body := eventsBody(b, i)
				b.StartTimer()
				before := processorTime(b)
				bench.report(b, edge.token, body, int64(i+1)*eventsPerBatch)
				spent += processorTime(b) - before
			}
			b.ReportMetric(spent.Seconds()*1000/float64(b.N*eventsPerBatch/2)*1000, "cpu-ms/1000msg")
		})
	}
}

// eventsBody is batch i of an edge whose messages are delivered while others are accepted, about fifty at a time.
func eventsBody(b *testing.B, i int) []byte {
	b.Helper()
	const underWay = 50
	batch := api.EventBatch{Generation: 1, FirstKept: 1}
	began := time.Now().UTC().Truncate(time.Microsecond)
	first := i * eventsPerBatch / 2
	for n := range eventsPerBatch / 2 {
		batch.Events = append(batch.Events, acceptedEvent(first+n, began), deliveredEvent(first+n-underWay, began))
	}
	for n := range batch.Events {
		batch.Events[n].Sequence = int64(i*eventsPerBatch + n + 1)
	}
	text, err := json.Marshal(batch)
	if err != nil {
		b.Fatal(err)
	}
	return text
}

func acceptedEvent(n int, at time.Time) api.EdgeEvent {
	return api.EdgeEvent{
		Kind: api.EdgeEventKindMessageAccepted, Time: at, MessageID: new(messageID(n)), Domain: new(benchDomain(n % 5)),
		ClientAddress: new("192.0.2.10"), User: nil, Sender: new(fmt.Sprintf("user%d@%s", n%20, benchDomain(n%5))), Recipients: new(int64(1)),
		SizeBytes: new(int64(5120)), Units: new(int64(1)), DayStart: new(at.Truncate(24 * time.Hour)),
		Recipient: new(fmt.Sprintf("recipient%d@destination.test", n%1000)), PolicyRevision: new(int64(812)),
		RecipientDomains: []string{"destination.test"},
	}
}

func deliveredEvent(n int, at time.Time) api.EdgeEvent {
	return api.EdgeEvent{
		Kind: api.EdgeEventKindMessageDelivered, Time: at, MessageID: new(messageID(n)), Domain: new(benchDomain((n + 50) % 5)),
		Recipient: new(fmt.Sprintf("recipient%d@destination.test", n%1000)), Recipients: new(int64(1)),
		Reply: new("250 2.0.0 Ok: queued as 4D2F11C0045"), Sender: new(fmt.Sprintf("user%d@%s", (n+60)%20, benchDomain((n+50)%5))),
		RemoteHost: new("mx.destination.test[192.0.2.25]:25"),
	}
}

// messageID is that of message n, the same each time.
func messageID(n int) string {
	var id ulid.ULID
	_ = id.SetTime(uint64(1_800_000_000_000 + n))
	return id.String()
}

func (a *apiBench) report(b *testing.B, token string, body []byte, acknowledged int64) {
	b.Helper()
	request, err := http.NewRequest("POST", a.server.URL+"/v1/edge/events", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := a.http.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		b.Fatalf("status %d, %v: %s", response.StatusCode, err, text)
	}
	var ack api.EventAck
	decode(b, text, &ack)
	if ack.Acknowledged != acknowledged {
		b.Fatalf("acknowledged %d, want %d", ack.Acknowledged, acknowledged)
	}
}

// processorTime is what this process has used so far.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

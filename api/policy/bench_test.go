package policy

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"activerelay/api"
)

// firstPass is the documents of a platform of 100,000 domains: each with one
// relay IP, every tenth with three users, over 1,000 partners.
func firstPass(count int) []api.PolicyDocument {
	documents := make([]api.PolicyDocument, 0, count+1000)
	for i := range 1000 {
		documents = append(documents, partnerDoc(int64(i+1), fmt.Sprintf("partner-%d", i)))
	}
	for i := range count {
		name := fmt.Sprintf("customer-%d.example", i)
		documents = append(documents, domainDoc(int64(1001+i), name, func(d *api.DomainPolicy) {
			d.Partner = fmt.Sprintf("partner-%d", i%1000)
			zone := "Europe/Berlin"
			d.TimeZone = &zone
			d.Clients = []api.ClientPolicy{{
				ID: fmt.Sprintf("rip_%022d", i), Address: fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255),
				State: api.ClientPolicyStateActive,
			}}
			for u := range 3 * (1 - min(i%10, 1)) {
				d.Users = append(d.Users, api.UserPolicy{
					Address:  fmt.Sprintf("user%d@%s", u, name),
					Verifier: "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + fmt.Sprintf("%043d", i),
					Status:   api.AdministrativeStatusActive, Relaying: enabled(),
				})
			}
		}))
	}
	return documents
}

// BenchmarkFirstPass reports the time for 100,000 domains in pages of 500, and
// the memory that the table keeps.
func BenchmarkFirstPass(b *testing.B) {
	documents := firstPass(100_000)
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		b.StartTimer()
		table := Empty()
		for rest := documents; len(rest) > 0; rest = rest[min(500, len(rest)):] {
			table, _ = Apply(table, rest[:min(500, len(rest))])
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(table.DomainCount()), "kept-B/domain")
		runtime.KeepAlive(table)
		b.StartTimer()
	}
	runtime.KeepAlive(documents)
}

func BenchmarkOneChangeAmong100000Domains(b *testing.B) {
	table, _ := Apply(Empty(), firstPass(100_000))
	b.ReportAllocs()
	for b.Loop() {
		revision := table.Revision() + 1
		table, _ = Apply(table, []api.PolicyDocument{domainDoc(revision, fmt.Sprintf("customer-%d.example", revision%100_000), nil)})
	}
}

func BenchmarkLookup(b *testing.B) {
	table, _ := Apply(Empty(), firstPass(100_000))
	client := netip.MustParseAddr("10.0.12.34")
	b.ReportAllocs()
	for b.Loop() {
		d, ok := table.Domain("customer-3106.example")
		if !ok {
			b.Fatal("not found")
		}
		if _, answer := d.Client(client); answer != Yes {
			b.Fatal(answer)
		}
	}
}

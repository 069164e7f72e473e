package reason

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func reset(t *testing.T) time.Time {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return time.Date(2026, 11, 23, 0, 0, 0, 0, berlin)
}

func TestARefusalOverTheLimitGivesTheFiguresAndTheReset(t *testing.T) {
	got := string(Render(QuotaReached, Args{
		Domain: "example.com", Used: 1000, Limit: 1000, ResetsAt: reset(t),
		Contact: "support@partner.example", Ref: "01KAQ7M2", Edge: "fra1", Revision: 1842,
	}).Wire())
	want := "450-4.7.1 Relay limit reached for example.com: 1000 of 1000 messages today; resets 2026-11-23T00:00:00+01:00\r\n" +
		"450 4.7.1 reason=quota-reached ref=01KAQ7M2 edge=fra1 rev=1842\r\n"
	if got != want {
		t.Fatalf("got\n%swant\n%s", got, want)
	}
}

func TestRepliesReadAsSpecified(t *testing.T) {
	cases := []struct {
		name string
		slug Slug
		args Args
		want string
	}{
		{
			name: "client address", slug: IPNotAllowed, args: Args{Client: "192.0.2.10", Domain: "example.com"},
			want: "550 Relaying denied: client address 192.0.2.10 is not active for example.com",
		},
		{
			name: "client address, provider named", slug: IPNotAllowed,
			args: Args{Client: "192.0.2.10", Domain: "example.com", Contact: "https://partner.example/help"},
			want: "550 Relaying denied: client address 192.0.2.10 is not active for example.com; contact https://partner.example/help",
		},
		{
			name: "client address, stale policy", slug: IPNotAllowed,
			args: Args{Variant: WhenStale, Client: "192.0.2.10", Domain: "example.com"},
			want: "451 Cannot confirm just now that client address 192.0.2.10 is active for example.com; try again later",
		},
		{
			name: "unknown domain", slug: SenderDomainUnknown, args: Args{Domain: "example.org"},
			want: "550 Sender domain example.org is not registered for relaying",
		},
		{
			name: "another's address", slug: SenderNotOwned, args: Args{User: "user@example.com", Sender: "boss@example.com"},
			want: "553 user@example.com may not send as boss@example.com",
		},
		{
			name: "disabled", slug: RelayDisabled, args: Args{Subject: "example.com", Contact: "support@partner.example"},
			want: "550 Relaying is disabled for example.com (abuse complaints); contact support@partner.example",
		},
		{
			name: "disabled user", slug: RelayDisabled, args: Args{Variant: ForUser, Subject: "anna@example.com"},
			want: "525 Relaying is disabled for anna@example.com (abuse complaints)",
		},
		{
			name: "suspended", slug: RelaySuspended, args: Args{Subject: "example.com"},
			want: "450 Relaying is suspended for example.com",
		},
		{
			name: "suspended for long", slug: RelaySuspended, args: Args{Variant: Later, Subject: "example.com"},
			want: "550 Relaying is suspended for example.com",
		},
		{
			name: "recipients as unit", slug: QuotaReached,
			args: Args{Variant: ForUser, Domain: "example.com", Used: 998, Limit: 1000, Unit: "recipients", ResetsAt: reset(t)},
			want: "550 Relay limit reached for example.com: 998 of 1000 recipients today; resets 2026-11-23T00:00:00+01:00",
		},
		{
			name: "malware", slug: Malware, args: Args{Signature: "Eicar-Test-Signature"},
			want: "554 Message refused: malware found (Eicar-Test-Signature)",
		},
		{name: "bulk", slug: Bulk, want: "550 Newsletters and bulk mail are not relayed"},
		{name: "content rule", slug: ContentRule, args: Args{Rule: "no macros"}, want: `554 Message refused by rule "no macros"`},
		{name: "nothing known", slug: IPNotAllowed, want: "550 Relaying denied: client address this client is not active for this domain"},
		{name: "unknown variant", slug: Bulk, args: Args{Variant: ForUser}, want: "550 Newsletters and bulk mail are not relayed"},
		{name: "unknown slug", slug: "no-such", want: "451 Something went wrong on our side; try again later"},
		{name: "never said over SMTP", slug: NotFound, want: "451 Something went wrong on our side; try again later"},
		{name: "DSN only", slug: DeliveryExpired, want: "451 Something went wrong on our side; try again later"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			reply := Render(c.slug, c.args)
			first := string(reply.Wire()[:4]) // code and hyphen
			if got := strings.TrimSuffix(first, "-") + " " + reply.Lines[0]; got != c.want {
				t.Fatalf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTheSecondLineLeavesOutWhatIsUnknown(t *testing.T) {
	if got := Render(Bulk, Args{}).Lines[1]; got != "reason=bulk" {
		t.Fatalf("got %q", got)
	}
	if got := Render("no-such", Args{Ref: "a b\r\nc"}).Lines[1]; got != "reason=internal ref=a_b??c" {
		t.Fatalf("got %q", got)
	}
}

func TestAnArgumentCannotNameAnother(t *testing.T) {
	got := Render(SenderNotOwned, Args{User: "{sender}", Sender: "x"}).Lines[0]
	if got != "{sender} may not send as x" {
		t.Fatalf("got %q", got)
	}
}

// TestNoArgumentBreaksAReplyLine holds RFC 5321 4.5.3.1.5 and the rule that
// nothing a stranger sent starts a line of its own.
func TestNoArgumentBreaksAReplyLine(t *testing.T) {
	all := All()
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom(all).Draw(t, "reason")
		text := rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[a-z\r\n\x00\x1b{}é]{0,40}`),
			rapid.StringN(500, 2000, -1),
		)
		args := Args{
			Variant: rapid.SampledFrom(variantsOf(r)).Draw(t, "variant"),
			Domain:  text.Draw(t, "domain"), Client: text.Draw(t, "client"),
			User: text.Draw(t, "user"), Sender: text.Draw(t, "sender"),
			Recipient: text.Draw(t, "recipient"), Subject: text.Draw(t, "subject"),
			Signature: text.Draw(t, "signature"), Rule: text.Draw(t, "rule"),
			Detail: text.Draw(t, "detail"), Contact: text.Draw(t, "contact"),
			Limit: rapid.Int64().Draw(t, "limit"), Used: rapid.Int64().Draw(t, "used"),
			Ref: text.Draw(t, "ref"), Edge: text.Draw(t, "edge"), Revision: rapid.Int64().Draw(t, "rev"),
		}
		reply := Render(r.Slug, args)
		lines := strings.SplitAfter(string(reply.Wire()), "\r\n")
		if len(lines) != 3 || lines[2] != "" {
			t.Fatalf("%d lines in %q", len(lines)-1, lines)
		}
		for _, line := range lines[:2] {
			if len(line) > MaxLineBytes {
				t.Fatalf("line of %d bytes: %q", len(line), line)
			}
			for _, c := range []byte(strings.TrimSuffix(line, "\r\n")) {
				if c < ' ' || c > '~' {
					t.Fatalf("byte %#x in %q", c, line)
				}
			}
		}
	})
}

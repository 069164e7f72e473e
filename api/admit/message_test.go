package admit

import (
	"strings"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
)

func TestAMessageHoldsAsManyRecipientsAsThePlatformAllows(t *testing.T) {
	w := newWorld()
	w.settings.MaxRecipients = 3
	view := w.view(t)
	if got := told(Recipient(view, 2)); got != "ok" {
		t.Errorf("the third: %s", got)
	}
	if got := told(Recipient(view, 3)); got != "452 Too many recipients; at most 3 are accepted in one message" {
		t.Errorf("the fourth: %s", got)
	}
}

func TestAMessageIsAsLargeAsThePlatformAllows(t *testing.T) {
	view := newWorld().view(t)
	if got := told(Size(view, 1<<20)); got != "ok" {
		t.Errorf("at the limit: %s", got)
	}
	if got := told(Size(view, 1<<20+1)); got != "552 Message is larger than the 1048576 bytes allowed" {
		t.Errorf("over it: %s", got)
	}
}

func TestAMessageOverTheLimitIsRefusedWithTheFigures(t *testing.T) {
	resets := time.Date(2026, 11, 23, 0, 0, 0, 0, time.FixedZone("", 3600))
	reached := quota.Decision{Outcome: quota.Reached, Unit: quota.UnitMessage, Limit: 1000, Used: 1000, ResetsAt: resets}
	const sentence = "Relay limit reached for example.com: 1000 of 1000 messages today; resets 2026-11-23T00:00:00+01:00"
	cases := []struct {
		name     string
		change   func(*world)
		user     string
		decision quota.Decision
		want     string
	}{
		{name: "a mail server is deferred", decision: reached, want: "450 " + sentence},
		{name: "a user is refused", user: "anna@example.com", decision: reached, want: "550 " + sentence},
		{
			name: "a mail server is refused by setting", decision: reached,
			change: func(w *world) { w.settings.QuotaReachedReplyServer = api.SettingsQuotaReachedReplyServerRefuse }, want: "550 " + sentence,
		},
		{
			name: "a user is deferred by setting", user: "anna@example.com", decision: reached,
			change: func(w *world) { w.settings.QuotaReachedReplyUser = api.SettingsQuotaReachedReplyUserDefer }, want: "450 " + sentence,
		},
		{
			name: "recipients are counted", decision: quota.Decision{Outcome: quota.Reached, Unit: quota.UnitRecipient, Limit: 1000, Used: 998, ResetsAt: resets},
			want: "450 Relay limit reached for example.com: 998 of 1000 recipients today; resets 2026-11-23T00:00:00+01:00",
		},
		{
			name: "nobody knows", decision: quota.Decision{Outcome: quota.Unavailable, Limit: 1000, Used: 1000, ResetsAt: resets},
			want: "451 Cannot confirm the relay limit just now; try again later",
		},
		{name: "units are held", decision: quota.Decision{Outcome: quota.Granted, Limit: 1000}, want: "ok example.com"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			view := changed(t, c.change)
			domain, _ := view.Table.Domain("example.com")
			if got := told(Quota(view, clientOf(t, "192.0.2.10", c.user), domain, c.decision)); got != c.want {
				t.Fatalf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestBulkMailIsKnownByItsMarks(t *testing.T) {
	auto := func(w *world) { w.settings.BulkRefuseAutoSubmitted = true }
	limited := func(w *world) { w.settings.BulkRecipientCap = 20 }
	cases := []struct {
		name       string
		change     func(*world)
		header     string
		recipients int
		mark       string // "" = ordinary mail
	}{
		{name: "a letter", header: "From: a@example.com\nSubject: list-unsubscribe\nReply-To: list@example.com"},
		{name: "List-Unsubscribe", header: "LIST-unsubscribe: <https://x.test>", mark: "header List-unsubscribe"},
		{name: "List-Id", header: "Subject: x\nList-Id: News <news.example.com>", mark: "header List-id"},
		{name: "a List field of tomorrow", header: "List-Future: x", mark: "header List-future"},
		{name: "a List field with odd bytes", header: "List-\x1b[31m\xff: x", mark: "header List-?[31m?"},
		{name: "Listing is no List field", header: "Listing: x"},
		{name: "Precedence bulk", header: "Precedence: Bulk", mark: "header Precedence: bulk"},
		{name: "Precedence list with comment", header: "Precedence: (x) list (y)", mark: "header Precedence: list"},
		{name: "Precedence junk, folded", header: "precedence:\r\n\tjunk", mark: "header Precedence: junk"},
		{name: "Precedence first-class", header: "Precedence: first-class"},
		{name: "Precedence bulky", header: "Precedence: bulky"},
		{name: "Auto-Submitted by default", header: "Auto-Submitted: auto-replied"},
		{name: "Auto-Submitted where policy says so", change: auto, header: "Auto-Submitted: auto-generated; x=y", mark: "header Auto-Submitted"},
		{name: "Auto-Submitted: no", change: auto, header: "Auto-Submitted: No (really)"},
		{name: "Auto-Submitted, empty", change: auto, header: "Auto-Submitted: "},
		{name: "many recipients without a cap", recipients: 100},
		{name: "recipients at the cap", change: limited, recipients: 20},
		{name: "recipients over the cap", change: limited, recipients: 21, mark: "21 recipients, more than 20"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			view := changed(t, c.change)
			domain, _ := view.Table.Domain("example.com")
			v := Bulk(view, domain, fields(c.header), c.recipients)
			want := "ok example.com"
			if c.mark != "" {
				want = "550 Newsletters and bulk mail are not relayed"
			}
			if got := told(v); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
			if got := v.Checks[len(v.Checks)-1].Detail; got != c.mark {
				t.Fatalf("mark %q, want %q", got, c.mark)
			}
		})
	}
}

// fields cuts a header at lines that do not start with white space.
func fields(header string) []Field {
	var list []Field
	for _, line := range strings.Split(strings.ReplaceAll(header, "\r\n", "\n"), "\n") {
		if strings.HasPrefix(line, "\t") {
			list[len(list)-1].Value += "\r\n" + line
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			list = append(list, Field{Name: name, Value: value})
		}
	}
	return list
}

func TestWhatHappensToBulkMailIsForTheDomainThenThePlatformToSay(t *testing.T) {
	exception := func(mode api.BulkMode, expires *time.Time) func(*world) {
		return func(w *world) { w.com.Bulk = &api.BulkException{Mode: mode, ExpiresAt: expires} }
	}
	const refused = "550 Newsletters and bulk mail are not relayed"
	cases := []struct {
		name     string
		change   func(*world)
		want     string
		observed bool
	}{
		{name: "refused by default", want: refused},
		{name: "observed on the platform", change: func(w *world) { w.settings.BulkMode = api.BulkModeObserve }, want: "ok example.com", observed: true},
		{name: "allowed on the platform", change: func(w *world) { w.settings.BulkMode = api.BulkModeAllow }, want: "ok example.com"},
		{name: "allowed for the domain", change: exception(api.BulkModeAllow, nil), want: "ok example.com"},
		{name: "observed for the domain", change: exception(api.BulkModeObserve, ptr(noon().Add(time.Second))), want: "ok example.com", observed: true},
		{name: "no longer allowed", change: exception(api.BulkModeAllow, ptr(noon())), want: refused},
		{name: "refused for the domain only", want: refused, change: func(w *world) {
			w.settings.BulkMode = api.BulkModeAllow
			w.com.Bulk = &api.BulkException{Mode: api.BulkModeRefuse}
		}},
		{
			name: "an exception that cannot be read", change: exception("sometimes", nil),
			want: "451 Cannot confirm the relaying policy of example.com just now; try again later",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			view := changed(t, c.change)
			domain, _ := view.Table.Domain("example.com")
			v := Bulk(view, domain, fields("List-Id: x"), 1)
			if got := told(v); got != c.want {
				t.Fatalf("got  %s\nwant %s", got, c.want)
			}
			mark, observed := v.Observed()
			if observed != c.observed || observed && mark != "header List-id" {
				t.Fatalf("observed %v by %q", observed, mark)
			}
			// Ordinary mail does not need the exception.
			if ordinary := Bulk(view, domain, fields("Subject: x"), 1); ordinary.Action != Accept {
				t.Fatalf("a letter: %s", told(ordinary))
			}
		})
	}
}

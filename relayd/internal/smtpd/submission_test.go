package smtpd

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"
)

// RFC 6409 8: a submission server completes the mail of users, above their text, and never mends what is there.
func TestMissingDateAndMessageIDOfAUserAreAdded(t *testing.T) {
	const date, id = "Date: Sun, 22 Nov 2026 12:00:00 +0000", "Message-ID: <mine@client.test>"
	for _, test := range []struct {
		name       string
		header     []string
		dates, ids int  // in what is stored
		ours       bool // both were added
		user       bool
	}{
		{name: "both are missing", user: true, dates: 1, ids: 1, ours: true},
		{name: "the date is missing", user: true, header: []string{id}, dates: 1, ids: 1},
		{name: "the id is missing", user: true, header: []string{date}, dates: 1, ids: 1},
		{name: "nothing is missing", user: true, header: []string{date, id}, dates: 1, ids: 1},
		{name: "odd spelling", user: true, header: []string{"dATE :\r\n yesterday", "MESSAGE-id\t: <>"}, dates: 1, ids: 1},
		{name: "empty", user: true, header: []string{"Date:", "Message-ID:"}, dates: 1, ids: 1},
		{name: "twice", user: true, header: []string{date, date, id, id}, dates: 2, ids: 2},
		{name: "other names", user: true, header: []string{"Resent-" + date, "X-" + id}, dates: 1, ids: 1, ours: true},
		{name: "a relay IP", dates: 0, ids: 0},
		// It may vouch for the absence of both: RFC 6376 5.4.
		{name: "a signature", user: true, header: []string{"DKIM-signature : v=1; d=ok.test; h=from:date:message-id"}, dates: 0, ids: 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := startEdge(t, nil)
			c := e.hello()
			if test.user {
				c.login("anna@ok.test", password, "235 .*")
			}
			letter := text("anna@ok.test", test.header...)
			began := time.Now().Truncate(time.Second)
			c.mail("anna@ok.test", letter, queuedAs)
			messages, texts := e.stored()
			if !strings.HasSuffix(texts[0], letter) {
				t.Fatalf("stored %q\nwant it to end in %q", texts[0], letter)
			}
			head, _, _ := strings.Cut(texts[0], "\r\n\r\n")
			dates, ids := regexp.MustCompile(`(?im)^date\s*:`), regexp.MustCompile(`(?im)^message-id\s*:`)
			if d, i := len(dates.FindAllString(head, -1)), len(ids.FindAllString(head, -1)); d != test.dates || i != test.ids {
				t.Errorf("%d dates and %d ids, want %d and %d:\n%s", d, i, test.dates, test.ids, head)
			}
			if messages[0].Size != int64(len(texts[0])) {
				t.Errorf("size is %d, want %d", messages[0].Size, len(texts[0]))
			}
			if !test.ours {
				return
			}
			m, err := mail.ReadMessage(strings.NewReader(texts[0]))
			e.must(err)
			if at, err := m.Header.Date(); err != nil || at.Before(began) || at.After(time.Now().Add(time.Second)) {
				t.Errorf("the date is %s, %v", at, err)
			}
			if want := fmt.Sprintf("<%s@edge.relay.test>", messages[0].ID); m.Header.Get("Message-ID") != want {
				t.Errorf("the id is %s, want %s", m.Header.Get("Message-ID"), want)
			}
		})
	}
}

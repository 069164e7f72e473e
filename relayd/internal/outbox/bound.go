package outbox

import (
	"unicode/utf8"

	"activerelay/api"
)

// bound cuts texts to what the contract allows, those of strangers above all. One event that is too long would have its whole batch
// refused, again and again, and everything behind it would wait.
func bound(e *api.EdgeEvent) {
	for _, field := range []struct {
		text  **string
		limit int // characters
	}{
		{text: &e.Reply, limit: 1000},
		{text: &e.Detail, limit: 1000},
		{text: &e.RemoteHost, limit: 300},
		{text: &e.Sender, limit: 320},
		{text: &e.Recipient, limit: 320},
		{text: &e.User, limit: 254},
		{text: &e.Domain, limit: 253},
		{text: &e.MessageID, limit: 64},
		{text: &e.Ref, limit: 64},
		{text: &e.Reason, limit: 64},
		{text: &e.ClientAddress, limit: 50},
		{text: &e.Stage, limit: 32},
	} {
		if *field.text == nil || utf8.RuneCountInString(**field.text) <= field.limit {
			continue
		}
		cut := string([]rune(**field.text)[:field.limit-1]) + "…"
		*field.text = &cut
	}
}

package dsn

import (
	"slices"
	"strings"
)

// Action is the fate that a notification reports (RFC 3464 2.3.3).
type Action string

// The actions that a relay has to report.
const (
	// Failed: given up, for good.
	Failed Action = "failed"
	// Delayed: still trying.
	Delayed Action = "delayed"
	// Relayed: handed to a server that will not report by itself.
	Relayed Action = "relayed"
)

// Wanted reports whether a recipient's NOTIFY parameter asks for a notification
// of a. Without NOTIFY, failures and delays are reported, successes are not
// (RFC 3461 4.1).
func Wanted(notify []string, a Action) bool {
	if len(notify) == 0 {
		return a != Relayed
	}
	word := map[Action]string{Failed: "FAILURE", Delayed: "DELAY", Relayed: "SUCCESS"}[a]
	return slices.ContainsFunc(notify, func(s string) bool { return strings.EqualFold(s, word) })
}

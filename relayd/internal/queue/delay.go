package queue

import (
	"strings"

	"activerelay/api"
)

// delay is why a recipient waits, a word of the contract.
type delay = api.DelayReason

// delayOf is the reason that a result is.
func (s *settlement) delayOf(res Result) delay {
	switch {
	case s.untried != "":
		return s.untried
	case s.interrupted:
		return api.DelayReasonEdgeTrouble
	case res.Code == 421:
		return api.DelayReasonConnectionFailed
	case res.Code != 0:
		return api.DelayReasonDeferred
	}
	return delayOfStatus(res.Enhanced, res.Text)
}

// delayOfStatus is the reason where no reply decided.
func delayOfStatus(status, text string) delay {
	switch {
	case status == "4.4.3":
		return api.DelayReasonLookupFailed
	case strings.HasPrefix(status, "4.4."), strings.HasPrefix(status, "4.5."):
		return api.DelayReasonConnectionFailed
	case status == "4.7.8":
		return api.DelayReasonLoginFailed
	case strings.HasPrefix(status, "4.7."):
		return api.DelayReasonTLSFailed
	case strings.HasPrefix(text, unknownWay):
		return api.DelayReasonRouteUnknown
	case strings.HasPrefix(status, "4.3."):
		return api.DelayReasonEdgeTrouble
	}
	return api.DelayReasonOther
}

// unknownWay begins the text of mail whose route cannot be told.
const unknownWay = "the way out is not known: "

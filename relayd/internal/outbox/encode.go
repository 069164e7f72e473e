package outbox

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"activerelay/api"
)

// The longest texts that the contract allows, in characters.
const (
	maxReply         = 1000
	maxDetail        = 1000
	maxRemoteHost    = 300
	maxMailbox       = 320
	maxUser          = 254
	maxDomain        = 253
	maxID            = 64
	maxClientAddress = 50
	maxStage         = 32
	maxDestinations  = 1000
)

// errYear is RFC 3339's bound.
var errYear = errors.New("the year of an instant has not four digits")

// appendEvent appends the members of an event as JSON, each with a comma before it, and the closing brace: what stands behind the
// sequence. Two events are written for each message and encoding/json took more time over them than the journal, which is why
// this is written out; a test holds it to encoding/json and to the contract.
//
// Texts of strangers are cut to what the contract allows, and lose their control characters: an event that is refused
// would hold up those behind it.
func appendEvent(dst []byte, e *api.EdgeEvent) ([]byte, error) {
	dst = append(dst, `,"kind":"`...)
	dst = append(append(dst, e.Kind...), '"')
	w := writer{text: dst}
	w.instant(`,"time":`, &e.Time)
	w.string(`,"domain":`, e.Domain, maxDomain)
	w.string(`,"message_id":`, e.MessageID, maxID)
	w.string(`,"ref":`, e.Ref, maxID)
	w.string(`,"reason":`, e.Reason, maxID)
	w.string(`,"stage":`, e.Stage, maxStage)
	w.string(`,"reply":`, e.Reply, maxReply)
	w.string(`,"client_address":`, e.ClientAddress, maxClientAddress)
	w.string(`,"user":`, e.User, maxUser)
	w.string(`,"sender":`, e.Sender, maxMailbox)
	w.string(`,"recipient":`, e.Recipient, maxMailbox)
	w.number(`,"recipients":`, e.Recipients)
	w.list(`,"recipient_domains":`, e.RecipientDomains)
	w.number(`,"messages":`, e.Messages)
	w.number(`,"attempts":`, e.Attempts)
	w.instant(`,"next_attempt_at":`, e.NextAttemptAt)
	w.number(`,"units":`, e.Units)
	w.number(`,"size_bytes":`, e.SizeBytes)
	w.instant(`,"day_start":`, e.DayStart)
	w.number(`,"policy_revision":`, e.PolicyRevision)
	w.string(`,"remote_host":`, e.RemoteHost, maxRemoteHost)
	w.string(`,"tls":`, e.TLS, maxID)
	w.string(`,"delay_reason":`, e.DelayReason, maxID)
	w.string(`,"detail":`, e.Detail, maxDetail)
	return append(w.text, '}'), w.err
}

// writer appends members, whose names come with all that stands around them. What is nil or empty is left out.
type writer struct {
	text []byte
	err  error
}

func (w *writer) string(name string, value *string, limit int) {
	if value != nil {
		w.text = appendText(append(w.text, name...), *value, limit)
	}
}

func (w *writer) number(name string, value *int64) {
	if value != nil {
		w.text = strconv.AppendInt(append(w.text, name...), *value, 10)
	}
}

func (w *writer) instant(name string, value *time.Time) {
	if value == nil {
		return
	}
	if year := value.Year(); year < 0 || year > 9999 {
		w.err = errYear
	}
	w.text = append(append(w.text, name...), '"')
	w.text = append(value.AppendFormat(w.text, time.RFC3339Nano), '"')
}

func (w *writer) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	w.text = append(w.text, name...)
	for i, value := range values[:min(len(values), maxDestinations)] {
		w.text = append(w.text, "[,"[min(i, 1)])
		w.text = appendText(w.text, value, maxDomain)
	}
	w.text = append(w.text, ']')
}

// appendText appends a JSON string of at most limit characters.
func appendText(dst []byte, s string, limit int) []byte {
	dst = append(dst, '"')
	if len(s) > limit && utf8.RuneCountInString(s) > limit {
		return append(appendEscaped(dst, s[:offset(s, limit-1)]), `…"`...)
	}
	return append(appendEscaped(dst, s), '"')
}

// offset is where character n begins.
func offset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func appendEscaped(dst []byte, s string) []byte {
	begin := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r > 0x7f && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		dst = append(dst, s[begin:i]...)
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', c)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r == utf8.RuneError:
			dst = append(dst, "\ufffd"...)
		default: // a control character, which the contract allows nowhere
			dst = append(dst, '?')
		}
		i += size
		begin = i
	}
	return append(dst, s[begin:]...)
}

package reason

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxLineBytes is the longest reply line, with its code and CR LF (RFC 5321
// 4.5.3.1.5).
const MaxLineBytes = 512

// maxArgBytes bounds one argument: the longest address still fits.
const maxArgBytes = 254

// Args are the named arguments of a sentence and the marks of the second line.
// Every field may be empty; the text then stays readable.
type Args struct {
	// Variant picks the alternative reply. "" is the ordinary one.
	Variant Variant `json:"variant,omitempty"`

	Domain    string `json:"domain,omitempty"`
	Client    string `json:"client,omitempty"` // client address
	User      string `json:"user,omitempty"`   // authenticated user
	Sender    string `json:"sender,omitempty"`
	Recipient string `json:"recipient,omitempty"`
	// Subject is what was disabled or suspended: user, address, domain, partner.
	Subject   string `json:"subject,omitempty"`
	Signature string `json:"signature,omitempty"`
	Rule      string `json:"rule,omitempty"`
	Detail    string `json:"detail,omitempty"`
	// Contact is the partner's support contact: an address or a URL.
	Contact string `json:"contact,omitempty"`

	// Limit is in the unit of the sentence: messages, recipients or bytes.
	Limit int64  `json:"limit,omitempty"`
	Used  int64  `json:"used,omitempty"`
	Unit  string `json:"unit,omitempty"` // "messages" (default) or "recipients"
	// ResetsAt is printed with the offset of its own location.
	ResetsAt time.Time `json:"resets_at,omitzero"`

	Ref      string `json:"ref,omitempty"` // message or incident id
	Edge     string `json:"edge,omitempty"`
	Revision int64  `json:"rev,omitempty"` // policy revision; 0 is left out
}

// Reply is one finished SMTP answer.
type Reply struct {
	Code     int
	Enhanced Enhanced
	// Lines are printable ASCII without code and line end: the sentence, then
	// the marks for machines.
	Lines []string
}

// Render writes the reply of a reason. An unknown slug, and one that is never
// said over SMTP, is answered as an internal error: 451 4.3.0.
func Render(slug Slug, a Args) Reply {
	r, ok := Lookup(slug)
	if !ok || r.Reply.SMTP == 0 {
		r, _ = Lookup(Internal)
		a.Variant = Ordinary
	}
	code, _ := r.Under(a.Variant)
	prefix := len("550-") + len(code.Enhanced.String()) + len(" ") + len("\r\n")
	return Reply{
		Code:     code.SMTP,
		Enhanced: code.Enhanced,
		Lines: []string{
			cut(r.Text(a), MaxLineBytes-prefix),
			cut(marks(r.Slug, a), MaxLineBytes-prefix),
		},
	}
}

// Text returns the sentence of r with its arguments filled in, as printable
// ASCII. It is also the detail of a problem and the text of an event.
func (r Reason) Text(a Args) string {
	_, sentence := r.Under(a.Variant)
	text := fill(sentence, a)
	if r.NamesContact && a.Contact != "" {
		text += "; contact " + clean(a.Contact, maxArgBytes)
	}
	return text
}

// Message returns the lines joined by LF, as smtp.SMTPError holds them.
func (r Reply) Message() string { return strings.Join(r.Lines, "\n") }

// Wire returns the reply as it goes over the wire.
func (r Reply) Wire() []byte {
	var b bytes.Buffer
	for i, line := range r.Lines {
		separator := byte('-')
		if i == len(r.Lines)-1 {
			separator = ' '
		}
		fmt.Fprintf(&b, "%d%c%s %s\r\n", r.Code, separator, r.Enhanced, line)
	}
	return b.Bytes()
}

func marks(slug Slug, a Args) string {
	fields := []string{"reason=" + string(slug)}
	if a.Ref != "" {
		fields = append(fields, "ref="+token(a.Ref))
	}
	if a.Edge != "" {
		fields = append(fields, "edge="+token(a.Edge))
	}
	if a.Revision != 0 {
		fields = append(fields, "rev="+strconv.FormatInt(a.Revision, 10))
	}
	return strings.Join(fields, " ")
}

// fill replaces each "{name}". Text that an argument brings in is not searched
// again, so an argument cannot name another.
func fill(sentence string, a Args) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(sentence, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		b.WriteString(clean(argument(name, a), maxArgBytes))
		sentence = after
	}
}

// argument returns the value of a named argument, or neutral words where the
// caller did not know it.
func argument(name string, a Args) string {
	switch name {
	case "domain":
		return orElse(a.Domain, "this domain")
	case "client":
		return orElse(a.Client, "this client")
	case "user":
		return orElse(a.User, "this user")
	case "sender":
		return orElse(a.Sender, "this sender")
	case "recipient":
		return orElse(a.Recipient, "this recipient")
	case "subject":
		return orElse(a.Subject, orElse(a.Domain, "this sender"))
	case "signature":
		return orElse(a.Signature, "unnamed")
	case "rule":
		return orElse(a.Rule, "unnamed")
	case "detail":
		return orElse(a.Detail, "no details")
	case "unit":
		return orElse(a.Unit, "messages")
	case "limit":
		return strconv.FormatInt(a.Limit, 10)
	case "used":
		return strconv.FormatInt(a.Used, 10)
	case "resets_at":
		return a.ResetsAt.Format(time.RFC3339)
	}
	return ""
}

func orElse(value, other string) string {
	if value == "" {
		return other
	}
	return value
}

// clean makes text from strangers safe for a reply line, a log and a terminal:
// printable ASCII only, no line ends, no escapes, bounded.
func clean(s string, limit int) string {
	safe := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 4*limit)])
	return cut(safe, limit)
}

// token is clean for the second line, whose fields end at a space.
func token(s string) string {
	return strings.ReplaceAll(clean(s, 64), " ", "_")
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit-3] + "..."
}

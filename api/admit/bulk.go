package admit

import (
	"fmt"
	"strings"

	"activerelay/api"
	"activerelay/api/policy"
	"activerelay/api/reason"
)

// Field is one header field, its value folded or not.
type Field struct {
	Name, Value string
}

// Bulk decides whether a message is a newsletter or a mailing, by the marks that
// such mail carries. What happens then is the domain's exception, else the
// platform's mode: refuse, observe (relay, and note it in the receipt), or allow.
func Bulk(view View, domain *policy.Domain, header []Field, recipients int) Verdict {
	v := Verdict{Domain: domain}
	v.Partner, _ = view.Table.Partner(domain.Partner())
	platform := view.Table.Platform()
	mark := bulkMark(platform, header, recipients)
	if mark == "" {
		v.note(CheckBulk, Passed, "")
		v.Action = Accept
		return v
	}
	mode, answer := domain.BulkMode(platform, view.Now)
	switch {
	case answer != policy.Yes:
		v.note(CheckBulk, Unknown, mark)
		return v.refuse(view, reason.PolicyStale, reason.Args{Domain: domain.Name})
	case mode == api.BulkModeObserve:
		v.note(CheckBulk, Noted, mark)
	case mode == api.BulkModeAllow:
		v.note(CheckBulk, Passed, mark)
	default:
		v.note(CheckBulk, Failed, mark)
		return v.refuse(view, reason.Bulk, reason.Args{Domain: domain.Name, Detail: mark})
	}
	v.Action = Accept
	return v
}

// Observed reports whether bulk mail was let pass only because it is observed,
// and by which mark it was known.
func (v Verdict) Observed() (mark string, ok bool) {
	for _, check := range v.Checks {
		if check.Name == CheckBulk && check.Outcome == Noted {
			return check.Detail, true
		}
	}
	return "", false
}

// bulkMark is the first mark of bulk mail in words, "" where there is none.
func bulkMark(platform *policy.Platform, header []Field, recipients int) string {
	if limit := platform.BulkRecipientCap; limit > 0 && recipients > limit {
		return fmt.Sprintf("%d recipients, more than %d", recipients, limit)
	}
	for _, field := range header {
		if mark := fieldMark(platform, field); mark != "" {
			return mark
		}
	}
	return ""
}

func fieldMark(platform *policy.Platform, field Field) string {
	name := strings.ToLower(strings.TrimSpace(field.Name))
	switch {
	case strings.HasPrefix(name, "list-"): // RFC 2369, RFC 2919, RFC 8058
		return "header " + canonicalName(name)
	case name == "precedence":
		switch word := firstWord(field.Value); word {
		case "bulk", "list", "junk":
			return "header Precedence: " + word
		}
	case name == "auto-submitted" && platform.BulkAutoSubmitted:
		// RFC 3834 5: anything but "no", with or without parameters.
		if word := firstWord(field.Value); word != "" && word != "no" {
			return "header Auto-Submitted"
		}
	}
	return ""
}

// maxMarkBytes bounds the name of a field, which the sender made up.
const maxMarkBytes = 40

func canonicalName(name string) string {
	rest := name[len("list-"):min(len(name), maxMarkBytes)]
	return "List-" + strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, rest)
}

// firstWord is the value in lower case up to white space, a parameter or a
// comment. Comments before it are passed over.
func firstWord(value string) string {
	rest := strings.TrimSpace(value)
	for strings.HasPrefix(rest, "(") {
		end := strings.IndexByte(rest, ')')
		if end < 0 {
			return ""
		}
		rest = strings.TrimSpace(rest[end+1:])
	}
	if i := strings.IndexAny(rest, "; \t\r\n("); i >= 0 {
		rest = rest[:i]
	}
	return strings.ToLower(rest)
}

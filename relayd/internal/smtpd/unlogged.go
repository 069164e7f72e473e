package smtpd

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"activerelay/api/reason"
	"activerelay/relayd/internal/maillog"
)

// How many refusals have a line in the mail log: the first ones, because the disk of the log is not for whoever hammers. All of
// them are counted, and how many have no line is said at the end of the session.
const (
	// linesOfStrangers are the lines for one reason in a session. A customer has no more for a decision that is repeated: they would
	// all bear its reference.
	linesOfStrangers = 20
	// linesOfCustomers are the lines for one reason in a session where it is a domain's own mail that is refused.
	linesOfCustomers = 1000
	// linesPerMinute are the lines for strangers at one address, over all their sessions.
	linesPerMinute = 60
)

// lines are what a session was refused, by reason.
type lines map[reason.Slug]tally

type tally struct{ written, unwritten int }

// writes reports whether a refusal gets a line, and counts it.
func (s *Server) writes(r *refusal) bool {
	limit := linesOfCustomers
	if r.quiet || r.ofStranger() {
		limit = linesOfStrangers
	}
	sofar := r.lines[r.slug]
	writes := sofar.written < limit && (!r.ofStranger() || s.takeLine(r.client))
	if writes {
		sofar.written++
	} else {
		sofar.unwritten++
		s.metrics.unlogged.Inc()
	}
	if r.lines != nil {
		r.lines[r.slug] = sofar
	}
	return writes
}

// takeLine takes one of the lines that strangers at an address have; the operator is told once a minute that none is left.
func (s *Server) takeLine(client netip.Addr) bool {
	key, now := addressKey(client), s.Now()
	if s.lines.take(key, now) == 0 {
		return true
	}
	s.lines.give(key, now)
	if s.lineAlarms.take(key, now) == 0 {
		s.Log.Warn("an address is refused more often than is logged", "client", client, "lines_per_minute", linesPerMinute)
	} else {
		s.lineAlarms.give(key, now)
	}
	return false
}

// tellUnwritten says at the end of a session how many refusals have no line. To a stranger that is one line more, which must be
// left.
func (s *session) tellUnwritten() {
	var texts []string
	for _, slug := range slices.Sorted(maps.Keys(s.lines)) {
		if n := s.lines[slug].unwritten; n > 0 {
			texts = append(texts, fmt.Sprintf("%d %s", n, slug))
		}
	}
	stranger := s.user.IsNull() && s.partner == ""
	if len(texts) == 0 || stranger && !s.server.takeLine(s.peer) {
		return
	}
	s.server.mailLog.Unlogged(maillog.Message{Partner: s.partner, Client: s.peer, User: s.userText}, strings.Join(texts, ", "))
}

package smtpd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"activerelay/api/reason"
	"activerelay/relayd/internal/maillog"
)

// How many refusals have a line in the mail log: the first ones, because the disk of the log is not for whoever hammers. All of
// them are counted, and how many have no line is said at the end of the session.
const (
	// linesInSession are the lines of a stranger for one reason in a session. A customer has no more for a decision that is
	// repeated: they would all bear its reference.
	linesInSession = 20
	// linesOfStrangers are the lines in a minute for strangers at one address, over all their sessions.
	linesOfStrangers = 60
	// linesOfCustomers are the lines in a minute for the own clients of one domain, over all their sessions.
	linesOfCustomers = 1000
)

// share is what the refusals of one kind of client may cost in a minute: lines in the mail log for each who, and events for the
// control plane. Who is an address or a domain.
type share struct {
	lines, events *buckets
	// alarms and sums are told once a minute: to the operator, that there are no lines left; to the mail log, how many have none.
	alarms, sums *buckets

	mu sync.Mutex
	// leftOut are the refusals without a line since the last sum.
	leftOut map[string]map[reason.Slug]int
}

// maxLeftOut bounds the memory. Beyond it the sums that nobody was told are forgotten; the counter has them.
const maxLeftOut = 10_000

func newShare(lines, events int) *share {
	return &share{
		lines: newBuckets(lines), events: newBuckets(events), alarms: newBuckets(1), sums: newBuckets(1),
		leftOut: map[string]map[reason.Slug]int{},
	}
}

// leaveOut counts a refusal without a line.
func (s *share) leaveOut(who string, slug reason.Slug) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leftOut[who] == nil {
		if len(s.leftOut) >= maxLeftOut {
			clear(s.leftOut)
		}
		s.leftOut[who] = map[reason.Slug]int{}
	}
	s.leftOut[who][slug]++
}

// sum is how many refusals of whom were left out since the last one. It is "" where there are none, and within a minute of the
// last one: the next sum holds them too.
func (s *share) sum(who string, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	leftOut := s.leftOut[who]
	if len(leftOut) == 0 || !s.sums.try(who, now) {
		return ""
	}
	delete(s.leftOut, who)
	var texts []string
	for _, slug := range slices.Sorted(maps.Keys(leftOut)) {
		texts = append(texts, fmt.Sprintf("%d %s", leftOut[slug], slug))
	}
	return strings.Join(texts, ", ")
}

// lines are what is remembered of the refusals of a session.
type lines struct {
	written map[reason.Slug]int
	// own is the domain whose client it was at the last of its refusals that was not a stranger's.
	own string
}

// writes reports whether a refusal gets a line, and counts it. own is the domain whose client caused it, "" for a stranger.
func (s *Server) writes(r *refusal, own string, now time.Time) bool {
	l := r.lines
	if l == nil {
		l = new(lines)
	}
	of, who := s.strangers, addressKey(r.client)
	if own != "" {
		of, who = s.customers, own
		if l.own != own { // it sends for several domains
			s.tellLeftOut(l.own, now)
			l.own = own
		}
	}
	if own != "" && !r.quiet || l.written[r.slug] < linesInSession {
		if of.lines.try(who, now) {
			l.count(r.slug)
			return true
		}
		if of.alarms.try(who, now) {
			s.warn(r, own)
		}
	}
	of.leaveOut(who, r.slug)
	s.metrics.unlogged.Inc()
	return false
}

func (l *lines) count(slug reason.Slug) {
	if l.written == nil {
		l.written = map[reason.Slug]int{}
	}
	l.written[slug]++
}

// warn tells the operator that whoever was refused has no lines left.
func (s *Server) warn(r *refusal, own string) {
	if own == "" {
		s.Log.Warn("an address is refused more often than is logged", "client", r.client, "lines_per_minute", linesOfStrangers)
		return
	}
	s.Log.Warn("mail of a domain is refused more often than is logged", "domain", own, "lines_per_minute", linesOfCustomers)
}

// tellLeftOut says how many refusals of a domain's own clients have no line.
func (s *Server) tellLeftOut(domain string, now time.Time) {
	texts := s.customers.sum(domain, now)
	if texts == "" {
		return
	}
	m := maillog.Message{Domain: domain}
	if d, ok := s.View().Table.Domain(domain); ok {
		m.Partner = d.Partner()
	}
	s.mailLog.Unlogged(m, texts)
}

// tellLeftOut says at the end of a session how many refusals have no line, of the domain that it was sending for and of strangers
// at its address.
func (s *session) tellLeftOut() {
	now := s.server.Now()
	s.server.tellLeftOut(s.lines.own, now)
	if texts := s.server.strangers.sum(addressKey(s.peer), now); texts != "" {
		s.server.mailLog.Unlogged(maillog.Message{Client: s.peer}, texts)
	}
}

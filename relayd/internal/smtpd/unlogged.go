package smtpd

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"activerelay/api/reason"
	"activerelay/relayd/internal/maillog"
)

// How many refusals have a line in the mail log: the first ones, because the disk of the log is not for whoever hammers. All of
// them are counted, and how many have no line is said within a minute.
const (
	// linesInSession are the lines of a stranger for one reason in a session. A customer has no more for a decision that is
	// repeated: they would all bear its reference.
	linesInSession = 20
	// linesOfStrangers are the lines in a minute for strangers at one address, over all their sessions.
	linesOfStrangers = 60
	// linesOfCustomers are the lines in a minute for the own clients of one domain, over all their sessions.
	linesOfCustomers = 1000
	// sumEvery is how long after the first refusal without a line the sums are told, and so how often.
	sumEvery = time.Minute
)

// share is what the refusals of one kind of client may cost in a minute: lines in the mail log for each who, and events for the
// control plane. Who is an address or a domain.
type share struct {
	lines, events *buckets
	// alarms are told to the operator once a minute: there are no lines left.
	alarms *buckets
	// tell writes to the mail log how many refusals of who have no line.
	tell func(who, sum string)

	telling sync.Mutex // held while sums are written

	mu sync.Mutex
	// leftOut are the refusals without a line since the last sums, timer what will have them told: nil while there are none.
	leftOut map[string]map[reason.Slug]int
	timer   *time.Timer
	ended   bool
}

// maxLeftOut bounds the memory. Beyond it the sums that nobody was told are forgotten; the counter has them.
const maxLeftOut = 10_000

func newShare(lines, events int, tell func(who, sum string)) *share {
	return &share{
		lines: newBuckets(lines), events: newBuckets(events), alarms: newBuckets(1), tell: tell,
		leftOut: map[string]map[reason.Slug]int{},
	}
}

// leaveOut counts a refusal without a line. Nobody may come after it whose own refusal would tell of it, so a timer does.
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
	if s.timer == nil && !s.ended {
		s.timer = time.AfterFunc(sumEvery, s.tellSums)
	}
}

// tellSums says for everybody how many refusals were left out since the last time.
func (s *share) tellSums() {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	leftOut := s.leftOut
	s.leftOut, s.timer = map[string]map[reason.Slug]int{}, nil
	s.mu.Unlock()
	for _, who := range slices.Sorted(maps.Keys(leftOut)) {
		var texts []string
		for _, slug := range slices.Sorted(maps.Keys(leftOut[who])) {
			texts = append(texts, fmt.Sprintf("%d %s", leftOut[who][slug], slug))
		}
		s.tell(who, strings.Join(texts, ", "))
	}
}

// end tells the sums a last time. Nothing is told after it has returned.
func (s *share) end() {
	s.mu.Lock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.tellSums()
}

// lines are what is remembered of the refusals of a session.
type lines struct{ written map[reason.Slug]int }

// writes reports whether a refusal gets a line, and counts it. own is the domain whose client caused it, "" for a stranger.
func (s *Server) writes(r *refusal, own string, now time.Time) bool {
	l := r.lines
	if l == nil {
		l = new(lines)
	}
	of, who := s.strangers, addressKey(r.client)
	if own != "" {
		of, who = s.customers, own
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

// tellOfAddress says how many refusals of strangers at an address, or in the network of an IPv6 host, have no line.
func (s *Server) tellOfAddress(address, sum string) {
	client, _ := netip.ParseAddr(address) // it was one
	s.mailLog.Unlogged(maillog.Message{Client: client}, sum)
}

// tellOfDomain says how many refusals of a domain's own clients have no line.
func (s *Server) tellOfDomain(domain, sum string) {
	m := maillog.Message{Domain: domain}
	if d, ok := s.View().Table.Domain(domain); ok {
		m.Partner = d.Partner()
	}
	s.mailLog.Unlogged(m, sum)
}

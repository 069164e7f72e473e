package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"activerelay/relayd/internal/tlspolicy"

	"github.com/miekg/dns"
)

// errTLSA is a host whose TLSA records exist or not, nobody can say: mail must
// not go there until somebody can (RFC 7672 2.1.1).
var errTLSA = errors.New("TLSA records cannot be looked up")

// withTLSA adds the host's TLSA records. They count only along a path that
// DNSSEC vouches for as a whole: from the destination to the host, from there
// to its addresses, and the records themselves (RFC 7672 2.2).
func (s *Sender) withTLSA(ctx context.Context, h host, found ...answer) host {
	if !h.tied {
		return h
	}
	bases, err := s.tlsaBases(ctx, h.name, found)
	for _, base := range bases {
		var a answer
		a, err = s.dns.lookup(ctx, fmt.Sprintf("_%d._tcp.%s", h.port, base), dns.TypeTLSA)
		if certain(err) || err == nil && !a.secure {
			err = nil
			continue
		}
		if err == nil {
			h.dane = tlspolicy.NewDANE(a.records)
			h.names = without(append([]string{base}, h.names...))
		}
		break
	}
	if err != nil {
		h.addrs, h.err = nil, fmt.Errorf("%w: %w", errTLSA, err)
	}
	return h
}

// tlsaBases returns the names below which TLSA records are looked for, best
// first: where the host's aliases end, then its own name (RFC 7672 2.2.2).
func (s *Sender) tlsaBases(ctx context.Context, name string, found []answer) ([]string, error) {
	end, secure := name, true
	for _, a := range found {
		if len(a.records) > 0 {
			end, secure = a.name, secure && a.secure
		}
	}
	switch {
	case secure && end != name:
		return []string{end, name}, nil
	case secure:
		return []string{name}, nil
	case end == name:
		return nil, nil
	}
	// The alias may be vouched for though what it stands for is not.
	ok, err := s.dns.secureAlias(ctx, name)
	if ok {
		return []string{name}, nil
	}
	if certain(err) {
		err = nil
	}
	return nil, err
}

// without drops repetitions.
func without(names []string) []string {
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

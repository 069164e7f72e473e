// Package relayip says what may be a relay IP: the canonical form of the client
// address or prefix that somebody asks for, and which of them nobody may have
// without the operator looking at it.
//
// A relay IP opens the relay to everybody behind it, so a prefix is at most as
// wide as one site has: IPv4 /24, IPv6 /48. One address has one spelling, since
// uniqueness and look-ups go by the text: always a prefix in CIDR form, IPv4
// mapped into IPv6 is IPv4, host bits are an error rather than cut off, because
// whoever wrote 192.0.2.10/24 may have meant either. The package knows nothing
// of domains and states.
package relayip

import (
	"net/netip"
	"strings"
)

// Widest prefixes that may be a relay IP.
const (
	MinIPv4Bits = 24
	MinIPv6Bits = 48
)

// Refusal says which rule an address breaks. Its text does not repeat the input.
type Refusal struct {
	// Rule is stable: it appears as the rule of an invalid field.
	Rule    string
	Message string
}

// Error returns the message.
func (r *Refusal) Error() string { return r.Message }

// Parse returns the canonical prefix of an address or a prefix, or a *Refusal.
func Parse(text string) (netip.Prefix, error) {
	prefix, err := parse(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	least := MinIPv6Bits
	if prefix.Addr().Is4() {
		least = MinIPv4Bits
	}
	switch {
	case prefix.Masked() != prefix:
		return netip.Prefix{}, &Refusal{Rule: "host-bits", Message: "the prefix has bits set behind its length; write " + prefix.Masked().String() + " or the one address"}
	case prefix.Addr().IsUnspecified(), prefix.Addr().IsMulticast():
		return netip.Prefix{}, &Refusal{Rule: "not-a-client", Message: "is not an address that a client can have"}
	case prefix.Bits() < least:
		return netip.Prefix{}, &Refusal{Rule: "prefix-length", Message: "a prefix is at most as wide as IPv4 /24 or IPv6 /48"}
	}
	return prefix, nil
}

func parse(text string) (netip.Prefix, error) {
	malformed := &Refusal{Rule: "ip-address", Message: "is not an IP address or prefix in CIDR form"}
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, malformed
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, malformed
	}
	if !prefix.Addr().Is4In6() {
		return prefix, nil
	}
	if prefix.Bits() < 96 {
		return netip.Prefix{}, malformed
	}
	return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96), nil
}

// Show returns the form that people are shown: a single address without its
// length.
func Show(prefix netip.Prefix) string {
	if prefix.IsSingleIP() {
		return prefix.Addr().String()
	}
	return prefix.String()
}

// NeedsOperator reports whether a prefix lies in or around a range that says
// nothing about whose host it is: loopback, private, shared (RFC 6598),
// link-local, or set aside for another use (RFC 6890). The documentation ranges
// are not among them: no client ever comes from there, so nothing is at stake.
func NeedsOperator(prefix netip.Prefix) bool {
	for _, text := range ambiguous() {
		if netip.MustParsePrefix(text).Overlaps(prefix) {
			return true
		}
	}
	return false
}

func ambiguous() []string {
	return []string{
		"0.0.0.0/8",      // this network
		"10.0.0.0/8",     // private
		"100.64.0.0/10",  // shared by the customers of a provider
		"127.0.0.0/8",    // loopback
		"169.254.0.0/16", // link-local
		"172.16.0.0/12",  // private
		"192.0.0.0/24",   // protocol assignments
		"192.168.0.0/16", // private
		"198.18.0.0/15",  // benchmarks
		"240.0.0.0/4",    // reserved
		"::/128",
		"::1/128",      // loopback
		"64:ff9b::/96", // translated IPv4
		"100::/64",     // discard
		"2002::/16",    // 6to4 hides an IPv4 address
		"fc00::/7",     // private
		"fe80::/10",    // link-local
	}
}

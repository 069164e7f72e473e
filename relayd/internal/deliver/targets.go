package deliver

import (
	"fmt"
	"net"
	"net/netip"
)

// targets decides which addresses may be dialled. Without it a domain whose MX
// points at 127.0.0.1 or at a cloud's metadata service would turn the relay
// into a way into its own network.
type targets struct {
	allow  func() []netip.Prefix
	own    map[netip.Addr]struct{}
	listen []netip.AddrPort
	forbid []netip.Prefix
}

// verdict on one address.
type verdict uint8

const (
	targetAllowed verdict = iota
	// targetOwn is this relay itself: the mail would come back.
	targetOwn
	// targetForbidden is an address that no mail server on the internet has.
	targetForbidden
)

// newTargets takes the configured own addresses and adds those of this host's
// interfaces. listen is where the relay itself takes mail.
func newTargets(allow func() []netip.Prefix, own []netip.Addr, listen []netip.AddrPort) (*targets, error) {
	t := &targets{allow: allow, own: make(map[netip.Addr]struct{}), listen: listen}
	for _, a := range own {
		t.own[a.Unmap()] = struct{}{}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing own addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			t.own[p.Addr().Unmap()] = struct{}{}
		}
	}
	for _, text := range forbiddenNetworks() {
		t.forbid = append(t.forbid, netip.MustParsePrefix(text))
	}
	return t, nil
}

// forbiddenNetworks are the special-purpose registries of RFC 6890 as updated,
// and the metadata services that live at public addresses.
func forbiddenNetworks() []string {
	return []string{
		"0.0.0.0/8",        // this network, RFC 1122
		"10.0.0.0/8",       // private, RFC 1918
		"100.64.0.0/10",    // carrier NAT, RFC 6598; Alibaba's metadata 100.100.100.200
		"127.0.0.0/8",      // loopback
		"168.63.129.16/32", // Azure's host agent
		"169.254.0.0/16",   // link-local; metadata 169.254.169.254
		"172.16.0.0/12",    // private
		"192.0.0.0/24",     // protocol assignments; Oracle's metadata 192.0.0.192
		"192.0.2.0/24",     // documentation, RFC 5737
		"192.88.99.0/24",   // 6to4 anycast, RFC 7526
		"192.168.0.0/16",   // private
		"198.18.0.0/15",    // benchmarks, RFC 2544
		"198.51.100.0/24",  // documentation
		"203.0.113.0/24",   // documentation
		"224.0.0.0/4",      // multicast
		"240.0.0.0/4",      // reserved, and the limited broadcast
		"::/96",            // unspecified, loopback, IPv4-compatible
		"64:ff9b:1::/48",   // local NAT64, RFC 8215
		"100::/64",         // discard, RFC 6666
		"2001::/23",        // protocol assignments with Teredo, RFC 2928
		"2001:db8::/32",    // documentation, RFC 3849
		"3fff::/20",        // documentation, RFC 9637
		"5f00::/16",        // segment routing, RFC 9602
		"fc00::/7",         // unique local; metadata fd00:ec2::254
		"fe80::/10",        // link-local
		"fec0::/10",        // site-local, RFC 3879
		"ff00::/8",         // multicast
	}
}

// judge says whether at may be dialled. It is asked with the address that is
// dialled, after all resolution, so that no second lookup can differ. What the
// operator allows is this relay all the same where it takes mail itself.
func (t *targets) judge(at netip.AddrPort) verdict {
	addr := at.Addr()
	if addr.Zone() != "" {
		return targetForbidden
	}
	addr = embedded(addr.Unmap())
	own := t.isOwn(addr)
	if own && t.takesMail(addr, at.Port()) {
		return targetOwn
	}
	if t.allow != nil {
		for _, p := range t.allow() {
			if p.Contains(addr) {
				return targetAllowed
			}
		}
	}
	if own {
		return targetOwn
	}
	for _, p := range t.forbid {
		if p.Contains(addr) {
			return targetForbidden
		}
	}
	return targetAllowed
}

// isOwn reports whether addr leads to this host.
func (t *targets) isOwn(addr netip.Addr) bool {
	_, ok := t.own[addr]
	return ok || addr.IsLoopback()
}

// takesMail reports whether one of the relay's listeners is behind an address
// of this host.
func (t *targets) takesMail(addr netip.Addr, port uint16) bool {
	for _, l := range t.listen {
		if l.Port() == port && (l.Addr().IsUnspecified() || l.Addr().Unmap() == addr) {
			return true
		}
	}
	return false
}

// embedded returns the IPv4 address that a NAT64 (RFC 6052) or 6to4 (RFC 3056)
// address leads to, or addr itself.
func embedded(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

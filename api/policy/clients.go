package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// ClientState is what a relay IP may do.
type ClientState string

// The states that a domain document carries. Requested and rejected relay IPs
// are not in it.
const (
	ClientActive ClientState = "active"
	// ClientDisabled: a person disabled it.
	ClientDisabled ClientState = "disabled"
	// ClientAbusive: complaints disabled it.
	ClientAbusive ClientState = "abusive"
)

// Client is one relay IP of a domain.
type Client struct {
	ID     string
	Prefix netip.Prefix
	State  ClientState
}

// clients are kept by prefix length, longest first, then by address, so that a
// lookup is one binary search for each length in use.
type clients struct {
	list    []Client
	lengths []int // bit lengths in use, longest first; IPv6 counts from 128
}

func newClients(list []Client) clients {
	slices.SortStableFunc(list, byPrefix)
	c := clients{list: list}
	for _, client := range list {
		if bits := depth(client.Prefix); len(c.lengths) == 0 || c.lengths[len(c.lengths)-1] != bits {
			c.lengths = append(c.lengths, bits)
		}
	}
	return c
}

func byPrefix(a, b Client) int {
	return cmp.Or(cmp.Compare(depth(b.Prefix), depth(a.Prefix)), a.Prefix.Addr().Compare(b.Prefix.Addr()))
}

// depth is the length of a prefix on the scale of IPv6, where IPv4 is /96.
func depth(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 96 + p.Bits()
	}
	return p.Bits()
}

// Client finds the longest prefix that holds an address, because the exact
// entry says more than the network round it.
func (d *Domain) Client(address netip.Addr) (Client, Answer) {
	if client, ok := d.clients.find(address.Unmap().WithZone("")); ok {
		return client, Yes
	}
	if d.unknown&(partClients|partWhole) != 0 {
		return Client{}, Unknown
	}
	return Client{}, No
}

func (c clients) find(address netip.Addr) (Client, bool) {
	for _, length := range c.lengths {
		bits := length
		if address.Is4() {
			bits -= 96
		}
		prefix, err := address.Prefix(bits)
		if err != nil { // a length that this family does not have
			continue
		}
		if i, ok := slices.BinarySearchFunc(c.list, Client{Prefix: prefix}, byPrefix); ok {
			return c.list[i], true
		}
	}
	return Client{}, false
}

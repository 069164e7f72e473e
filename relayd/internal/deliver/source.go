package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Source is an address of this host from which mail leaves.
type Source struct {
	Addr netip.Addr
	// Hostname is the name given in EHLO on connections from Addr, as the
	// reverse lookup of Addr says it. Empty means Config.Hostname.
	Hostname string
}

// Check finds out whether this host has the address.
func (s Source) Check(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(s.Addr, 0).String())
	if err != nil {
		return fmt.Errorf("mail cannot leave from %s, which this host does not have (see ip address): %w", s.Addr, err)
	}
	return l.Close()
}

// sources are the ways out of this host, one for each family, and the names
// that it goes by.
type sources struct {
	v4, v6 source
	names  []string
}

// source is how connections of one family are opened, and what they say hello
// with.
type source struct {
	dialer   *net.Dialer
	hostname string
}

// newSources checks what is configured. A family without a source leaves from
// the address that the system chooses.
func newSources(configured []Source, hostname string, plain *net.Dialer) (*sources, error) {
	otherwise := source{dialer: plain, hostname: hostname}
	s := &sources{v4: otherwise, v6: otherwise, names: []string{hostname}}
	for _, c := range configured {
		way := s.to(c.Addr)
		if way.dialer != plain {
			return nil, fmt.Errorf("%s is a second source address of its family; want one for IPv4 and one for IPv6", c.Addr)
		}
		if err := c.Check(context.Background()); err != nil {
			return nil, err
		}
		from := *plain
		from.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.Addr, 0))
		way.dialer = &from
		if c.Hostname != "" {
			way.hostname = c.Hostname
			s.names = append(s.names, c.Hostname)
		}
	}
	return s, nil
}

// to is the way to addr.
func (s *sources) to(addr netip.Addr) *source {
	if addr.Unmap().Is4() {
		return &s.v4
	}
	return &s.v6
}

// named reports whether name is one that we go by.
func (s *sources) named(name string) bool {
	return slices.ContainsFunc(s.names, func(own string) bool { return strings.EqualFold(name, strings.TrimSuffix(own, ".")) })
}

// ParseSource reads "ADDRESS" or "ADDRESS=HOSTNAME".
func ParseSource(text string) (Source, error) {
	addr, name, named := strings.Cut(text, "=")
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil || a.Zone() != "" || named && name == "":
		return Source{}, fmt.Errorf("%q is no source address; want ADDRESS or ADDRESS=HOSTNAME, such as 192.0.2.25=out4.relay.example.com", text)
	case a.IsUnspecified() || a.IsMulticast():
		return Source{}, errors.New(addr + " is no address of a host")
	}
	return Source{Addr: a.Unmap(), Hostname: name}, nil
}

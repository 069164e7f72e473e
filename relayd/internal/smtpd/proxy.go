package smtpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"activerelay/api/reason"
	"activerelay/relayd/internal/smtpwire"
)

// The PROXY protocol (versions 1 and 2 of the text that HAProxy's authors keep)
// tells who the client of a load balancer is, in a header before everything else,
// TLS included. Only what the header says of the source is used.
//
// Exactly the header is read, not one byte more: what follows is for the engine
// to see, also that it came too early.

// Limits of the header. The text bounds version 1; version 2 could be 64 KiB
// long, of which addresses need 216 and real proxies use few more.
const (
	maxProxyLine  = 107
	maxProxyBytes = 4 << 10
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLine      = "PROXY "
)

// readProxyHeader returns the client that a header names. It is invalid where the
// proxy speaks for itself, as in checks of its own.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	client, err := readProxyStart(r)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("PROXY header: %w", err)
	}
	return client, nil
}

func readProxyStart(r io.Reader) (netip.AddrPort, error) {
	start := make([]byte, 0, maxProxyLine)
	for len(start) < len(proxySignature) { // the shortest line of version 1 is longer
		n, err := r.Read(start[len(start):len(proxySignature)])
		start = start[:len(start)+n]
		line := strings.HasPrefix(proxyLine, string(start[:min(len(start), len(proxyLine))]))
		switch {
		case !line && !strings.HasPrefix(proxySignature, string(start)):
			return netip.AddrPort{}, fmt.Errorf("there is none, but %q", start) // whoever sent this waits for an answer
		case n == 0 && errors.Is(err, io.EOF) && len(start) > 0:
			return netip.AddrPort{}, io.ErrUnexpectedEOF
		case n == 0 && err != nil:
			return netip.AddrPort{}, err
		}
	}
	if string(start) == proxySignature {
		return readProxyV2(r)
	}
	return readProxyV1(r, start)
}

// readProxyV1 reads the rest of a line, byte for byte so as not to read past it.
func readProxyV1(r io.Reader, line []byte) (netip.AddrPort, error) {
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) >= maxProxyLine {
			return netip.AddrPort{}, fmt.Errorf("a line longer than %d bytes", maxProxyLine)
		}
		n := len(line)
		line = line[:n+1]
		if _, err := io.ReadFull(r, line[n:]); err != nil {
			return netip.AddrPort{}, err
		}
	}
	words := strings.Split(strings.TrimSuffix(string(line), "\r\n"), " ")
	switch {
	case words[1] == "UNKNOWN": // whatever follows
		return netip.AddrPort{}, nil
	case len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6":
		return netip.AddrPort{}, fmt.Errorf("%q is not understood", line)
	}
	source, err := proxyAddress(words[1], words[2], words[4])
	if err == nil {
		_, err = proxyAddress(words[1], words[3], words[5])
	}
	return source, err
}

func proxyAddress(family, host, port string) (netip.AddrPort, error) {
	at, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if at.Is4() != (family == "TCP4") || at.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%s is no address of %s", host, family)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(at.Unmap(), uint16(n)), err
}

// Version and command, family and transport of version 2, and how long addresses
// are.
const (
	proxyLocal, proxyProxy                            = 0x20, 0x21
	proxyUnspecified, proxyTCP4, proxyTCP6, proxyUnix = 0x00, 0x11, 0x21, 0x31

	proxyTCP4Bytes = 4 + 4 + 2 + 2 // two addresses, two ports
	proxyTCP6Bytes = 16 + 16 + 2 + 2
	proxyUnixBytes = 108 + 108
)

// readProxyV2 reads what follows the signature. What follows the addresses is
// passed over.
func readProxyV2(r io.Reader) (netip.AddrPort, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, err
	}
	command, family, size := head[0], head[1], int(binary.BigEndian.Uint16(head[2:]))
	if size > maxProxyBytes {
		return netip.AddrPort{}, fmt.Errorf("%d bytes, more than %d", size, maxProxyBytes)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case command == proxyLocal:
		return netip.AddrPort{}, nil
	case command != proxyProxy:
		return netip.AddrPort{}, fmt.Errorf("version and command %#x", command)
	case family == proxyUnspecified, family == proxyUnix && size >= proxyUnixBytes:
		return netip.AddrPort{}, nil
	case family == proxyTCP4 && size >= proxyTCP4Bytes:
		source := netip.AddrFrom4([4]byte(body))
		return netip.AddrPortFrom(source, binary.BigEndian.Uint16(body[8:])), nil
	case family == proxyTCP6 && size >= proxyTCP6Bytes:
		source := netip.AddrFrom16([16]byte(body))
		return netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(body[32:])), nil
	}
	return netip.AddrPort{}, fmt.Errorf("family and transport %#x with %d bytes", family, size)
}

// proxiedConn is a connection of a proxy that is believed. Whose it is turns out
// when its header is read.
type proxiedConn struct {
	countedConn
	kind  Kind
	named atomic.Pointer[net.TCPAddr] // the client; nil until the header named one
}

var _ smtpwire.Prefacer = (*proxiedConn)(nil)

// RemoteAddr implements net.Conn: it is the client's.
func (c *proxiedConn) RemoteAddr() net.Addr {
	if named := c.named.Load(); named != nil {
		return named
	}
	return c.Conn.RemoteAddr()
}

// Preface implements smtpwire.Prefacer. A proxy that does not keep to the
// protocol is told nothing: it would take any word for its client's server.
func (c *proxiedConn) Preface() error {
	client, err := readProxyHeader(c.Conn)
	if err != nil {
		// A connection without a byte is how proxies look whether we are there; some reset it.
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			c.server.Log.Warn("connection of a load balancer closed: let it send the PROXY header, or take it out of --proxy-peers",
				"proxy", addressOf(c.Conn), "err", err)
		}
		return err
	}
	if client.IsValid() {
		c.named.Store(net.TCPAddrFromAddrPort(client))
	}
	if !c.server.enterAddress(&c.countedConn, addressOf(c)) {
		c.server.turnAway(c, c.kind, reason.Ordinary)
		return errTooMany
	}
	return nil
}

var errTooMany = errors.New("too many connections")

// believes reports whether a connection's peer may say who its client is.
func (s *Server) believes(peer netip.Addr) bool {
	return slices.ContainsFunc(s.ProxyPeers, func(p netip.Prefix) bool { return p.Contains(peer) })
}

package smtpd

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"activerelay/api/reason"
)

// listener hands the engine only connections that are within the limits.
type listener struct {
	net.Listener
	server *Server
	kind   Kind
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &countedConn{Conn: conn, server: l.server, client: addressOf(conn)}
		if l.server.enter(c.client) {
			return c, nil
		}
		go l.server.turnAway(conn, l.kind)
	}
}

// countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	server *Server
	client netip.Addr
	once   sync.Once
}

// NetConn lets the engine find the socket.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.server.leave(c.client) })
	return err
}

func addressOf(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{} // no address has any rights
	}
	return at.Addr().Unmap().WithZone("")
}

// enter counts a connection of an address, or of the network of an IPv6 host, in,
// or says that there are too many; leave counts it out.
func (s *Server) enter(client netip.Addr) bool {
	client = networkOf(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connections >= s.limits.Connections || s.perIP[client] >= s.limits.ConnectionsPerIP {
		return false
	}
	s.connections++
	s.perIP[client]++
	s.countLocked()
	return true
}

func (s *Server) leave(client netip.Addr) {
	client = networkOf(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections--
	if s.perIP[client]--; s.perIP[client] <= 0 {
		delete(s.perIP, client)
	}
	s.countLocked()
}

func (s *Server) countLocked() {
	s.metrics.connections.Set(float64(s.connections))
	s.stressed.Store(s.connections*100 >= s.limits.Connections*stressPercent)
}

// turnAway tells a client why there is no session for it. A TLS client would
// not understand, and is not worth a handshake.
func (s *Server) turnAway(conn net.Conn, kind Kind) {
	client := addressOf(conn)
	reply := s.refuse(&refusal{
		stage: reason.StageConnect, slug: reason.TooManyConnections, args: reason.Args{Client: client.String()},
		client: client, quiet: true,
	})
	if kind != ImplicitTLS {
		_ = conn.SetDeadline(time.Now().Add(lingerTime))
		_, _ = conn.Write(reply.Wire()) // the client may be gone: the log has it
		// Closed over bytes that nobody read, the socket would take the reply
		// away from the client: so read a few.
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
			_, _ = io.CopyN(io.Discard, conn, lingerBytes)
		}
	}
	_ = conn.Close()
}

// joinPartner counts a session to a partner; leavePartner takes it back.
func (s *Server) joinPartner(slug string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perPartner[slug] >= s.limits.ConnectionsPerPartner {
		return false
	}
	s.perPartner[slug]++
	return true
}

func (s *Server) leavePartner(slug string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perPartner[slug]--; s.perPartner[slug] <= 0 {
		delete(s.perPartner, slug)
	}
}

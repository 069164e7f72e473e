package smtpd

import (
	"io"
	"net"
	"net/netip"
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
		counted := countedConn{Conn: conn, server: l.server}
		peer := addressOf(conn)
		if l.server.believes(peer) {
			c := &proxiedConn{countedConn: counted, kind: l.kind}
			if l.server.enter(&c.countedConn) {
				return c, nil
			}
			go l.server.turnAway(conn, l.kind, reason.Overloaded)
			continue
		}
		c := &counted
		switch {
		case !l.server.enter(c):
			go l.server.turnAway(conn, l.kind, reason.Overloaded)
		case !l.server.enterAddress(c, peer):
			l.server.leave(c)
			go l.server.turnAway(conn, l.kind, reason.Ordinary)
		default:
			return c, nil
		}
	}
}

// countedConn is counted until it is closed: among all, and among those of its
// client once that is known.
type countedConn struct {
	net.Conn
	server *Server
	// Guarded by server.mu. client is the zero address before it is counted.
	in     bool
	client netip.Addr
}

// NetConn lets the engine find the socket.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.server.leave(c)
	return err
}

func addressOf(conn net.Conn) netip.Addr {
	at, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{} // no address has any rights
	}
	return at.AddrPort().Addr().Unmap().WithZone("")
}

// enter counts a connection in, or says that there are too many.
func (s *Server) enter(c *countedConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connections >= s.limits.Connections {
		return false
	}
	s.connections++
	c.in = true
	s.countLocked()
	return true
}

// enterAddress counts it to a client, or to the network of an IPv6 host, or says
// that that has too many. It is too late for a connection that was closed by then.
func (s *Server) enterAddress(c *countedConn, client netip.Addr) bool {
	client = networkOf(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.in || s.perIP[client] >= s.limits.ConnectionsPerIP {
		return false
	}
	s.perIP[client]++
	c.client = client
	return true
}

// leave counts a connection out. It may be called more than once.
func (s *Server) leave(c *countedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.in {
		return
	}
	c.in = false
	s.connections--
	if c.client.IsValid() {
		if s.perIP[c.client]--; s.perIP[c.client] <= 0 {
			delete(s.perIP, c.client)
		}
	}
	s.countLocked()
}

func (s *Server) countLocked() {
	s.metrics.connections.Set(float64(s.connections))
	stressed := s.connections*100 >= s.limits.Connections*stressPercent
	if !s.stressed.Swap(stressed) && stressed {
		s.hurryLocked()
	}
}

// hurryEvery keeps connections that come and go at the threshold from costing more than one round a second.
const hurryEvery = time.Second

// hurryLocked lets nobody keep the time that it had before stress. A round that is too soon is made later, not left out: who
// crosses the threshold twice in a second would keep its idle connections for minutes.
func (s *Server) hurryLocked() {
	if s.hurrying {
		return
	}
	s.hurrying = true
	time.AfterFunc(max(0, hurryEvery-time.Since(s.hurried)), func() {
		s.mu.Lock()
		s.hurrying = false
		stressed, engines := s.stressed.Load(), s.engines
		if stressed {
			s.hurried = time.Now()
		}
		s.mu.Unlock()
		if !stressed {
			return // the next onset asks again
		}
		for _, engine := range engines {
			engine.Hurry()
		}
	})
}

// turnAway tells a client why there is no session for it. A TLS client would
// not understand, and is not worth a handshake.
func (s *Server) turnAway(conn net.Conn, kind Kind, why reason.Variant) {
	client := addressOf(conn)
	reply := s.refuse(&refusal{
		stage: reason.StageConnect, slug: reason.TooManyConnections, client: client, quiet: true,
		args: reason.Args{Variant: why, Client: client.String()},
	})
	if kind != ImplicitTLS {
		_ = conn.SetDeadline(time.Now().Add(lingerTime))
		_, _ = conn.Write(reply.Wire()) // the client may be gone: the log has it
		// Closed over bytes that nobody read, the socket would take the reply
		// away from the client: so read a few.
		if half, ok := socketOf(conn).(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
			few := make([]byte, 512) // there may be many of them
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(conn, lingerBytes), few)
		}
	}
	_ = conn.Close()
}

// socketOf is what is beneath the connections of this file.
func socketOf(conn net.Conn) net.Conn {
	if layer, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return layer.NetConn()
	}
	return conn
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

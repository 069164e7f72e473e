package smtpd

import (
	"context"
	"net"
	"net/netip"
	"time"

	"activerelay/api/reason"
)

// listener hands the engine only connections that are within the limits, each
// behind a guard.
type listener struct {
	net.Listener
	server *Server
	kind   Kind
	ctx    context.Context // of all sessions; see guard
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := l.server.newGuard(l.ctx, conn, l.kind)
		if g.server.enter(g) {
			return g, nil
		}
		go l.server.turnAway(g)
	}
}

func (s *Server) newGuard(ctx context.Context, conn net.Conn, kind Kind) *guard {
	g := &guard{Conn: conn, server: s, kind: kind, client: addressOf(conn), began: time.Now()}
	g.ctx, g.cancel = context.WithCancel(ctx)
	g.until = g.began.Add(min(firstCommand, s.limits.SessionAge))
	return g
}

func addressOf(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{} // no address has any rights
	}
	return at.Addr().Unmap().WithZone("")
}

// enter counts a connection in, or says that there are too many.
func (s *Server) enter(g *guard) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() || len(s.guards) >= s.limits.Connections || s.perIP[g.client] >= s.limits.ConnectionsPerIP {
		return false
	}
	s.guards[g] = struct{}{}
	s.perIP[g.client]++
	s.countLocked()
	return true
}

// forget counts a connection out. One that never entered changes nothing.
func (s *Server) forget(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.guards[g]; !ok {
		return
	}
	delete(s.guards, g)
	if s.perIP[g.client]--; s.perIP[g.client] <= 0 {
		delete(s.perIP, g.client)
	}
	s.countLocked()
	s.settleLocked()
}

func (s *Server) countLocked() {
	s.metrics.connections.Set(float64(len(s.guards)))
	s.stressed.Store(len(s.guards)*100 >= s.limits.Connections*stressPercent)
}

// turnAway tells a client why there is no session for it. A TLS client would
// not understand, and is not worth a handshake.
func (s *Server) turnAway(g *guard) {
	slug := reason.TooManyConnections
	if s.isClosing() {
		slug = reason.ShuttingDown
	}
	_ = g.hangUp(slug, reason.Ordinary)
	_ = g.Close()
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

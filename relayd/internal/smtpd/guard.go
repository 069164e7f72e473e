package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"activerelay/api/reason"
	"activerelay/relayd/internal/maillog"
)

// guard stands between the engine and the network and holds what the engine
// does not know of. It lies below TLS, so it sees when bytes come and how many,
// not what they say.
//
//  1. A deadline for each read: in commands the one of CommandIdle and of the
//     session's age, in a message those of DataIdle, DataTotal and the rate.
//  2. Once a read has failed within a message, or the session was ended,
//     nothing is read any more: bytes that come later are never commands.
//  3. What ends a session says why: 421 from the registry.
//  4. A failed handshake after STARTTLS is the end (the engine would go on in
//     plain text), as is a client that speaks first, or HTTP.
//
// The engine's callbacks take no context, so the connection's is kept here; it
// ends when the server gives up waiting in Shutdown.
type guard struct {
	net.Conn
	server *Server
	kind   Kind
	client netip.Addr
	began  time.Time
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	deadline time.Time // of the next command, as the engine asked
	until    time.Time // the session's end; zero: none
	message  transfer
	inData   bool
	ended    bool
	layer    *tls.Conn // the TLS layer above, once there is one
	probing  bool      // isGone reads
	startTLS bool      // 220 was said to STARTTLS
	greeted  bool
	heard    bool
	// unconfirmed is a stored message whose 250 is still to be written.
	unconfirmed *maillog.Message

	closeOnce sync.Once
	closeErr  error
}

// Read implements net.Conn.
func (g *guard) Read(p []byte) (int, error) {
	if g.pause() {
		return 0, errPaused
	}
	if err := g.arm(); err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	g.mu.Lock()
	g.message.bytes += int64(n)
	first := !g.heard
	g.heard = true
	g.mu.Unlock()
	if first && g.kind != ImplicitTLS && isHTTP(p[:n]) {
		return 0, g.hangUp(reason.EarlyTalker, reason.Ordinary)
	}
	if err != nil {
		return n, g.readFailed(err)
	}
	return n, nil
}

// arm sets the deadline of one read, or refuses to read.
func (g *guard) arm() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return net.ErrClosed
	}
	at := g.deadline
	switch {
	case g.inData:
		at = g.server.limits.transferDeadline(g.message, time.Now())
	case g.server.isClosing():
		at = time.Unix(1, 0) // times out at once, and readFailed says why
	case !g.until.IsZero() && (at.IsZero() || g.until.Before(at)):
		at = g.until
	}
	return g.Conn.SetReadDeadline(at)
}

// transferDeadline is when the message is too slow if nothing more comes.
func (l Limits) transferDeadline(t transfer, now time.Time) time.Time {
	at := now.Add(l.DataIdle)
	if total := t.began.Add(l.DataTotal); total.Before(at) {
		at = total
	}
	paid := time.Duration(float64(t.bytes) / float64(l.DataMinRate) * float64(time.Second))
	if rate := t.began.Add(l.DataGrace + paid); rate.Before(at) {
		at = rate
	}
	return at
}

// readFailed is rule 2 and, for commands, rule 3.
func (g *guard) readFailed(err error) error {
	g.mu.Lock()
	inData := g.inData
	g.ended = true
	g.mu.Unlock()
	if inData || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if g.server.isClosing() {
		g.say(reason.ShuttingDown, reason.Ordinary)
	} else {
		g.say(reason.SessionTimeout, reason.Ordinary)
	}
	return net.ErrClosed
}

// hangUp ends the session with a reason; nothing is read afterwards.
func (g *guard) hangUp(slug reason.Slug, v reason.Variant) error {
	g.end()
	g.say(slug, v)
	return net.ErrClosed
}

// end stops the reading. The engine still writes the reply that it has.
func (g *guard) end() {
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
}

// say writes a reply outside the engine's turn, through TLS where there is TLS.
func (g *guard) say(slug reason.Slug, v reason.Variant) {
	reply := g.server.refuseConnection(g.client, slug, v)
	g.mu.Lock()
	out := io.Writer(g.Conn)
	if g.layer != nil {
		out = g.layer
	}
	g.mu.Unlock()
	if out == g.Conn && g.kind == ImplicitTLS {
		return // before the handshake nobody could read it
	}
	_ = g.Conn.SetWriteDeadline(time.Now().Add(lingerTime))
	_, _ = out.Write(reply.Wire()) // the client may be gone: the log has it
}

// Write implements net.Conn.
func (g *guard) Write(p []byte) (int, error) {
	if err := g.checkTurn(p); err != nil {
		return 0, err
	}
	n, err := g.Conn.Write(p)
	g.mu.Lock()
	stored := g.unconfirmed
	g.unconfirmed = nil
	g.mu.Unlock()
	if err != nil && stored != nil {
		g.server.mailLog.ReplyUndelivered(*stored, err)
		g.server.metrics.undelivered.Inc()
	}
	return n, err
}

// The engine's own words around STARTTLS. A TLS record never begins with a
// digit (its types are 20 to 24), a reply always does.
const readyForTLS = "220 2.0.0 Ready to start TLS"

// checkTurn looks at what the engine is about to say for rule 4.
func (g *guard) checkTurn(p []byte) error {
	g.mu.Lock()
	greeting := !g.greeted
	g.greeted = true
	broken := g.startTLS && len(p) > 0 && '0' <= p[0] && p[0] <= '9'
	g.startTLS = g.startTLS || bytes.HasPrefix(p, []byte(readyForTLS))
	g.mu.Unlock()
	switch {
	case broken:
		g.end()
		return errors.New("TLS handshake failed")
	case greeting && g.kind != ImplicitTLS && g.talksEarly():
		return g.hangUp(reason.EarlyTalker, reason.Ordinary)
	}
	return nil
}

// talksEarly reports whether the client has sent something before the greeting,
// without taking it.
func (g *guard) talksEarly() bool {
	tcp, ok := g.Conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	wait := g.server.limits.GreetDelay
	_ = tcp.SetReadDeadline(time.Time{})
	if wait > 0 {
		_ = tcp.SetReadDeadline(time.Now().Add(wait))
	}
	early, buf := false, make([]byte, earlyTalkBytes)
	_ = raw.Read(func(fd uintptr) (done bool) {
		n, _, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		early = err == nil && n > 0
		// Not done: wait for the deadline or for bytes, then look again.
		return wait == 0 || !errors.Is(err, syscall.EAGAIN)
	})
	return early
}

// isHTTP reports whether a browser, or somebody with a web page to post, is
// talking to us.
func isHTTP(p []byte) bool {
	for _, verb := range []string{"GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "CONNECT ", "DELETE ", "PATCH ", "TRACE "} {
		if bytes.HasPrefix(p, []byte(verb)) {
			return true
		}
	}
	return false
}

// SetReadDeadline implements net.Conn. The engine sets it before each command,
// which is how the guard knows that one is due. After the end it refuses, and
// the engine closes.
func (g *guard) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return net.ErrClosed
	}
	g.deadline = t
	if g.server.isStressed() {
		g.deadline = time.Now().Add(stressIdle)
	}
	g.inData = g.message.open
	return nil
}

// liveUntil sets the end of the session.
func (g *guard) liveUntil(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = t
}

// wake interrupts a client that idles between commands, for Shutdown.
func (g *guard) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.inData {
		_ = g.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Close implements net.Conn. A last reply would be lost if the socket were
// closed over bytes that nobody read (the peer gets a reset): so read a few.
func (g *guard) Close() error {
	g.closeOnce.Do(func() {
		g.mu.Lock()
		ended := g.ended
		g.ended = true
		g.mu.Unlock()
		g.cancel()
		if tcp, ok := g.Conn.(*net.TCPConn); ok && ended && !g.server.isForced() {
			_ = tcp.CloseWrite()
			_ = tcp.SetReadDeadline(time.Now().Add(lingerTime))
			_, _ = io.CopyN(io.Discard, tcp, lingerBytes)
		}
		g.closeErr = g.Conn.Close()
		g.server.forget(g)
	})
	return g.closeErr
}

package smtpd

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"activerelay/relayd/internal/maillog"
)

// transfer is the message that is being read.
type transfer struct {
	open   bool // the session's Data runs
	number int  // of the message on this connection
	began  time.Time
	bytes  int64
	// pausing: every read from the network is announced by errPaused once.
	pausing, paused bool
}

// beginMessage starts the clock of a message. While pausing is set, what was
// read is handed out before the guard waits for more: see errPaused. The number
// names the message to endMessage.
func (g *guard) beginMessage(pausing bool) (number int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inData = true
	g.message = transfer{
		open: true, number: g.message.number + 1, began: time.Now(), pausing: pausing, paused: true,
	}
	return g.message.number
}

// endMessage stops the clock, once the engine comes for the next command: it
// still reads the rest of a message that was refused early. A chunked message
// may end after the next one has begun, whose clock it must not stop.
func (g *guard) endMessage(number int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.message.number == number {
		g.message.open, g.message.pausing = false, false
	}
}

// errPaused means that nothing more has come yet. The engine's reader gives a
// message out only when the buffer is full or the message over, and it passes
// errors of this kind on without losing its place, as do the layers between. So
// the guard says errPaused before it waits, Data gets to see all that has come,
// and reads on.
var errPaused net.Error = pausedError{}

type pausedError struct{}

func (pausedError) Error() string { return "nothing has come yet" }
func (pausedError) Timeout() bool { return true }

// Temporary is what makes the TLS layer keep its state.
func (pausedError) Temporary() bool { return true }

// pause says whether this read must announce itself first.
func (g *guard) pause() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probing {
		return true
	}
	if !g.message.pausing || g.message.paused {
		g.message.paused = false
		return false
	}
	g.message.paused = true
	return true
}

// isGone reports whether the client has closed its side, or was cut off. It may
// be asked only while the engine does not read. Without TLS the guard has seen
// the end; the end of a TLS stream is seen only by who reads there.
func (g *guard) isGone() bool {
	g.mu.Lock()
	layer, over := g.layer, g.ended
	g.probing = layer != nil
	g.mu.Unlock()
	if over || layer == nil {
		return over
	}
	n, err := layer.Read(make([]byte, 1))
	g.mu.Lock()
	g.probing = false
	g.ended = g.ended || n > 0 // a byte of the next command was taken: there is no next one
	g.mu.Unlock()
	return err != nil && !errors.Is(err, errPaused)
}

// secured remembers the TLS layer above the guard.
func (g *guard) secured(conn net.Conn) {
	layer, ok := conn.(*tls.Conn)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.layer, g.startTLS = layer, false
}

// isOver reports whether nothing will be read any more.
func (g *guard) isOver() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ended
}

// expect remembers a stored message until its 250 is written.
func (g *guard) expect(m maillog.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unconfirmed = &m
}

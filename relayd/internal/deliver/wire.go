package deliver

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// wire is the TCP connection below everything else, TLS included. It bounds
// every wait, lets the end of an attempt cut waits short, and sends what
// belongs together with one system call.
//
// A message has half a dozen waits, and to set a deadline for each would cost
// as much as a system call each. So what is set is an alarm: for a read it may
// ring early, and is then set again for as long as the wait may still last. A
// write inside TLS cannot be taken up again once it was broken off, so its
// alarm never rings early, but up to a quarter late. Between messages that
// follow each other nothing is set at all.
type wire struct {
	net.Conn
	// limit bounds all waits together. Zero: there is no such bound.
	limit time.Time
	// readBy is when the wait for what is read is over.
	readBy time.Time
	// readAlarm and writeAlarm are the deadlines of the socket; zero when they
	// are not known.
	readAlarm, writeAlarm time.Time

	// holding keeps in held what is written, until release.
	holding bool
	held    []byte
	vector  [2][]byte
	buffers net.Buffers // vector, as far as it is not written yet

	mu      sync.Mutex
	ctx     context.Context // of the attempt that uses the connection, or did last
	unwatch func() bool
	cut     bool // ctx has ended, and both alarms lie in the past
}

// attach makes the end of ctx cut every wait short until another context is
// attached. The attempts of one queue share a context, so this costs nothing
// for a connection that was used before.
func (w *wire) attach(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == ctx {
		return
	}
	w.forget()
	w.ctx = ctx
	w.unwatch = context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.ctx == ctx {
			w.cut = true
			_ = w.SetDeadline(time.Unix(1, 0))
		}
	})
}

// detach makes the connection one that no context ends.
func (w *wire) detach() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget()
}

// forget is detach with mu held.
func (w *wire) forget() {
	if w.ctx == nil {
		return
	}
	w.unwatch()
	if w.cut {
		w.readAlarm, w.writeAlarm = time.Time{}, time.Time{}
	}
	w.ctx, w.unwatch, w.cut = nil, nil, false
}

// cause returns why an exchange failed: the end of the attempt, when that is
// what cut it short, or err.
func (w *wire) cause(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx != nil && w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	return err
}

// until is the end of a wait of d that begins now.
func (w *wire) until(d time.Duration) time.Time {
	at := time.Now().Add(d)
	if !w.limit.IsZero() && w.limit.Before(at) {
		return w.limit
	}
	return at
}

// expect bounds everything that is read until it is called again: one wait for
// a whole reply, so that a server gains nothing by dripping.
func (w *wire) expect(d time.Duration) {
	w.readBy = w.until(d)
	if !w.readAlarm.IsZero() && !w.readAlarm.After(w.readBy) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setReadAlarm()
}

// setReadAlarm sets it for the end of the wait. mu is held.
func (w *wire) setReadAlarm() {
	w.readAlarm = w.readBy
	if !w.cut {
		_ = w.SetReadDeadline(w.readAlarm)
	}
}

// Read implements io.Reader. It waits until readBy, however often the alarm
// rings before.
func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !w.mayWait() {
			return n, err
		}
	}
}

// mayWait reports whether there is time left for a read whose alarm rang, and
// sets the alarm for it.
func (w *wire) mayWait() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut || w.ctx != nil && w.ctx.Err() != nil || !time.Now().Before(w.readBy) {
		return false
	}
	w.setReadAlarm()
	return true
}

// offer bounds the writes that follow: each may wait for d, or up to a quarter
// longer.
func (w *wire) offer(d time.Duration) {
	soonest := w.until(d)
	latest := soonest.Add(d / 4)
	if !w.limit.IsZero() && w.limit.Before(latest) {
		latest = w.limit
	}
	if !w.writeAlarm.IsZero() && !w.writeAlarm.Before(soonest) && !w.writeAlarm.After(latest) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeAlarm = latest
	if !w.cut {
		_ = w.SetWriteDeadline(latest)
	}
}

// Write implements io.Writer.
func (w *wire) Write(p []byte) (int, error) {
	if !w.holding {
		return w.Conn.Write(p)
	}
	w.held = append(w.held, p...)
	return len(p), nil
}

// writeBoth writes head and tail with one system call, without joining them.
func (w *wire) writeBoth(head, tail []byte) error {
	w.vector = [2][]byte{head, tail}
	w.buffers = w.vector[:]
	_, err := w.buffers.WriteTo(w.Conn)
	w.vector = [2][]byte{}
	return err
}

// hold gathers what is written from now on.
func (w *wire) hold() { w.holding = true }

// heldAtMost is what a connection keeps of a buffer that it needed once.
const heldAtMost = 64 << 10

// release writes what hold has gathered, with one system call.
func (w *wire) release() error {
	w.holding = false
	_, err := w.Conn.Write(w.held)
	if w.held = w.held[:0]; cap(w.held) > heldAtMost {
		w.held = nil
	}
	return err
}

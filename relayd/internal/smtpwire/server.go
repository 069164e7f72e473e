package smtpwire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// Server runs SMTP on connections. Its methods may be called from any goroutine.
type Server struct {
	config  Config
	limits  Limits
	backend Backend
	buffers sync.Pool // of *[bigBuffer]byte
	ctx     context.Context
	cancel  context.CancelFunc

	closing atomic.Bool // no new commands
	forced  atomic.Bool // and no patience left
	done    chan struct{}

	next  chan *Conn   // to a worker that waits
	spare atomic.Int32 // workers that wait, or are about to

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	working   sync.WaitGroup
}

// NewServer builds a server that serves nothing yet.
func NewServer(b Backend, c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err == nil && b == nil {
		err = errors.New("a backend is required")
	}
	if err != nil {
		return nil, fmt.Errorf("smtp engine: %w", err)
	}
	s := &Server{
		config: c, limits: c.Limits, backend: b, done: make(chan struct{}), next: make(chan *Conn),
		listeners: map[net.Listener]struct{}{}, conns: map[*Conn]struct{}{},
	}
	s.buffers.New = func() any { return new([bigBuffer]byte) }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// How long Serve waits after a failure to accept that may pass, for example
// when the process has no file descriptor left.
const (
	firstAcceptWait = 5 * time.Millisecond
	maxAcceptWait   = time.Second
)

// Serve accepts connections until the listener fails, or until Shutdown or
// Close, after which it returns smtp.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	if !s.enlist(l) {
		return errors.Join(smtp.ErrServerClosed, l.Close())
	}
	wait := firstAcceptWait
	for {
		conn, err := l.Accept()
		if err == nil {
			wait = firstAcceptWait
			if c := s.enter(conn); c != nil {
				s.serve(c)
			}
			continue
		}
		if s.closing.Load() {
			return smtp.ErrServerClosed
		}
		if !temporary(err) {
			return fmt.Errorf("accept: %w", err)
		}
		s.config.Log.Warn("accepting a connection", "err", err, "retry", wait)
		select {
		case <-s.done:
			return smtp.ErrServerClosed
		case <-time.After(wait):
		}
		wait = min(2*wait, maxAcceptWait)
	}
}

// maxSpareWorkers bounds how many workers wait for a connection: about as many as are between two connections under load.
const maxSpareWorkers = 64

// serve gives c to a worker that waits, or to a new one. A client that sends each message over a connection of its own would
// otherwise pay for a stack that grows from nothing every time: 4 % of all that such a message costs.
func (s *Server) serve(c *Conn) {
	select {
	case s.next <- c:
	default:
		go s.work(c)
	}
}

func (s *Server) work(c *Conn) {
	for {
		c.serve()
		if s.spare.Add(1) > maxSpareWorkers {
			s.spare.Add(-1)
			return
		}
		select {
		case c = <-s.next:
			s.spare.Add(-1)
		case <-s.done:
			return
		}
	}
}

// temporary reports whether accepting may succeed later. The method is
// deprecated because its meaning is vague; for Accept it is what there is.
func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

func (s *Server) enlist(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

// enter takes a connection on. One that comes while the server closes is told so
// by its own goroutine.
func (s *Server) enter(conn net.Conn) *Conn {
	c := newConn(s, conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forced.Load() {
		_ = conn.Close() // nobody is left to care
		return nil
	}
	s.conns[c] = struct{}{}
	s.working.Add(1)
	return c
}

func (s *Server) leave(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.working.Done()
}

// Hurry is to be called when stress sets in: clients that were idle before get no more time than those who are from now on.
func (s *Server) Hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.hurry()
	}
}

// Shutdown takes no more connections, says 421 to clients between two commands
// and lets messages in flight finish. When ctx ends first, it closes what is
// left, ends the contexts of their sessions and returns the error of ctx. In
// either case no session runs any more when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop()
	s.mu.Lock()
	for c := range s.conns {
		c.wake()
	}
	s.mu.Unlock()
	finished := make(chan struct{})
	go func() {
		s.working.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return err
	case <-ctx.Done():
	}
	s.cutOff()
	<-finished
	return errors.Join(err, ctx.Err())
}

// Close closes all listeners and connections at once and does not wait for
// their sessions.
func (s *Server) Close() error {
	err := s.stop()
	s.cutOff()
	return err
}

// stop closes the listeners. It may be called more than once.
func (s *Server) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.CompareAndSwap(false, true) {
		close(s.done)
	}
	var err error
	for l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	clear(s.listeners)
	return err
}

func (s *Server) cutOff() {
	s.mu.Lock()
	s.forced.Store(true)
	left := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		left = append(left, c)
	}
	s.mu.Unlock()
	s.cancel()
	for _, c := range left {
		_ = c.raw.Close() // its own goroutine sees the end
	}
}

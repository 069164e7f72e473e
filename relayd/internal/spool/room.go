package spool

import (
	"fmt"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// reserveInodes are kept free for the journal's own files.
const reserveInodes = 64

// Room answers whether a message of size bytes should be taken in: there must
// be one and a half times its size beside the reserve, so that what is already
// here can still be delivered, noticed and removed when the answer is ErrFull.
// Ask at MAIL with the declared size, or the largest allowed when none is.
func (s *Spool) Room(size int64) error {
	bytes, inodes, err := s.free()
	if err != nil {
		return fmt.Errorf("free space of %s: %w", s.dir, err)
	}
	// A client may declare any size: nothing here may overflow.
	if spare := bytes - s.reserve; spare < 0 || size > spare || size+size/2 > spare {
		return fmt.Errorf("%w: %d bytes free beside the reserve, one and a half times %d needed", ErrFull, spare, size)
	}
	if inodes < reserveInodes {
		return fmt.Errorf("%w: %d inodes free, %d needed", ErrFull, inodes, reserveInodes)
	}
	return nil
}

// askEveryBytes is how much clients' messages take, all together, until the disk is
// asked again whether the reserve is untouched.
const askEveryBytes = 1 << 20

// keepReserve is asked before a message takes n bytes of the disk.
func (w *Writer) keepReserve(n int) error {
	s := w.spool
	if !w.client || s.filled.Add(int64(n)) < askEveryBytes {
		return nil
	}
	// After a refusal the next one asks again.
	err := s.Room(0)
	if err == nil {
		s.filled.Store(0)
	}
	return err
}

// free is what this user may still allocate. File systems without a fixed
// number of inodes report a large one.
func (s *Spool) free() (bytes, inodes int64, err error) {
	if err := s.faults("statfs", s.dir); err != nil {
		return 0, 0, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return 0, 0, err
	}
	inodes = int64(st.Ffree)
	if st.Files == 0 {
		inodes = reserveInodes
	}
	return int64(st.Bavail) * int64(st.Bsize), inodes, nil
}

// metrics are the spool's own figures.
type metrics struct {
	registry    prometheus.Registerer
	quarantined prometheus.Counter
	registered  []prometheus.Collector
}

func newMetrics(registry prometheus.Registerer, s *Spool) (*metrics, error) {
	m := &metrics{
		registry: registry,
		quarantined: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relayd_spool_quarantined_total",
			Help: "Messages put into quarantine because they were damaged or could not be handled.",
		}),
	}
	freeBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relayd_spool_free_bytes",
		Help: "Space left on the disk of the spool.",
	}, func() float64 {
		bytes, _, err := s.free()
		if err != nil {
			return -1
		}
		return float64(bytes)
	})
	memoryBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relayd_spool_memory_bytes",
		Help: "Memory of texts that are arriving, were just stored, or are being delivered from there.",
	}, func() float64 { return float64(s.memory.lent.Load()) })
	if registry == nil {
		return m, nil
	}
	for _, figure := range []prometheus.Collector{m.quarantined, freeBytes, memoryBytes} {
		if err := registry.Register(figure); err != nil {
			m.unregister()
			return nil, err
		}
		m.registered = append(m.registered, figure)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, figure := range m.registered {
		m.registry.Unregister(figure)
	}
}

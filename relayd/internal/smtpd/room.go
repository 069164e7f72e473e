package smtpd

import (
	"errors"
	"sync"
	"time"

	"activerelay/api/reason"
	"activerelay/relayd/internal/spool"
)

// room remembers for a moment that the disk has plenty of it, so that a busy
// edge does not ask the kernel for every message. It is never remembered that
// there is little.
type room struct {
	mu    sync.Mutex
	until time.Time
	size  int64 // of the largest message that was asked about
}

const (
	// roomMemory is shorter than it takes to fill what roomMessages leaves.
	roomMemory   = 20 * time.Millisecond
	roomMessages = 16
)

// check asks whether the disk can take a message, where none is larger than
// largest.
func (r *room) check(s *spool.Spool, size, largest int64) error {
	now := time.Now()
	r.mu.Lock()
	known := now.Before(r.until) && size <= r.size
	r.mu.Unlock()
	if known {
		return nil
	}
	// A client may announce any size: the product must not overflow.
	if size <= largest && s.Room(roomMessages*min(largest, maxRoomBytes)) == nil {
		r.mu.Lock()
		r.until, r.size = now.Add(roomMemory), largest
		r.mu.Unlock()
		return nil
	}
	return s.Room(size)
}

const maxRoomBytes = 1 << 40

// checkRoom asks whether the disk can take the message, whose size is not
// always announced.
func (s *session) checkRoom(tx *transaction, size int64) error {
	largest := tx.view.Table.Platform().MaxMessageBytes
	if size == 0 {
		size = largest
	}
	err := s.server.Journal.Err()
	if err == nil {
		err = s.server.room.check(s.server.Spool, size, largest)
	}
	if err == nil {
		return nil
	}
	slug := reason.DiskTrouble
	if errors.Is(err, spool.ErrFull) {
		slug = reason.QueueFull
	}
	return s.refuse(refusal{stage: reason.StageMail, slug: slug, tx: tx, cause: err})
}

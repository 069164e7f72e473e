package scan

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unanswered says whether the host at the other end owes an acknowledgement, of data or of a probe, and how long ago the last
// packet came from it. A closed connection owes none.
func unanswered(conn *net.TCPConn) (owes bool, silent time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			owes = info.Unacked > 0 || info.Probes > 0
			silent = time.Duration(info.Last_ack_recv) * time.Millisecond
		}
	})
	return owes, silent
}

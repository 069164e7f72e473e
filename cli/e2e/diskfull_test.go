package e2e

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"activerelay/cli/e2e/oracle"
)

// On a disk without room for another message the edge says 452 at MAIL and to monitoring, goes on delivering and notifying, and
// takes mail again soon after there is room.
func TestMatrixRow5WithoutRoomMailLeavesAndNoneComesIn(t *testing.T) {
	s := newStack(t)
	fs := newTmpfs(t, filepath.Join(s.dir, "edge1"), "256m")
	r := newFullTrial(t, s)
	r.send(r.load("mixed-queued", 20, 4, smallMessage))
	r.send(r.load("big-queued", 5, 2, bigMessage))
	fs.resize("64m") // below the reserve
	r.noRoom()
	r.relieved(func() { fs.resize("256m") })
}

// The same where it is inodes that run out, under the load that takes them.
func TestMatrixRow5WithoutInodesMailLeavesAndNoneComesIn(t *testing.T) {
	s := newStack(t)
	newFileSystem(t, "ext4", filepath.Join(s.dir, "edge1"), "512M", "-N", "160")
	r := newFullTrial(t, s)
	r.send(r.load("mixed-queued", 20, 4, smallMessage))
	load := r.load("inodes", 200, 4, bigMessage)
	load.RetryAfter, load.PerConnection = 0, 5 // many refusals would end the connection
	outcome := r.send(load)
	if outcome.Accepted == 0 || outcome.Accepted == 200 {
		t.Fatalf("%d messages fitted, refused were %v", outcome.Accepted, outcome.Replies)
	}
	for line := range outcome.Replies {
		if !strings.HasPrefix(line, "452-4.3.1 ") {
			t.Errorf("refused with %q", line)
		}
	}
	r.noRoom()
	r.relieved(func() {}) // deliveries give the inodes back
}

// A disk that others fill to the last byte, under load, costs nothing that was acknowledged.
func TestMatrixRow5ADiskThatOthersFillLosesNothing(t *testing.T) {
	s := newStack(t)
	dir := filepath.Join(s.dir, "edge1")
	newTmpfs(t, dir, "256m")
	r := newFullTrial(t, s)
	const sessions = 6
	stop := r.background(r.load("filling", 100_000, sessions, smallMessage))
	eventually(t, "mail before the disk is full", func() bool { return r.books.Accepted() > 50 })
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	// relayd either holds out on what it has allocated, or its journal fails and it ends: both are right.
	pid := r.edge.pid()
	within(3*time.Second, func() bool { return dead(pid) })
	stop()
	must(t, os.Remove(ballast))
	ended := dead(pid)
	if ended {
		r.restart()
	}
	began := time.Now()
	r.send(r.load("after", 20, 4, smallMessage))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("mail was taken %s after there was room", took)
	}
	r.openSink(r.down)
	r.retry()
	r.empty(oracle.Bounds{Unanswered: sessions, Doubtful: sessions, Repeated: deliveriesAtOnce})
	t.Logf("relayd ended over the full disk: %v", ended)
}

// newFullTrial is a trial whose destination is down and whose messages are at most 1 MiB.
func newFullTrial(t *testing.T, s *stack) *trial {
	t.Helper()
	r := newTrial(t, trialOptions{stack: s, down: "127.0.0.1:" + freePort(t)})
	r.ctl("settings", "update", "--max-message-bytes", "1048576")
	r.synced()
	return r
}

// noRoom demands what a client and monitoring see of a full disk.
func (r *trial) noRoom() {
	r.t.Helper()
	d := dial(r.t, r.edge.relay, "127.0.0.1")
	var last reply
	if !within(5*time.Second, func() bool { // that there was room is remembered for a moment
		last = d.say("MAIL FROM:<anna@example.com>")
		reason, _ := last.reference()
		d.say("RSET")
		return last.code == 452 && strings.HasPrefix(last.lines[0], "4.3.1 ") && reason == "queue-full"
	}) {
		r.t.Errorf("MAIL is answered %v", last)
	}
	if !r.failing("disk-room") {
		r.t.Error("monitoring does not see that the disk is full")
	}
}

// relieved lets the destination come back while the disk is full: all that waits goes, notifications too. Then there is room.
func (r *trial) relieved(room func()) {
	r.t.Helper()
	r.openSink(r.down)
	r.retry()
	if verdict := r.empty(oracle.Bounds{}); verdict.Returned == 0 {
		r.t.Error("nothing was returned: the test shows less than it should")
	}
	room()
	began := time.Now()
	r.send(r.load("after", 20, 4, bigMessage))
	if took := time.Since(began); took > 10*time.Second {
		r.t.Errorf("mail was taken %s after there was room", took)
	}
	r.empty(oracle.Bounds{})
}

// tmpfs is a file system in memory whose size can be changed.
type tmpfs struct {
	t   *testing.T
	dir string
}

func newTmpfs(t *testing.T, dir, size string) *tmpfs {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=700,size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED full disks: this machine mounts no tmpfs: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return &tmpfs{t: t, dir: dir}
}

func (f *tmpfs) resize(size string) {
	f.t.Helper()
	run(f.t, "mount", "-o", "remount,size="+size, f.dir)
}

// fill writes a file until there is no byte left.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	defer file.Close()
	for _, block := range []int{1 << 20, 4096} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, block))
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
}

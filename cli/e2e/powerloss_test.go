package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/cli/e2e/oracle"
)

// The file system under the edge is cut off under load, as a power cut does: what was not synced is gone, directory entries
// included. Nothing that was acknowledged is lost.
func TestMatrixRow3PowerLossTakesNothingThatWasAcknowledged(t *testing.T) {
	for _, kind := range []string{"xfs", "ext4"} {
		t.Run(kind, func(t *testing.T) { cutPower(t, kind, 5) })
	}
}

// The same with a hundred cuts of each file system.
func TestSoakMatrixRow3PowerLossTakesNothingThatWasAcknowledged(t *testing.T) {
	soaking(t)
	for _, kind := range []string{"xfs", "ext4"} {
		t.Run(kind, func(t *testing.T) { cutPower(t, kind, 100) })
	}
}

func cutPower(t *testing.T, kind string, cuts int) {
	const small, big = 6, 2 // sessions
	s := newStack(t)
	fs := newFileSystem(t, kind, filepath.Join(s.dir, "edge1"), "512M")
	r := newTrial(t, trialOptions{stack: s})
	for cut := range cuts {
		from := r.books.Accepted()
		stopSmall := r.background(r.load(fmt.Sprintf("small-%d", cut), 100_000, small, smallMessage))
		stopBig := r.background(r.load(fmt.Sprintf("big-%d", cut), 100_000, big, bigMessage))
		eventually(t, "messages to lose", func() bool { return r.books.Accepted() >= from+30+cut%7 })
		r.edge.freeze()
		fs.cut()
		r.edge.kill()
		fs.unmount()
		fs.mount()
		r.restart()
		stopSmall()
		stopBig()
	}
	r.retry()
	r.empty(oracle.Bounds{Unanswered: cuts * (small + big), Repeated: cuts * deliveriesAtOnce, Doubtful: cuts * (small + big)})
	r.noStrayBodies()
}

// The test of the test: where the syncs of the edge do nothing, the oracle finds what the cut has taken.
func TestMatrixRow3WithoutSyncsThePowerLossIsFound(t *testing.T) {
	s := newStack(t)
	fs := newFileSystem(t, "ext4", filepath.Join(s.dir, "edge1"), "256M")
	r := newTrial(t, trialOptions{stack: s, down: "127.0.0.1:" + freePort(t)})
	r.send(r.load("kept", 100, 4, smallMessage))
	r.judge(oracle.Bounds{})
	// The control plane must not hear of what is going to be lost: it would list it as waiting.
	r.server.kill()
	tr := r.attach("fsync,fdatasync", "retval=0")
	load := r.load("lost", 10, 4, smallMessage)
	load.RetryAfter = 0
	lost := r.send(load).Accepted
	fs.cut()
	r.edge.kill()
	tr.finish(300 * time.Millisecond)
	fs.unmount()
	fs.mount()
	r.server.start()
	r.waitReady(r.url + "/readyz")
	r.restart()
	if verdict := r.books.Judge(r.state(), oracle.Bounds{}); lost == 0 || !strings.Contains(verdict.String(), "lost-") {
		t.Errorf("%d were accepted without a sync: %s", lost, verdict)
	}
}

// freeze stops every thread of the process; what is in a system call comes to its end first. A power cut ends process and disk
// at one moment; the ioctl that stands for it does not: ext4 may still call a sync done whose blocks are not on the disk. A loop
// of write and fdatasync over space that was allocated before, and nothing else, lost what it had been told in 17 of 250 cuts.
func (p *process) freeze() {
	p.t.Helper()
	run(p.t, "kill", "-STOP", p.pid())
	eventually(p.t, "a process that stands still", func() bool {
		threads, err := filepath.Glob("/proc/" + p.pid() + "/task/*/stat")
		must(p.t, err)
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			text, err := os.ReadFile(path) // a thread may have ended
			return err == nil && !strings.Contains(string(text), ") T ")
		})
	})
}

// fileSystem is one in a file, mounted over a loop device, which can be shut down as if the power had gone.
type fileSystem struct {
	t          *testing.T
	image, dir string
	kind       string
	mounted    bool
}

// newFileSystem makes a file system and mounts it at dir. options go to mkfs.
func newFileSystem(t *testing.T, kind, dir, size string, options ...string) *fileSystem {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED file systems over loop devices: they need root")
	}
	fs := &fileSystem{t: t, kind: kind, dir: dir, image: filepath.Join(t.TempDir(), kind+".img")}
	must(t, os.MkdirAll(dir, 0o700))
	run(t, "truncate", "-s", size, fs.image)
	force := map[string]string{"xfs": "-f", "ext4": "-F"}[kind]
	run(t, need(t, "mkfs."+kind, map[string]string{"xfs": "xfsprogs", "ext4": "e2fsprogs"}[kind]), append(append([]string{"-q", force}, options...), fs.image)...)
	if out, err := fs.tryMount(); err != nil {
		t.Skipf("SKIPPED file systems over loop devices: this machine mounts none: %v %s", err, out)
	}
	t.Cleanup(func() {
		if fs.mounted {
			// The edge ends after this clean-up: it was started later.
			_ = exec.Command("umount", "-l", fs.dir).Run()
		}
	})
	return fs
}

func (fs *fileSystem) tryMount() (string, error) {
	out, err := exec.Command("mount", "-t", fs.kind, "-o", "loop", fs.image, fs.dir).CombinedOutput()
	fs.mounted = err == nil
	return string(out), err
}

func (fs *fileSystem) mount() {
	fs.t.Helper()
	if out, err := fs.tryMount(); err != nil {
		fs.t.Fatalf("mount after the cut: %v %s", err, out)
	}
}

// cut ends all writing at once: nothing that is still in memory reaches the disk any more.
func (fs *fileSystem) cut() {
	fs.t.Helper()
	run(fs.t, need(fs.t, "xfs_io", "xfsprogs"), "-x", "-c", "shutdown", fs.dir)
}

// unmount waits for the last reader.
func (fs *fileSystem) unmount() {
	fs.t.Helper()
	var out []byte
	if !within(20*time.Second, func() bool {
		var err error
		out, err = exec.Command("umount", fs.dir).CombinedOutput()
		return err == nil
	}) {
		fs.t.Fatalf("umount: %s", strings.TrimSpace(string(out)))
	}
	fs.mounted = false
}

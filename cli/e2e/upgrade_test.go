package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/cli/e2e/oracle"
)

// Releases before this one, by the commit that they are built from.
const (
	// formerFormat writes journals of format 1.
	formerFormat = "eb0678d41e0e024df11462c781f415a6f9774e41"
	// sameFormat writes journals of format 2, as this one does.
	sameFormat = "be9fdd0369a970bb826d4c6d0a5c9df910495465"
)

// Matrix row 8: mail that waits under one release is taken over by the next, and by the one before where the new one is taken
// back, while clients go on sending: nothing is lost or doubled, whoever delivers it.
func TestSoakMatrixRow8AnUpgradeAndTheWayBackLoseAndDoubleNothing(t *testing.T) {
	soaking(t)
	const share = 300
	r := newReleaseTrial(t, releaseAt(t, sameFormat))
	r.send(r.load("mixed", 100, 4, smallMessage)) // notifications are bounded
	small := r.background(r.load("small", 1_000_000, 6, smallMessage))
	big := r.background(r.load("big", 1_000_000, 2, bigMessage))
	more := func() {
		t.Helper()
		from := r.books.Accepted()
		eventually(t, "more messages", func() bool { return r.books.Accepted() >= from+share })
	}
	for _, wrap := range [][]string{nil, r.edge.wrap, nil} { // upgrade, way back, upgrade
		more()
		r.become(wrap)
	}
	more()
	small()
	big()
	r.openSink(r.down)
	r.retry()
	r.empty(oracle.Bounds{})
	r.noStrayBodies()
}

// Matrix row 8 where the format of the journal has changed in between: what waits is taken over, and the release before refuses the
// journal from then on in clear words instead of misreading it.
func TestSoakMatrixRow8AQueueOfTheFormerFormatIsTakenOverAndTheWayBackIsRefused(t *testing.T) {
	soaking(t)
	r := newReleaseTrial(t, releaseAt(t, formerFormat))
	former := r.edge.wrap
	r.send(r.load("mixed-former", 300, 6, smallMessage))
	r.send(r.load("big-former", 30, 3, bigMessage))
	r.become(nil)
	r.send(r.load("mixed-present", 300, 6, smallMessage))
	if code := r.edge.stop(); code != 0 {
		t.Errorf("relayd ended with %d", code)
	}

	r.edge.wrap = former
	said := len(r.edge.out.String())
	r.edge.start()
	pid := r.edge.pid()
	if !within(20*time.Second, func() bool { return dead(pid) }) {
		t.Fatal("the release before runs on a journal that it cannot read")
	}
	if code := r.edge.stop(); code != 1 {
		t.Errorf("the release before ended with %d", code)
	}
	if text := r.edge.out.String()[said:]; !strings.Contains(text, "format version 2, this release reads 1") {
		t.Errorf("the release before said\n%s", text)
	}

	r.edge.wrap = nil
	r.edge.start()
	r.waitJoined(r.edge.admin)
	r.openSink(r.down)
	r.retry()
	r.empty(oracle.Bounds{})
	r.noStrayBodies()
}

// newReleaseTrial is a trial whose edge is another release of relayd, and whose destination is down.
func newReleaseTrial(t *testing.T, relayd string) *trial {
	t.Helper()
	s := newStack(t)
	s.wrap = []string{"sh", "-c", `shift; exec "$0" "$@"`, relayd} // in place of the test's binary
	r := newTrial(t, trialOptions{stack: s, down: "127.0.0.1:" + freePort(t)})
	r.runs("former")
	return r
}

// become ends the edge as an upgrade does, and starts it as another release.
func (r *trial) become(wrap []string) {
	r.t.Helper()
	if code := r.edge.stop(); code != 0 {
		r.t.Errorf("relayd ended with %d", code)
	}
	r.edge.wrap = wrap
	r.edge.start()
	r.waitJoined(r.edge.admin)
	if wrap == nil {
		r.runs("unversioned")
	} else {
		r.runs("former")
	}
}

// runs waits until the control plane shows which release the edge is.
func (r *trial) runs(version string) {
	r.t.Helper()
	eventually(r.t, "an edge that runs "+version, func() bool {
		var edges struct{ Items []struct{ Version string } }
		r.ctlJSON(&edges, "edge", "list")
		return len(edges.Items) == 1 && strings.HasSuffix(edges.Items[0].Version, version)
	})
}

// releaseAt builds the relayd of a commit. Where the history is not there, as in a shallow clone, the test is skipped by name.
func releaseAt(t *testing.T, commit string) (relayd string) {
	t.Helper()
	git := func(args ...string) *exec.Cmd {
		cmd := exec.Command(need(t, "git", "git"), append([]string{"-c", "safe.directory=*"}, args...)...)
		cmd.Dir = filepath.Join("..", "..")
		return cmd
	}
	if out, err := git("cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED %s: this checkout lacks the history that another release is built from (git fetch --unshallow): %v %s", t.Name(), err, out)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source.tar")
	if out, err := git("archive", "-o", source, commit).CombinedOutput(); err != nil {
		t.Fatalf("git archive %s: %v %s", commit, err, out)
	}
	run(t, "tar", "-xf", source, "-C", dir)
	relayd = filepath.Join(dir, "former-relayd")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.version=former", "-o", relayd, "./relayd/cmd/relayd")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of %s: %v\n%s", commit, err, out)
	}
	return relayd
}

// Matrix row 8: idle clients hear at once that the edge ends, and 35 seconds later no connection is alive, not even one that stalls
// in the middle of a message, or one to a destination that says nothing.
func TestSoakMatrixRow8NoConnectionOutlivesTheEndByMoreThan35Seconds(t *testing.T) {
	soaking(t)
	const idle = 20
	silent, deliveries := hang(t, "127.0.0.1:0")
	r := newTrial(t, trialOptions{down: silent})
	r.send(r.load("waits", 20, 4, smallMessage))
	_, _, open := r.crowd(idle)
	eventually(t, "deliveries under way", func() bool { return deliveries.Load() > 0 })
	stalled := dial(t, r.edge.relay, "127.0.0.1")
	for _, line := range []string{"MAIL FROM:<anna@example.com>", "RCPT TO:<bob@example.net>", "DATA"} {
		if got := stalled.say(line); got.code >= 400 {
			t.Fatal(got)
		}
	}
	_, err := fmt.Fprint(stalled.conn, "From: anna@example.com\r\n\r\nhalf")
	must(t, err)
	began := time.Now()
	ended := make(chan int, 1)
	go func() { ended <- r.edge.stop() }()
	for _, c := range open {
		must(t, c.SetReadDeadline(began.Add(10*time.Second)))
		said := make([]byte, 512)
		n, err := c.Read(said)
		if err != nil || !strings.HasPrefix(string(said[:n]), "421") {
			t.Errorf("an idle client was told %q, %v", said[:n], err)
		}
	}
	must(t, stalled.conn.SetReadDeadline(began.Add(time.Minute)))
	for err == nil {
		_, err = stalled.conn.Read(make([]byte, 512))
	}
	closed := time.Since(began)
	if ne, ok := err.(net.Error); ok && ne.Timeout() || closed > 35*time.Second {
		t.Errorf("the connection of a client that stalls ended after %s: %v", closed, err)
	}
	if !within(time.Until(began.Add(35*time.Second)), func() bool { return deliveries.Load() == 0 }) {
		t.Errorf("35 s after relayd was told to end %d deliveries are under way", deliveries.Load())
	}
	select {
	case code := <-ended:
		t.Logf("relayd ended with %d after %s, the client that stalls was let go after %s", code, time.Since(began), closed)
	case <-time.After(time.Until(began.Add(45 * time.Second))):
		t.Error("relayd has not ended 45 s after it was told to")
	}
}

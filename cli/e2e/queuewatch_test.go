package e2e

import (
	"strings"
	"syscall"
	"testing"
)

// What waits for a dead destination is summed up with the reason, watched as it leaves, and watching ends in peace.
func TestTheQueueOfADeadDestinationIsSummedUpAndWatched(t *testing.T) {
	down := "127.0.0.1:" + freePort(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(down)
	d := dial(t, edge.relay, "127.0.0.1")
	ids := []string{
		queuedID(t, d.send("anna@example.com", "bob@example.net", letter("anna@example.com", ""))),
		queuedID(t, d.send("anna@example.com", "bob@example.org", letter("anna@example.com", ""))),
	}
	var summary struct {
		Items  int
		Groups []struct {
			Key         string `json:"key"`
			Items       int    `json:"items"`
			DelayReason string `json:"delay_reason"`
			LastReply   string `json:"last_reply"`
		}
	}
	eventually(t, "both destinations with why they wait", func() bool {
		s.ctlJSON(&summary, "queue", "summary")
		return summary.Items == 2 && len(summary.Groups) == 2 && summary.Groups[0].DelayReason != "" && summary.Groups[1].DelayReason != ""
	})
	for i, name := range []string{"example.net", "example.org"} {
		if g := summary.Groups[i]; g.Key != name || g.Items != 1 || g.DelayReason != "connection-failed" || !strings.Contains(g.LastReply, "4.4.") {
			t.Errorf("group %d is %+v", i, g)
		}
	}

	watcher := command("relayctl", "queue", "list", "--watch", "--interval", "100ms", "--destination", "example.net")
	watcher.Env = append(watcher.Env, "RELAYCTL_URL="+s.url, "RELAYCTL_TOKEN="+s.token, "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	var out, errs lockedBuffer
	watcher.Stdout, watcher.Stderr = &out, &errs
	must(t, watcher.Start())
	defer func() { _ = watcher.Process.Kill() }()
	saw := func(change, id string) bool {
		for line := range strings.Lines(out.String()) {
			if cells := strings.Split(line, "\t"); len(cells) > 2 && cells[1] == change && cells[2] == id {
				return true
			}
		}
		return false
	}
	eventually(t, "the message in what is watched", func() bool { return saw("new", ids[0]) })
	s.operate("hold", "--message-ids", ids[0])
	eventually(t, "that it is held", func() bool { return saw("changed", ids[0]) && strings.Contains(out.String(), "\theld\t") })
	inbox := smtpSinkAt(t, down)
	s.operate("release", "--message-ids", ids[0])
	received(t, inbox, 1)
	eventually(t, "that it is gone", func() bool { return saw("gone", ids[0]) })
	if strings.Contains(out.String(), ids[1]) {
		t.Errorf("mail for another destination is watched:\n%s", out.String())
	}
	must(t, watcher.Process.Signal(syscall.SIGINT))
	if err := watcher.Wait(); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("watching ended with %v and wrote\n%s%s", err, out.String(), errs.String())
	}
}

// Package clamdtest runs a real clamd for tests: on a Unix socket in a
// directory of its own, with a configuration and a one-line signature database
// of its own, so that it starts in a moment and touches nothing of the host.
//
// Only tests may import it.
package clamdtest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Signature is the name that clamd reports for [EICAR].
const Signature = "Eicar-Test-Signature.UNOFFICIAL"

// EICAR returns the harmless test file of the anti-virus industry. It is put
// together at run time, so that no scanner objects to this source file.
func EICAR() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}` + `$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!` + `$H+H*`)
}

// Options of a daemon. The zero value is the usual one.
type Options struct {
	// StreamMaxLength is the longest stream that clamd takes, in bytes. 0 means
	// clamd's default.
	StreamMaxLength int
	// Jams gives it a single thread, which hangs once it has found malware, until
	// Unjam: it answers PING, but no scan.
	Jams bool
}

// Clamd is a running daemon.
type Clamd struct {
	// Address is what scan.ClamdConfig.Address takes.
	Address string

	t      testing.TB
	dir    string
	binary string
	cmd    *exec.Cmd
	output bytes.Buffer
}

// Start starts a daemon, waits until it answers, and stops it when the test
// ends. Where clamd is not installed the test fails and says what is missing.
func Start(t testing.TB, o Options) *Clamd {
	t.Helper()
	binary, err := exec.LookPath("clamd")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/clamd"); err != nil {
			t.Fatal("clamd is not installed: apt-get install clamav-daemon")
		}
	}
	// Not t.TempDir: the path of a socket may have 107 bytes only.
	dir, err := os.MkdirTemp("", "clamd")
	if err != nil {
		t.Fatalf("clamdtest: %v", err)
	}
	c := &Clamd{Address: "unix:" + filepath.Join(dir, "s"), t: t, dir: dir, binary: binary}
	t.Cleanup(func() {
		c.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clamdtest: %v", err)
		}
	})
	c.configure(o)
	c.Run()
	return c
}

// configure writes the database and clamd.conf.
func (c *Clamd) configure(o Options) {
	c.t.Helper()
	database := filepath.Join(c.dir, "db")
	if err := os.Mkdir(database, 0o700); err != nil {
		c.t.Fatalf("clamdtest: %v", err)
	}
	// Extended signature: name, any kind of file, any place, the bytes in hex.
	signature := "Eicar-Test-Signature:0:*:" + hex.EncodeToString(EICAR()) + "\n"
	conf := fmt.Sprintf("Foreground yes\nLocalSocket %s\nDatabaseDirectory %s\nTemporaryDirectory %s\n"+
		"AlertExceedsMax yes\nSelfCheck 0\n", filepath.Join(c.dir, "s"), database, c.dir)
	if o.Jams {
		conf += fmt.Sprintf("MaxThreads 1\nVirusEvent exec >/dev/null 2>&1; touch %[1]s; "+
			"while test -e %[1]s; do sleep 0.1; done\n", c.jam())
	} else {
		conf += "MaxThreads 4\n"
	}
	if o.StreamMaxLength > 0 {
		conf += fmt.Sprintf("StreamMaxLength %d\n", o.StreamMaxLength)
	}
	c.write(filepath.Join(database, "test.ndb"), signature)
	c.write(filepath.Join(c.dir, "clamd.conf"), conf)
}

func (c *Clamd) write(path, text string) {
	c.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatalf("clamdtest: %v", err)
	}
}

// Run starts the daemon again after Kill and waits until it answers.
func (c *Clamd) Run() {
	c.t.Helper()
	c.output.Reset()
	c.cmd = exec.Command(c.binary, "--config-file", filepath.Join(c.dir, "clamd.conf"))
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	if err := c.cmd.Start(); err != nil {
		c.t.Fatalf("clamdtest: %v", err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-poll.C {
		if c.answers() {
			return
		}
	}
	c.Kill()
	c.t.Fatalf("clamdtest: clamd does not answer:\n%s", c.output.String())
}

func (c *Clamd) answers() bool { return c.ask("PING") == "PONG" }

// ask says a command and returns the reply; empty where there is none.
func (c *Clamd) ask(command string) string {
	conn, err := net.Dial("unix", filepath.Join(c.dir, "s"))
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("z" + command + "\x00")); err != nil {
		return ""
	}
	reply := make([]byte, 64)
	n, _ := conn.Read(reply)
	return strings.TrimSuffix(string(reply[:n]), "\x00")
}

// Stop makes the daemon hang, as SIGSTOP does: it still accepts connections.
func (c *Clamd) Stop() { c.signal(syscall.SIGSTOP) }

// Continue lets a stopped daemon go on.
func (c *Clamd) Continue() { c.signal(syscall.SIGCONT) }

func (c *Clamd) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatalf("clamdtest: %v", err)
	}
}

// Reload makes the daemon read its database again, and waits until it says that it does.
func (c *Clamd) Reload() {
	c.t.Helper()
	if reply := c.ask("RELOAD"); reply != "RELOADING" {
		c.t.Fatalf("clamdtest: RELOAD is answered %q", reply)
	}
}

// jam is the file that is there while the daemon's thread hangs; it is gone with the directory at the latest.
func (c *Clamd) jam() string { return filepath.Join(c.dir, "jam") }

// Unjam lets a daemon that jams go on.
func (c *Clamd) Unjam() {
	c.t.Helper()
	if err := os.Remove(c.jam()); err != nil {
		c.t.Fatalf("clamdtest: clamd is not jammed: %v", err)
	}
}

// Kill ends the daemon at once. It may be called more than once.
func (c *Clamd) Kill() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait() // it was killed: the status says nothing new
	c.cmd = nil
}

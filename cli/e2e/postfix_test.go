package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// postfix is a Postfix instance of its own: configuration, queue, log and port in a temporary directory.
type postfix struct {
	dir  string
	port string
}

// startPostfix starts Postfix with extra lines for main.cf. Postfix's master runs only as root, so that without it the test
// is skipped by name.
func startPostfix(t *testing.T, main ...string) *postfix {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED %s: Postfix's master process starts only as root", t.Name())
	}
	need(t, "postfix", "postfix")
	// Postfix refuses long socket paths; the default temporary directory of a test is too deep.
	dir, err := os.MkdirTemp("/tmp", "pfx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postfix{dir: dir, port: freePort(t)}
	must(t, os.Chmod(dir, 0o755))
	for _, sub := range []string{"etc", "queue", "data", "mail"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	for _, owned := range []string{"data", "mail"} {
		run(t, "chown", "postfix", filepath.Join(dir, owned))
	}
	p.write(t, "etc/main.cf", append([]string{
		"compatibility_level = 3.6",
		"queue_directory = " + dir + "/queue",
		"data_directory = " + dir + "/data",
		"command_directory = /usr/sbin",
		"daemon_directory = /usr/lib/postfix/sbin",
		"mail_owner = postfix",
		"setgid_group = postdrop",
		"maillog_file = " + dir + "/mail/log",
		"maillog_file_prefixes = " + dir,
		"myhostname = mail.example.com",
		"mydestination =",
		"local_transport = error:no local mail",
		"mynetworks = 127.0.0.0/8",
		"inet_interfaces = 127.0.0.1",
		"inet_protocols = ipv4",
		"alias_maps =",
		"disable_dns_lookups = yes",
		"smtp_host_lookup = native",
		"smtpd_peername_lookup = no",
		"minimal_backoff_time = 1s",
		"maximal_backoff_time = 2s",
		"queue_run_delay = 1s",
		"default_destination_concurrency_failed_cohort_limit = 0",
	}, main...))
	p.write(t, "etc/master.cf", []string{
		p.port + " inet n - n - - smtpd",
		"pickup unix n - n 1 1 pickup",
		"cleanup unix n - n - 0 cleanup",
		"qmgr unix n - n 1 1 qmgr",
		"rewrite unix - - n - - trivial-rewrite",
		"bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce",
		"trace unix - - n - 0 bounce",
		"verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush",
		"proxymap unix - - n - - proxymap",
		"smtp unix - - n - - smtp",
		"relay unix - - n - - smtp",
		"showq unix n - n - - showq",
		"error unix - - n - - error",
		"retry unix - - n - - error",
		"virtual unix - n n - - virtual",
		"anvil unix - - n - 1 anvil",
		"scache unix - - n - 1 scache",
		"postlog unix-dgram n - n - 1 postlogd",
	})
	p.run(t, "start")
	t.Cleanup(func() { _ = exec.Command("/usr/sbin/postfix", "-c", dir+"/etc", "stop").Run() })
	waitListening(t, "127.0.0.1:"+p.port)
	return p
}

func (p *postfix) write(t *testing.T, name string, lines []string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(p.dir, name), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
}

func (p *postfix) run(t *testing.T, verb string) {
	t.Helper()
	if out, err := exec.Command("/usr/sbin/postfix", "-c", p.dir+"/etc", verb).CombinedOutput(); err != nil {
		t.Fatalf("postfix %s: %v\n%s", verb, err, out)
	}
}

// addr is where the instance takes mail by SMTP.
func (p *postfix) addr() string { return "127.0.0.1:" + p.port }

// submit hands a message to Postfix as a local program would.
func (p *postfix) submit(t *testing.T, from, to string, message []byte) {
	t.Helper()
	cmd := exec.Command("/usr/sbin/sendmail", "-C", p.dir+"/etc", "-i", "-f", from, to)
	cmd.Stdin = bytes.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail: %v\n%s", err, out)
	}
}

// log answers what Postfix has logged so far.
func (p *postfix) log(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(p.dir + "/mail/log")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

// queued answers the queue as Postfix prints it.
func (p *postfix) queued(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("/usr/sbin/postqueue", "-c", p.dir+"/etc", "-p").CombinedOutput()
	if err != nil {
		t.Fatalf("postqueue: %v\n%s", err, out)
	}
	return string(out)
}

// smtpSink starts Postfix's smtp-sink and answers its address; each message becomes a file in the directory.
func smtpSink(t *testing.T, args ...string) (addr, dir string) {
	t.Helper()
	addr = "127.0.0.1:" + freePort(t)
	return addr, smtpSinkAt(t, addr, args...)
}

// smtpSinkAt is smtpSink at an address that was down until now.
func smtpSinkAt(t *testing.T, addr string, args ...string) (dir string) {
	t.Helper()
	need(t, "smtp-sink", "postfix")
	dir, err := os.MkdirTemp("/tmp", "sink")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	if os.Geteuid() == 0 {
		args = append(args, "-u", "postfix")
	}
	args = append(args, "-d", "%M.", "-R", dir, addr, "100")
	start(t, exec.Command("/usr/sbin/smtp-sink", args...))
	waitListening(t, addr)
	return dir
}

// received waits until the sink directory holds n messages and answers them in the order of their names.
func received(t *testing.T, dir string, n int) [][]byte {
	t.Helper()
	var messages [][]byte
	eventually(t, fmt.Sprintf("%d messages at the sink", n), func() bool {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		must(t, err)
		messages = nil
		for _, name := range names {
			data, err := os.ReadFile(name)
			must(t, err)
			if len(data) > 0 {
				messages = append(messages, data)
			}
		}
		return len(messages) >= n
	})
	return messages
}

// need fails the test when a real peer is missing, and names the package that has it.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	t.Fatalf("%s is not installed; run: apt-get install --no-install-recommends %s", program, debian)
	return ""
}

// start runs a program until the test ends; what it printed is shown when the test fails.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && out.Len() > 0 {
			t.Logf("%s printed:\n%s", cmd.Path, out.String())
		}
	})
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func freePort(t *testing.T) string {
	t.Helper()
	return relaytest.FreePort(t)
}

func waitListening(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "a listener on "+addr, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// eventually polls a condition of a real process, which can tell us nothing by itself.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !within(60*time.Second, holds) {
		t.Fatalf("no %s within 60 s", what)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

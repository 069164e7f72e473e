package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exim is an Exim that takes every message and keeps it. Debian's package does not go with Postfix's, so it is unpacked into
// a temporary directory and runs with a configuration, and an /etc/passwd, of its own.
type exim struct {
	dir  string
	port string
}

// startExim starts Exim, which has to be root for its own /etc/passwd; without root, or where the package cannot be had, the
// test is skipped by name.
func startExim(t *testing.T) *exim {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED %s: an Exim of its own needs root", t.Name())
	}
	dir, err := os.MkdirTemp("/tmp", "exim")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	e := &exim{dir: dir, port: freePort(t)}
	e.unpack(t, "exim4-daemon-light", "exim4-base", "libidn12")
	for _, file := range []struct{ name, from, line string }{
		{name: "passwd", from: "/etc/passwd", line: "Debian-exim:x:130:130::/nonexistent:/usr/sbin/nologin\n"},
		{name: "group", from: "/etc/group", line: "Debian-exim:x:130:\n"},
	} {
		text, err := os.ReadFile(file.from)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, file.name), append(text, file.line...), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(dir, "spool"), 0o755))
	must(t, os.Chown(filepath.Join(dir, "spool"), 130, 130))
	binary := filepath.Join(dir, "root/usr/sbin/exim4")
	must(t, os.WriteFile(filepath.Join(dir, "exim.conf"), []byte(strings.Join([]string{
		"primary_hostname = exim.example",
		"exim_path = " + binary,
		"spool_directory = " + dir + "/spool",
		"log_file_path = " + dir + "/spool/%slog",
		"acl_smtp_mail = accept",
		"acl_smtp_rcpt = accept",
		"acl_smtp_data = accept",
		"queue_only = true",
		"host_lookup =",
		"rfc1413_query_timeout = 0s",
		"tls_advertise_hosts =",
		"keep_environment = LD_LIBRARY_PATH",
		"local_interfaces = 127.0.0.1",
		"daemon_smtp_ports = " + e.port,
		"smtp_accept_max = 50",
		"never_users =",
	}, "\n")+"\n"), 0o644))
	script := fmt.Sprintf("mount --bind %[1]s/passwd /etc/passwd && mount --bind %[1]s/group /etc/group && exec %[2]s -C %[1]s/exim.conf -bdf", dir, binary)
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir+"/root/usr/lib/x86_64-linux-gnu")
	start(t, cmd)
	waitListening(t, e.addr())
	return e
}

// unpack gets packages from Debian's archive without installing them.
func (e *exim) unpack(t *testing.T, packages ...string) {
	t.Helper()
	download := exec.Command("apt-get", append([]string{"download", "-q"}, packages...)...)
	download.Dir = e.dir
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED %s: Exim's packages cannot be had: %v\n%s", t.Name(), err, out)
	}
	files, err := filepath.Glob(filepath.Join(e.dir, "*.deb"))
	must(t, err)
	for _, file := range files {
		run(t, "dpkg-deb", "-x", file, filepath.Join(e.dir, "root"))
	}
}

func (e *exim) addr() string { return "127.0.0.1:" + e.port }

// kept answers the texts of the messages that Exim has taken.
func (e *exim) kept(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(e.dir, "spool/input/*-H"))
	must(t, err)
	var texts []string
	for _, file := range files {
		head, err := os.ReadFile(file)
		must(t, err)
		body, err := os.ReadFile(strings.TrimSuffix(file, "-H") + "-D")
		must(t, err)
		texts = append(texts, string(head)+string(body))
	}
	return texts
}

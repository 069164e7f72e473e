package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"activerelay/relayd/bench"
)

// unpacked gets packages from Debian's archive without installing them, since some do not go together, and answers the root
// of what they hold. Where they cannot be had the test is skipped by name. What was downloaded is kept in the user's cache.
func unpacked(t *testing.T, packages ...string) (root string) {
	t.Helper()
	root = openDir(t, "peer")
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = root
	}
	for _, name := range packages {
		dir := filepath.Join(cache, "activerelay-tests", name)
		files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
		must(t, err)
		if len(files) == 0 {
			must(t, os.MkdirAll(dir, 0o755))
			download := exec.Command("apt-get", "download", "-q", name)
			download.Dir = dir
			if out, err := download.CombinedOutput(); err != nil {
				t.Skipf("SKIPPED %s: Debian's package %s cannot be had: %v\n%s", t.Name(), name, err, out)
			}
			files, err = filepath.Glob(filepath.Join(dir, "*.deb"))
			must(t, err)
		}
		for _, file := range files {
			run(t, "dpkg-deb", "-x", file, root)
		}
	}
	return root
}

// openDir is a temporary directory with a short path that other users may enter.
func openDir(t *testing.T, prefix string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", prefix)
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// apart is a mount namespace in which a mail server sees users, and other files, of its own.
type apart struct {
	dir    string
	mounts []string // shell commands
}

// newApart makes a namespace with users whose ids are 130 and up. It needs root; without, the test is skipped by name.
func newApart(t *testing.T, dir string, users ...string) *apart {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED %s: a mail server with users of its own needs root", t.Name())
	}
	var passwd, group strings.Builder
	for i, user := range users {
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", user, 130+i, 130+i)
		fmt.Fprintf(&group, "%s:x:%d:\n", user, 130+i)
	}
	a := &apart{dir: dir}
	for _, file := range []struct{ name, lines string }{{name: "passwd", lines: passwd.String()}, {name: "group", lines: group.String()}} {
		text, err := os.ReadFile("/etc/" + file.name)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, file.name), append(text, file.lines...), 0o644))
		a.mounts = append(a.mounts, fmt.Sprintf("mount --bind %s/%s /etc/%s", dir, file.name, file.name))
	}
	return a
}

// command runs a program in a namespace like that.
func (a *apart) command(program string, args ...string) *exec.Cmd {
	script := strings.Join(append(append([]string(nil), a.mounts...), `exec "$0" "$@"`), " && ")
	return exec.Command("unshare", append([]string{"-m", "sh", "-c", script, program}, args...)...)
}

// openSMTPD is OpenSMTPD, which hands on what it takes to a sink. It does not know PIPELINING.
type openSMTPD struct{ port string }

func startOpenSMTPD(t *testing.T, sink string) *openSMTPD {
	t.Helper()
	dir := openDir(t, "opensmtpd")
	a := newApart(t, dir, "opensmtpd", "opensmtpq")
	root := unpacked(t, "opensmtpd")
	o := &openSMTPD{port: freePort(t)}
	config := filepath.Join(dir, "smtpd.conf")
	must(t, os.WriteFile(config, []byte("listen on 127.0.0.1 port "+o.port+" hostname open.example\n"+
		"action out relay host smtp://"+sink+"\nmatch from any for any action out\n"), 0o644))
	a.mounts = append(a.mounts,
		"mount -t tmpfs tmpfs /var/spool", "mount -t tmpfs tmpfs /var/lib", "mount -t tmpfs tmpfs /run",
		"mkdir -m 711 /var/spool/smtpd", "mkdir -p /var/lib/opensmtpd/empty")
	start(t, a.command(filepath.Join(root, "usr/sbin/smtpd"), "-d", "-f", config))
	waitListening(t, "127.0.0.1:"+o.port)
	return o
}

// startAiosmtpd starts Python's aiosmtpd and answers its port and the directory in which each message it takes becomes a file.
func startAiosmtpd(t *testing.T) (port, dir string) {
	t.Helper()
	root := unpacked(t, "python3-aiosmtpd", "python3-attr", "python3-public")
	port, dir = freePort(t), t.TempDir()
	const script = `
import itertools, os, sys, time
from aiosmtpd.controller import Controller
class Keep:
    number = itertools.count()
    async def handle_DATA(self, server, session, envelope):
        name = os.path.join(sys.argv[2], "%06d" % next(self.number))
        with open(name + ".part", "wb") as f:
            f.write(envelope.original_content)
        os.rename(name + ".part", name + ".eml")
        return "250 2.0.0 taken"
Controller(Keep(), hostname="127.0.0.1", port=int(sys.argv[1]), data_size_limit=100000000).start()
while True:
    time.sleep(3600)
`
	cmd := exec.Command("/usr/bin/python3", "-c", script, port, dir)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "usr/lib/python3/dist-packages"))
	start(t, cmd)
	waitListening(t, "127.0.0.1:"+port)
	return port, dir
}

// kept answers the messages that a sink has put into a directory as files.
func kept(t *testing.T, dir string) (texts []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		texts = append(texts, string(text))
	}
	return texts
}

// sinkFiles is a sink of ours whose messages become files.
type sinkFiles struct{ addr, dir string }

func keepingSink(t *testing.T) sinkFiles {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := sinkFiles{dir: t.TempDir()}
	sink := bench.ServeSink(listener, bench.SinkOptions{KeepDir: s.dir})
	t.Cleanup(func() { sink.Close() })
	s.addr = sink.Addr()
	return s
}

// metric is a number that an edge shows of itself: the sum over the labels of a name, 0 where it has none.
func (e *edgeProcess) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	reply, err := http.Get("http://" + e.admin + "/metrics")
	must(t, err)
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		label, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if label, _, _ = strings.Cut(label, "{"); label == name {
			n, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
			must(t, err)
			sum += n
		}
	}
	return sum
}

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exim is an Exim of its own: Debian's package does not go with Postfix's, so it is unpacked and sees an /etc/passwd of its own.
type exim struct {
	*apart
	binary, library string
	port            string
}

// startExim starts Exim with extra lines for the main part of its configuration. Without routes, host:port by domain, it keeps
// what it takes; with some it hands on as a customer's mail server does.
func startExim(t *testing.T, routes map[string]string, main ...string) *exim {
	t.Helper()
	dir := openDir(t, "exim")
	e := &exim{apart: newApart(t, dir, "Debian-exim"), port: freePort(t)}
	root := unpacked(t, "exim4-daemon-light", "exim4-base", "libidn12")
	e.binary, e.library = filepath.Join(root, "usr/sbin/exim4"), filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	must(t, os.Mkdir(filepath.Join(dir, "spool"), 0o755))
	must(t, os.Chown(filepath.Join(dir, "spool"), 130, 130))
	config := append([]string{
		"primary_hostname = exim.example",
		"exim_path = " + e.binary,
		"spool_directory = " + dir + "/spool",
		"log_file_path = " + dir + "/spool/%slog",
		"acl_smtp_mail = accept",
		"acl_smtp_rcpt = accept",
		"acl_smtp_data = accept",
		"host_lookup =",
		"rfc1413_query_timeout = 0s",
		"keep_environment = LD_LIBRARY_PATH",
		"local_interfaces = 127.0.0.1",
		"daemon_smtp_ports = " + e.port,
		"smtp_accept_max = 50",
		"never_users =",
		"untrusted_set_sender = *",
	}, main...)
	mode := []string{"-bdf"}
	if len(routes) == 0 {
		config = append(config, "queue_only = true")
	} else {
		mode = append(mode, "-q1s")
		config = append(config, eximRoutes(routes)...)
	}
	must(t, os.WriteFile(filepath.Join(dir, "exim.conf"), []byte(strings.Join(config, "\n")+"\n"), 0o644))
	start(t, e.exim(mode...))
	waitListening(t, e.addr())
	return e
}

func eximRoutes(routes map[string]string) []string {
	routers, transports := []string{"begin routers"}, []string{"begin transports"}
	for domain, smarthost := range routes {
		name := "to_" + strings.ReplaceAll(domain, ".", "_")
		host, port, _ := strings.Cut(smarthost, ":")
		routers = append(routers, name+":", "driver = manualroute", "transport = "+name, "self = send", "route_list = "+domain+" "+host)
		transports = append(transports, name+":", "driver = smtp", "port = "+port, "allow_localhost = true", "message_linelength_limit = 100000")
	}
	return append(append(routers, transports...), "begin retry", "* * F,1h,1s")
}

// exim is the program with its configuration.
func (e *exim) exim(args ...string) *exec.Cmd {
	cmd := e.command(e.binary, append([]string{"-C", filepath.Join(e.dir, "exim.conf")}, args...)...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+e.library)
	return cmd
}

func (e *exim) addr() string { return "127.0.0.1:" + e.port }

// submit hands a message to Exim as a local program would.
func (e *exim) submit(t *testing.T, from, to string, message []byte) {
	t.Helper()
	cmd := e.exim("-i", "-f", from, to)
	cmd.Stdin = bytes.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("exim: %v\n%s", err, out)
	}
}

// log answers what Exim has logged so far.
func (e *exim) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e.dir, "spool/mainlog"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

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

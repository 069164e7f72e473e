package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"activerelay/cli"
	"activerelay/relayd"
	"activerelay/server"
)

// programVariable makes the test binary be one of the three programs, so that the tests need no build step, count coverage
// and run them under the race detector.
const programVariable = "ACTIVERELAY_E2E_PROGRAM"

func TestMain(m *testing.M) {
	program := os.Getenv(programVariable)
	if program == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv(programVariable)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch program {
	case "relay-server":
		os.Exit(server.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	case "relayd":
		os.Exit(relayd.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	case "relayctl":
		os.Exit(cli.Main(ctx, os.Args[1:], cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}))
	}
	fmt.Fprintf(os.Stderr, "no program %q\n", program)
	os.Exit(2)
}

// process is one of the programs as a process of its own, which can be killed and started again.
type process struct {
	t       *testing.T
	program string
	args    []string
	env     []string
	// wrap is a program with its arguments that starts the process, as prlimit does; empty = none.
	wrap []string

	mu  sync.Mutex
	cmd *exec.Cmd
	out lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), programVariable+"="+program)
	return cmd
}

func launch(t *testing.T, program string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, program: program, args: args, env: env}
	p.launch()
	return p
}

// launch starts the process, which ends with the test.
func (p *process) launch() {
	p.t.Helper()
	p.start()
	p.t.Cleanup(func() {
		p.kill()
		if p.t.Failed() {
			p.t.Logf("%s printed:\n%s", p.program, tail(p.out.String(), 8000))
		}
	})
}

func (p *process) start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = command(p.program, p.args...)
	if len(p.wrap) > 0 {
		p.cmd.Path, p.cmd.Args = need(p.t, p.wrap[0], p.wrap[0]), append(slices.Clone(p.wrap), p.cmd.Args...)
	}
	p.cmd.Env = append(p.cmd.Env, p.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	must(p.t, p.cmd.Start())
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func (p *process) pid() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strconv.Itoa(p.cmd.Process.Pid)
}

// stop asks the process to end and answers its exit code.
func (p *process) stop() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// stack is a control plane and its edges.
type stack struct {
	t      *testing.T
	dir    string
	url    string
	token  string
	server *process
	edges  []*edgeProcess
	// wrap is that of the edges that are added from now on.
	wrap []string
}

type edgeProcess struct {
	*process
	relay, admin string
	dir          string
}

// newStack starts a control plane on the embedded default and waits until it is ready.
func newStack(t *testing.T, args ...string) *stack {
	t.Helper()
	s := &stack{t: t, dir: t.TempDir()}
	listen := "127.0.0.1:" + freePort(t)
	s.url = "http://" + listen
	data := filepath.Join(s.dir, "server")
	s.server = launch(t, "relay-server", nil, append([]string{"--listen", listen, "--data-dir", data}, args...)...)
	s.waitReady(s.url + "/readyz")
	token, err := os.ReadFile(filepath.Join(data, "operator.token"))
	must(t, err)
	s.token = strings.TrimSpace(string(token))
	return s
}

// replica starts another control plane on the same database, with the key of the first.
func (s *stack) replica(database string) *stack {
	s.t.Helper()
	listen := "127.0.0.1:" + freePort(s.t)
	second := &stack{t: s.t, dir: s.dir, url: "http://" + listen, token: s.token}
	second.server = launch(s.t, "relay-server", nil, "--listen", listen, "--data-dir", filepath.Join(s.dir, "replica"), "--database", database,
		"--secrets-key-file", filepath.Join(s.dir, "server", "secrets.key"))
	s.waitReady(second.url + "/readyz")
	return second
}

// addEdge joins an edge and waits until it has its first policy.
func (s *stack) addEdge(args ...string) *edgeProcess {
	s.t.Helper()
	var join struct {
		Token string `json:"token"`
	}
	s.ctlJSON(&join, "join-token", "create")
	name := fmt.Sprintf("edge%d", len(s.edges)+1)
	e := &edgeProcess{relay: "127.0.0.1:" + freePort(s.t), admin: "127.0.0.1:" + freePort(s.t), dir: filepath.Join(s.dir, name)}
	e.process = &process{t: s.t, program: "relayd", env: []string{"RELAYD_JOIN_TOKEN=" + join.Token}, wrap: s.wrap, args: append([]string{
		"--server", s.url, "--data-dir", e.dir, "--name", name, "--listen", e.relay, "--admin-listen", e.admin, "--hostname", name + ".relay.example",
	}, args...)}
	e.launch()
	s.edges = append(s.edges, e)
	s.waitJoined(e.admin)
	return e
}

// waitJoined waits until an edge listens and has its first policy. It need not be ready: many tests allow mail that no
// scanner has seen only later.
func (s *stack) waitJoined(admin string) {
	s.t.Helper()
	eventually(s.t, "an edge with a policy, at "+admin, func() bool {
		reply, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer reply.Body.Close()
		var report struct {
			Checks []struct{ Name, Status string }
		}
		if err := json.NewDecoder(reply.Body).Decode(&report); err != nil {
			return false
		}
		holds := map[string]bool{}
		for _, c := range report.Checks {
			holds[c.Name] = c.Status == "ok"
		}
		return holds["listener"] && holds["policy"]
	})
}

func (s *stack) waitReady(url string) {
	s.t.Helper()
	eventually(s.t, "readiness of "+url, func() bool {
		reply, err := http.Get(url)
		if err != nil {
			return false
		}
		defer reply.Body.Close()
		_, _ = io.Copy(io.Discard, reply.Body)
		return reply.StatusCode == http.StatusOK
	})
}

// ctl runs relayctl as the operator and answers what it printed; it must succeed.
func (s *stack) ctl(args ...string) string {
	s.t.Helper()
	out, errs, code := s.ctlExit(args...)
	if code != 0 {
		s.t.Fatalf("relayctl %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func (s *stack) ctlExit(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := command("relayctl", args...)
	cmd.Env = append(cmd.Env, "RELAYCTL_URL="+s.url, "RELAYCTL_TOKEN="+s.token, "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (s *stack) ctlJSON(into any, args ...string) {
	s.t.Helper()
	out := s.ctl(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		s.t.Fatalf("relayctl %s: %v in\n%s", strings.Join(args, " "), err, out)
	}
}

// seed registers partner acme with example.com, reachable from 127.0.0.1, and sends all its mail to the sink.
func (s *stack) seed(sink string) {
	s.t.Helper()
	host, port, _ := strings.Cut(sink, ":")
	s.ctl("settings", "update", "--allow-unscanned=true", "--relay-ip-activation", "automatic", "--allow-target-networks", "127.0.0.0/8")
	s.ctl("partner", "put", "acme", "--name", "Acme IT", "--support-contact", "support@acme.example")
	s.ctl("domain", "put", "example.com", "--partner", "acme", "--time-zone", "Europe/Berlin", "--contacts", "admin@example.com")
	s.ctl("relay-ip", "request", "--domain", "example.com", "--address", "127.0.0.1")
	s.ctl("route", "create", "--domain", "example.com", "--host", host, "--port", port, "--tls", "none")
	s.synced()
}

// synced waits until every edge enforces the newest policy that the control plane has.
func (s *stack) synced() {
	s.t.Helper()
	eventually(s.t, "edges that enforce the newest policy", func() bool {
		var edges struct {
			Items []struct {
				Status           string `json:"status"`
				EnforcedRevision int64  `json:"enforced_revision"`
			} `json:"items"`
		}
		s.ctlJSON(&edges, "edge", "list")
		newest := s.revision()
		for _, e := range edges.Items {
			if e.Status == "active" && e.EnforcedRevision < newest {
				return false
			}
		}
		return true
	})
}

// revision reads the newest revision from the metrics of the control plane.
func (s *stack) revision() int64 {
	s.t.Helper()
	reply, err := http.Get(s.url + "/metrics")
	must(s.t, err)
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	must(s.t, err)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, "relay_server_policy_revision "); ok {
			var revision float64
			_, err := fmt.Sscan(value, &revision)
			must(s.t, err)
			return int64(revision)
		}
	}
	s.t.Fatal("the control plane has no metric relay_server_policy_revision")
	return 0
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/server"
	"activerelay/server/internal/store/storetest/pgtest"
	"activerelay/server/servertest"
)

// programVariable makes the test binary be relay-server, so that a test can kill it.
const programVariable = "ACTIVERELAY_SERVER_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(server.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// process runs relay-server as a process of its own until it accepts requests.
func process(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	var log logBuffer
	cmd := exec.CommandContext(t.Context(), os.Args[0], "--listen", "127.0.0.1:0", "--data-dir", dir)
	cmd.Env, cmd.Stderr = append(os.Environ(), programVariable+"=1"), &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "a process that listens", func() bool { return strings.Contains(log.String(), "msg=listening") })
	return cmd
}

// world is a control plane with a domain and two edges.
type world struct {
	dir, backup string
	operator    string // token
	edges       [2]string
	sequence    int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root := t.TempDir()
	w := &world{dir: filepath.Join(root, "data"), backup: filepath.Join(root, "backup")}
	must(t, os.Mkdir(w.dir, 0o700))
	s := servertest.Start(t, servertest.Config{DataDir: w.dir})
	w.operator = s.Token
	_, err := s.Client().PutPartnerWithResponse(t.Context(), "acme", nil, api.PartnerPut{Name: "Acme"})
	must(t, err)
	_, err = s.Client().PutDomainWithResponse(t.Context(), "example.com", nil, api.DomainPut{Partner: new("acme"), Contacts: []string{"a@example.com"}})
	must(t, err)
	for i := range w.edges {
		token, err := s.Client().CreateJoinTokenWithResponse(t.Context(), nil, api.JoinTokenCreate{})
		must(t, err)
		joined, err := s.ClientAs(token.JSON201.Token).JoinEdgeWithResponse(t.Context(), nil, api.EdgeJoin{
			CapabilityVersion: 1, Name: "edge", PublicKey: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", Version: "test",
			JoinToken: &token.JSON201.Token,
		})
		must(t, err)
		w.edges[i] = joined.JSON201.Credential
		w.call(t, s, i, true) // each has said once that it holds nothing
	}
	s.Stop()
	return w
}

// call is one lease call of an edge, and what was granted.
func (w *world) call(t *testing.T, s *servertest.Server, edge int, complete bool, reports ...api.LeaseReport) *api.LeaseReply {
	t.Helper()
	w.sequence++
	if reports == nil {
		reports = []api.LeaseReport{}
	}
	reply, err := edgeClient(s, w.edges[edge]).LeaseQuotaWithResponse(t.Context(), api.LeaseCall{
		BootNonce: "0123456789abcdef", Generation: 1, Sequence: w.sequence, Complete: &complete, Leases: reports,
	})
	must(t, err)
	return reply.JSON200
}

func edgeClient(s *servertest.Server, credential string) *client.ClientWithResponses {
	return s.ClientAs(credential)
}

// use lets the first edge take, and spend, nearly all of the day.
func (w *world) use(t *testing.T) (held api.LeaseReport) {
	t.Helper()
	s := servertest.Start(t, servertest.Config{DataDir: w.dir})
	defer s.Stop()
	held = api.LeaseReport{Domain: "example.com", Want: 999, AtLeast: new(int64(999))}
	grant := w.call(t, s, 0, true, held).Leases[0]
	if grant.Granted == nil || *grant.Granted != 999 {
		t.Fatalf("the first edge is granted %+v", grant)
	}
	return api.LeaseReport{Domain: "example.com", DayStart: grant.DayStart, Granted: 999, Spent: 999}
}

func (w *world) copyDir(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput()
	if err != nil {
		t.Fatalf("cp -a %s %s: %v %s", from, to, err, out)
	}
}

func TestARestoredDirectoryGrantsNothingUntilEveryEdgeHasReported(t *testing.T) {
	for _, test := range []struct {
		name    string
		restore func(t *testing.T, w *world)
	}{
		{name: "copied in place of the other", restore: func(t *testing.T, w *world) {
			must(t, os.RemoveAll(w.dir))
			w.copyDir(t, w.backup, w.dir)
		}},
		{name: "copied over the other", restore: func(t *testing.T, w *world) { w.copyDir(t, w.backup+"/.", w.dir) }},
		{name: "renamed back", restore: func(t *testing.T, w *world) {
			must(t, os.Rename(w.dir, w.dir+".broken"))
			must(t, os.Rename(w.backup, w.dir))
		}},
		{name: "only the database copied", restore: func(t *testing.T, w *world) {
			w.copyDir(t, filepath.Join(w.backup, "relay.db"), w.dir)
		}},
		{name: "served where the backup is", restore: func(_ *testing.T, w *world) { w.dir = w.backup }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.copyDir(t, w.dir, w.backup)
			spent := w.use(t)
			test.restore(t, w)

			log := &logBuffer{}
			s := servertest.Start(t, servertest.Config{DataDir: w.dir, Configure: logTo(log, nil)})
			want := api.LeaseReport{Domain: "example.com", Want: 100}
			reply := w.call(t, s, 1, true, want)
			if reply.Learning == nil || !*reply.Learning || reply.Leases[0].Granted != nil && *reply.Leases[0].Granted != 0 {
				t.Fatalf("before the first edge has reported, the second is answered %+v", reply)
			}
			if !strings.Contains(log.String(), "a new epoch begins") {
				t.Errorf("the log does not say so:\n%s", log)
			}
			w.call(t, s, 0, true, spent)
			reply = w.call(t, s, 1, true, want)
			if reply.Learning != nil && *reply.Learning || reply.Leases[0].Granted == nil || *reply.Leases[0].Granted != 1 {
				t.Fatalf("afterwards it is answered %+v, want the one unit that is left", reply)
			}
		})
	}
}

func TestADumpThatIsRestoredIntoTheSameDatabaseBeginsANewEpoch(t *testing.T) {
	var postgres pgtest.Server
	must(t, postgres.Start())
	t.Cleanup(postgres.Stop)
	config := servertest.Config{Database: postgres.Database(t), DataDir: t.TempDir()}
	s := servertest.Start(t, config)
	_, first, _ := pull(t, join(t, s))
	s.Stop()
	again := servertest.Start(t, config)
	if _, epoch, _ := pull(t, join(t, again)); epoch != first {
		t.Errorf("a plain restart began epoch %s after %s", epoch, first)
	}
	again.Stop()
	dump, err := exec.CommandContext(t.Context(), "pg_dump", "--clean", "--if-exists", "--dbname", config.Database).Output()
	must(t, err)
	restore := exec.CommandContext(t.Context(), "psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", config.Database)
	restore.Stdin = bytes.NewReader(dump)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v %s", err, out)
	}
	if _, epoch, _ := pull(t, join(t, servertest.Start(t, config))); epoch == first {
		t.Error("the restored dump goes on in the epoch of before")
	}
}

// epoch is what an edge is told of the history.
func (w *world) epoch(t *testing.T) string {
	t.Helper()
	s := servertest.Start(t, servertest.Config{DataDir: w.dir})
	defer s.Stop()
	_, epoch, _ := pull(t, edgeClient(s, w.edges[0]))
	return epoch
}

func TestARestartBeginsNoNewEpochHoweverTheProcessEnded(t *testing.T) {
	w := newWorld(t)
	first := w.epoch(t)
	w.use(t)
	if got := w.epoch(t); got != first {
		t.Errorf("a plain restart began epoch %s after %s", got, first)
	}
	for range 2 {
		killed := process(t, w.dir)
		must(t, killed.Process.Kill())
		_ = killed.Wait()
		if got := w.epoch(t); got != first {
			t.Errorf("kill -9 began epoch %s after %s", got, first)
		}
	}
}

func TestASecondProcessOnOneSQLiteDatabaseIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	first := process(t, dir)
	took := time.Hour
	for tries := 0; tries < 5 && took > time.Second; tries++ { // the machine may have other work
		begin := time.Now()
		code, _, errs := program(t, "--listen", "127.0.0.1:0", "--data-dir", dir)
		took = time.Since(begin)
		if code != 1 || !strings.Contains(errs, "(process ") ||
			!strings.Contains(errs, "serves "+filepath.Join(dir, "relay.db")+" already; several replicas need PostgreSQL") {
			t.Fatalf("the second one ended with %d: %s", code, errs)
		}
	}
	if took > time.Second {
		t.Errorf("the second one ended after %v, want 1 s at most", took)
	}
	if code, out, errs := program(t, "migrate", "status", "--data-dir", dir); code != 0 || strings.Contains(out, "pending") {
		t.Fatalf("migrate status beside it: %d %s%s", code, out, errs)
	}
	must(t, first.Process.Kill())
	_ = first.Wait()
	servertest.Start(t, servertest.Config{DataDir: dir, Configure: func(c *server.Config) { c.Log = slog.New(slog.DiscardHandler) }}).Stop()
}

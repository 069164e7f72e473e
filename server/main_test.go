package server_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/migrations"
	"activerelay/server"
	"activerelay/server/servertest"

	_ "modernc.org/sqlite" // registers the driver "sqlite" that looks into databases
)

func reference() string { return server.Reference() }

// logBuffer takes a log while a test reads it.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func logTo(log *logBuffer, proxies []string) func(*server.Config) {
	return func(c *server.Config) {
		c.Log, c.TrustedProxies = slog.New(slog.NewTextHandler(log, nil)), proxies
	}
}

// quiet is a configuration with a data directory that logs nothing and listens on a free port.
func quiet(dir string) server.Config {
	config := server.DefaultConfig()
	config.Listen, config.DataDir, config.Log = "127.0.0.1:0", dir, slog.New(slog.DiscardHandler)
	return config
}

// run starts a control plane that is expected not to serve; one that does is ended at once.
func run(t *testing.T, dir string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	config := quiet(dir)
	config.Listening = func(net.Addr) { cancel() }
	return server.Run(ctx, config)
}

// program runs relay-server with arguments and answers what it printed.
func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return programWith(t, func(string) string { return "" }, args...)
}

func programWith(t *testing.T, getenv func(string) string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = server.Main(t.Context(), args, getenv, &out, &errs)
	return code, out.String(), errs.String()
}

func TestMigrateSaysWhatIsPendingAndAppliesIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	code, out, errs := program(t, "migrate", "status", "--data-dir", dir)
	if _, err := os.Stat(dir); code != 1 || !strings.Contains(errs, "there is no database at "+dir) || !os.IsNotExist(err) {
		t.Fatalf("status where nothing is: %d, directory %v\n%s%s", code, err, out, errs)
	}
	config := quiet(dir)
	config.MigrateAtStart = false
	if err := server.Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), "run relay-server migrate up") {
		t.Fatalf("a start without migrating ended with %v", err)
	}
	code, out, errs = program(t, "migrate", "status", "--data-dir", dir)
	if code != 0 || !strings.Contains(out, "00001_init.sql") || !strings.Contains(out, "pending") {
		t.Fatalf("status of an empty database: %d\n%s%s", code, out, errs)
	}
	code, out, errs = program(t, "migrate", "up", "--data-dir", dir)
	if code != 0 || !strings.Contains(out, "applied 00001_init.sql") {
		t.Fatalf("up: %d\n%s%s", code, out, errs)
	}
	code, out, errs = program(t, "migrate", "status", "--data-dir", dir)
	if code != 0 || strings.Contains(out, "pending") || !strings.Contains(out, time.Now().UTC().Format("2006-")) {
		t.Fatalf("status afterwards: %d\n%s%s", code, out, errs)
	}
	code, out, _ = program(t, "migrate", "up", "--data-dir", dir)
	if code != 0 || !strings.Contains(out, "already") {
		t.Fatalf("up again: %d\n%s", code, out)
	}
	servertest.Start(t, servertest.Config{DataDir: dir, Configure: func(c *server.Config) { c.MigrateAtStart = false }})
}

func TestADatabaseOfANewerProgramIsRefused(t *testing.T) {
	dir := t.TempDir()
	servertest.Start(t, servertest.Config{DataDir: dir}).Stop()
	db, err := sql.Open("sqlite", filepath.Join(dir, "relay.db"))
	must(t, err)
	_, err = db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, TRUE)")
	must(t, err)
	must(t, db.Close())
	for name, migrate := range map[string]bool{"with migrations": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			config := quiet(dir)
			config.MigrateAtStart = migrate
			if err := server.Run(t.Context(), config); !errors.Is(err, migrations.ErrNewer) {
				t.Fatalf("got %v", err)
			}
		})
	}
	if code, _, errs := program(t, "migrate", "status", "--data-dir", dir); code != 1 || !strings.Contains(errs, "newer than this program") {
		t.Fatalf("status: %d %s", code, errs)
	}
}

func TestPlaintextOffLoopbackNeedsTheFlag(t *testing.T) {
	pair := newCertificateFiles(t)
	for _, test := range []struct {
		args []string
		code int
	}{
		{args: []string{"--listen", "0.0.0.0:8080"}, code: 2},
		{args: []string{"--listen", ":8080"}, code: 2},
		{args: []string{"--listen", "[::]:8080"}, code: 2},
		{args: []string{"--listen", "relay.example.com:8080"}, code: 2},
		{args: []string{"--listen", "0.0.0.0:8080", "--allow-plaintext"}, code: 0},
		{args: []string{"--listen", "0.0.0.0:8080", "--tls-cert", pair.cert, "--tls-key", pair.key}, code: 0},
		{args: []string{"--listen", "127.0.0.2:8080"}, code: 0},
		{args: []string{"--listen", "[::1]:8080"}, code: 0},
		{args: []string{"--listen", "localhost:8080"}, code: 0},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			code, _, errs := program(t, append(test.args, "--check-config")...)
			if code != test.code || code != 0 && !strings.Contains(errs, "allow-plaintext") {
				t.Fatalf("exit %d, want %d: %s", code, test.code, errs)
			}
		})
	}
	config := quiet(t.TempDir())
	config.Listen = "0.0.0.0:0"
	if err := server.Run(t.Context(), config); err == nil {
		t.Fatal("it serves in the clear")
	}
}

func TestAMistakeInTheSettingsIsNamedWithItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay-server.yaml")
	for _, test := range []struct {
		name, yaml, want string
		args             []string
	}{
		{name: "unknown key", yaml: "listen: 127.0.0.1:1\nlistn: x\n", want: path + `:2: unknown key "listn"; known keys are `},
		{name: "no choice", yaml: "log-level: loud\n", want: path + `:1: log-level: "loud": choices are debug, info, warn, error`},
		{name: "no number", yaml: "\nrequests-per-second: many\n", want: path + `:2: requests-per-second: "many"`},
		{name: "a rate in words", yaml: "requests-per-second: many\n", want: `requests-per-second: "many": want a number`},
		{name: "no port", yaml: "listen: 127.0.0.1:99999\n", want: `listen: "127.0.0.1:99999": "99999" is no port; want 0 to 65535`},
		{name: "no certificate", yaml: "tls-cert: /no/c.pem\ntls-key: /no/k.pem\n", want: "tls-cert and tls-key: certificate: stat /no/c.pem"},
		{name: "no key", yaml: "secrets-key-file: /no/secrets.key\n", want: "secrets-key-file: stat /no/secrets.key"},
		{name: "half a certificate", yaml: "tls-cert: c.pem\n", want: "tls-cert and tls-key"},
		{name: "no address", yaml: "listen: here\n", want: `listen: "here" is no address`},
		{name: "no network", yaml: "trusted-proxies: [10.0.0.0/8, proxy]\n", want: `trusted-proxies: "proxy" is no network`},
		{name: "no database", yaml: "database: mysql://root:hunter2@db/relay\n", want: "database: want sqlite:PATH or postgres://"},
		{name: "no rate", yaml: "requests-per-second: 0\n", want: "requests-per-second: 0 is too few"},
		{name: "unknown command", args: []string{"migrate", "down"}, want: `unknown command "migrate down"`},
		{name: "unknown flag", args: []string{"--listne", "x"}, want: "--listne"},
	} {
		t.Run(test.name, func(t *testing.T) {
			must(t, os.WriteFile(path, []byte(test.yaml), 0o600))
			code, _, errs := program(t, append(test.args, "--config", path)...)
			if code != 2 || !strings.Contains(errs, test.want) || strings.Contains(errs, "hunter2") {
				t.Fatalf("exit %d, want 2 and %s; got\n%s", code, test.want, errs)
			}
		})
	}
}

func TestAStartThatCannotServeLeavesNothingBehind(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	for _, test := range []struct {
		name string
		args []string
		code int
	}{
		{name: "no port", args: []string{"--listen", "127.0.0.1:99999"}, code: 2},
		{name: "no key", args: []string{"--listen", "127.0.0.1:0", "--secrets-key-file", "/no/secrets.key"}, code: 2},
		{name: "address in use", args: []string{"--listen", taken.Addr().String()}, code: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			code, _, errs := program(t, append(test.args, "--data-dir", dir)...)
			if _, err := os.Stat(dir); code != test.code || !os.IsNotExist(err) {
				t.Fatalf("exit %d, want %d; directory: %v; %s", code, test.code, err, errs)
			}
		})
	}
}

func TestWhoOnlyMigratesNeedsNoFilesOfServing(t *testing.T) {
	code, _, errs := program(t, "migrate", "up", "--data-dir", t.TempDir(), "--tls-cert", "/no/c.pem", "--tls-key", "/no/k.pem", "--secrets-key-file", "/no/key")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
}

func TestEverySettingMayComeFromTheEnvironment(t *testing.T) {
	env := map[string]string{"RELAY_SERVER_LISTEN": "0.0.0.0:1"}
	code, _, errs := programWith(t, func(name string) string { return env[name] }, "--check-config")
	if code != 2 || !strings.Contains(errs, `"0.0.0.0:1"`) {
		t.Fatalf("exit %d: %s", code, errs)
	}
}

func TestVersionAndHelpGoToStandardOutput(t *testing.T) {
	if code, out, _ := program(t, "--version"); code != 0 || !strings.HasPrefix(out, "relay-server ") {
		t.Fatalf("version: %d %q", code, out)
	}
	if code, out, _ := program(t, "--help"); code != 0 || !strings.Contains(out, "migrate up") || !strings.Contains(out, "--tls-cert") {
		t.Fatalf("help: %d %q", code, out)
	}
	var out bytes.Buffer
	server.Program{Version: "v1.2.3"}.Main(t.Context(), []string{"--version"}, func(string) string { return "" }, &out, &out)
	if out.String() != "relay-server v1.2.3\n" {
		t.Fatalf("got %q", out.String())
	}
}

func TestGarbageIsCollectedLessOftenUnlessTheEnvironmentSaysHowOften(t *testing.T) {
	was := debug.SetGCPercent(70)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	for _, test := range []struct {
		gogc string
		want int
	}{{gogc: "70", want: 70}, {gogc: "", want: server.GCPercent}} {
		env := map[string]string{"GOGC": test.gogc}
		code, _, errs := programWith(t, func(name string) string { return env[name] }, "migrate", "up", "--data-dir", t.TempDir())
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		if got := debug.SetGCPercent(70); got != test.want {
			t.Errorf("GOGC=%q: collected at %d %%, want %d", test.gogc, got, test.want)
		}
	}
}

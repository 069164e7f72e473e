package relayd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"activerelay/relayd"
)

// program runs relayd to its end and answers what it printed.
func program(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = relayd.Program{Version: "1.2.3"}.Main(t.Context(), args, func(name string) string { return env[name] }, &out, &errs)
	return code, out.String(), errs.String()
}

func TestABadSettingIsNamedWithWhatIsPossible(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relayd.yaml")
	if err := os.WriteFile(file, []byte("listen: 0.0.0.0:25\nlistne: 0.0.0.0:26\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{name: "an address without a port", args: []string{"--listen", "0.0.0.0"}, want: `listen: "0.0.0.0" is no address; want HOST:PORT`},
		{name: "an address with a port that is none", args: []string{"--admin-listen", "127.0.0.1:99999"}, want: `admin-listen: "127.0.0.1:99999": "99999" is no port`},
		{name: "a server that is no URL", args: []string{"--server", "foo"}, want: `server: control plane URL "foo": want https://HOST[:PORT]`},
		{name: "a server in the clear", args: []string{"--server", "http://relay.example.com"}, want: `server: control plane URL "http://relay.example.com": plain HTTP is for loopback only`},
		{name: "a server at no port", args: []string{"--server", "https://relay.example.com:99999"}, want: `server: control plane URL "https://relay.example.com:99999": 99999 is no port`},
		{name: "no authorities", args: []string{"--ca-file", "/no/ca.pem"}, want: "ca-file: open /no/ca.pem"},
		{name: "no certificate", args: []string{"--tls-cert", "/no/c.pem", "--tls-key", "/no/k.pem"}, want: "tls-cert and tls-key: certificate: stat /no/c.pem"},
		{name: "a name that is none", args: []string{"--hostname", "edge 1"}, want: `hostname: "edge 1" is no host name; want e.g. edge1.relay.example.com`},
		{name: "a number in words", args: []string{"--max-connections", "many"}, want: `--max-connections: "many": want a whole number`},
		{name: "submission without a certificate", args: []string{"--submission-listen", "0.0.0.0:587"}, want: "set tls-cert and tls-key"},
		{name: "half a pair", args: []string{"--tls-cert", "c.pem"}, want: "one is useless without the other"},
		{name: "no listener", args: []string{"--listen", ""}, want: "are all empty"},
		{name: "a resolver by name", args: []string{"--resolver", "dns.example"}, want: `resolver: "dns.example" is no address and port`},
		{name: "a source that is no address", args: []string{"--source-address", "out4.relay.example.com"}, want: `source-address: "out4.relay.example.com" is no source address; want ADDRESS or ADDRESS=HOSTNAME`},
		{name: "a source that is not here", args: []string{"--source-address", "192.0.2.25=out4.relay.example.com"}, want: "source-address: mail cannot leave from 192.0.2.25, which this host does not have"},
		{name: "a source with a bad name", args: []string{"--source-address", "127.0.0.1=out 4"}, want: `source-address: "127.0.0.1=out 4": `},
		{name: "a scanner without a port", args: []string{"--clamd", "scanner"}, want: "want unix:/run/clamav/clamd.ctl or HOST:PORT"},
		{name: "a memory before now", args: []string{"--tls-memory", "-1h"}, want: "tls-memory: -1h0m0s is in the past"},
		{name: "a destination that is no domain", args: []string{"--allow-plain-text", "a@b"}, want: `allow-plain-text: "a@b" is no domain`},
		{name: "a proxy by name", args: []string{"--proxy-peers", "192.0.2.1,lb.example"}, want: `proxy-peers: "lb.example" is no address or network; want e.g. 192.0.2.10 or 192.0.2.0/24`},
		{name: "a network with bits of a host", args: []string{"--proxy-peers", "192.0.2.1/24"}, want: `proxy-peers: "192.0.2.1/24" has bits beyond its length; want 192.0.2.0/24`},
		{name: "everybody as a proxy", args: []string{"--proxy-peers", "::/0"}, want: `proxy-peers: "::/0" would believe everybody`},
		{name: "no connections for a partner", args: []string{"--max-connections-per-partner", "0"}, want: "max-connections-per-partner: 0 is too few; want at least 1"},
		{name: "no connections", args: []string{"--max-connections", "0"}, want: "want at least 1"},
		{name: "a level by environment", env: map[string]string{"RELAYD_LOG_LEVEL": "loud"}, want: "choices are debug, info, warn, error"},
		{name: "a typing error in the file", args: []string{"--config", file}, want: file + `:2: unknown key "listne"`},
		{name: "an unknown command", args: []string{"leave"}, want: `unknown command "leave"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := program(t, test.env, append(test.args, "--check-config")...)
			if code != 2 || !strings.Contains(stderr, test.want) {
				t.Errorf("exit %d, want 2 and %q:\n%s", code, test.want, stderr)
			}
		})
	}
}

func TestSettingsComeFromFlagEnvironmentAndFileAlike(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relayd.yaml")
	if err := os.WriteFile(file, []byte("resolver: [127.0.0.1:53, '[::1]:53']\nclamd: unix:/run/clamav/clamd.ctl\nproxy-peers: [192.0.2.1, '2001:db8::/64']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := program(t, map[string]string{"RELAYD_TLS_LISTEN": ""}, "--config", file, "--check-config")
	if code != 0 || stdout != "the settings are good\n" {
		t.Errorf("exit %d, printed %q and %q", code, stdout, stderr)
	}
}

func TestWhatAHostMayCallItselfIsAccepted(t *testing.T) {
	for _, name := range []string{"vm", "edge1.relay.example.com", "Edge1.Example.COM.", "bücher.example", "xn--bcher-kva.example"} {
		if code, _, stderr := program(t, nil, "--hostname", name, "--check-config"); code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, stderr)
		}
	}
}

func TestTheJoinTokenIsNotShownInAMistake(t *testing.T) {
	_, stdout, stderr := program(t, map[string]string{"RELAYD_JOIN_TOKEN": "rly_join_topsecret", "RELAYD_LISTEN": "nowhere"})
	if strings.Contains(stdout+stderr, "topsecret") {
		t.Errorf("printed %q and %q", stdout, stderr)
	}
}

func TestVersionAndHelpNeedNothing(t *testing.T) {
	if code, stdout, _ := program(t, nil, "--version"); code != 0 || stdout != "relayd 1.2.3\n" {
		t.Errorf("version: exit %d, printed %q", code, stdout)
	}
	code, stdout, _ := program(t, nil, "--help")
	if code != 0 {
		t.Errorf("help: exit %d", code)
	}
	for _, flag := range []string{
		"--server", "--join-token", "--data-dir", "--listen", "--submission-listen", "--tls-listen", "--resolver", "--clamd",
		"--admin-listen", "--config",
	} {
		if !strings.Contains(stdout, flag+" ") {
			t.Errorf("help lacks %s", flag)
		}
	}
}

func TestTheReadmeHoldsTheReferenceOfTheSettings(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), relayd.Reference()) {
		t.Errorf("README.md is out of date; its reference must be\n%s", relayd.Reference())
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProcessorsAreSparedForTheDiskAndTheNetworkUnlessTheEnvironmentSaysHowMany(t *testing.T) {
	const told = 7 // what Go made of the environment
	runtime.SetDefaultGOMAXPROCS()
	machine := runtime.GOMAXPROCS(told)
	t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	for env, want := range map[string]int{"7": told, "": machine + relayd.SpareProcessors} {
		runtime.GOMAXPROCS(told)
		for range 2 { // the second start counts from what the machine has, too
			if code, _, errs := program(t, map[string]string{"GOMAXPROCS": env}, "join", "--server", "http://127.0.0.1:1", "--data-dir", t.TempDir()); code == 0 {
				t.Fatalf("joined nobody: %s", errs)
			}
			if got := runtime.GOMAXPROCS(0); got != want {
				t.Errorf("GOMAXPROCS=%q: %d processors, want %d", env, got, want)
			}
		}
	}
}

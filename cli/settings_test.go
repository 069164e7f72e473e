package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlagsEnvironmentAndFileInThatOrder(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "domain", "put", "a.example", "--partner", "acme").expect(t, 0)
	if err := os.MkdirAll(filepath.Dir(d.config()), 0o700); err != nil {
		t.Fatal(err)
	}
	file := "output: jsonl\ncommands:\n  domain list:\n    columns: x\n"
	write := func(text string) {
		if err := os.WriteFile(d.config(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file)
	d.run(t, "domain", "list").expect(t, 2, ":4: unknown key \"columns\"", "status")

	write("output: jsonl\ncommands:\n  domain list:\n    page-token: a.example\n")
	if got := d.run(t, "domain", "list").expect(t, 0); got.stdout != "" {
		t.Errorf("page-token of the file does not count: %s", got.stdout)
	}
	d.env["RELAYCTL_DOMAIN_LIST_PAGE_TOKEN"] = "a"
	if got := d.run(t, "domain", "list").expect(t, 0); !strings.HasPrefix(got.stdout, `{"name":"a.example"`) {
		t.Errorf("the environment does not win over the file: %s", got.stdout)
	}
	d.env["RELAYCTL_OUTPUT"] = "csv"
	d.env["RELAYCTL_NO_HEADERS"] = "true"
	d.env["RELAYCTL_COLUMNS"] = "name,partner"
	if got := d.run(t, "domain", "list").expect(t, 0); got.stdout != "a.example,acme\n" {
		t.Errorf("the environment does not win over the file: %s", got.stdout)
	}
	if got := d.run(t, "domain", "list", "--columns", "partner", "--no-headers=false").expect(t, 0); got.stdout != "partner\nacme\n" {
		t.Errorf("flags do not win over the environment: %s", got.stdout)
	}
	d.env["RELAYCTL_OUTPUT"] = "xml"
	d.run(t, "domain", "list").expect(t, 2, "relayctl: RELAYCTL_OUTPUT takes one of table,")
	delete(d.env, "RELAYCTL_OUTPUT")
	write("color: auto\noutput: xml\n")
	d.run(t, "domain", "list").expect(t, 2, "relayctl: "+d.config()+":2: output takes one of table,")
	d.run(t, "domain", "list", "-o", "xml").expect(t, 2, "relayctl: --output takes one of table,")
	write("commands:\n  domain list:\n    status: dead\n")
	d.run(t, "domain", "list").expect(t, 2, "relayctl: "+d.config()+":3: status takes one of active, suspended")
	write("")
	d.env["RELAYCTL_MAX_ITEMS"] = "few"
	d.run(t, "domain", "list").expect(t, 2, "RELAYCTL_MAX_ITEMS")
	delete(d.env, "RELAYCTL_MAX_ITEMS")

	write("outptu: json\n")
	d.run(t, "domain", "list").expect(t, 2, d.config()+`:1: unknown key "outptu"`, "output", "contexts")
	write("commands:\n  domian list: {}\n")
	d.run(t, "domain", "list").expect(t, 2, `:2: no command "domian list"`)
}

func TestAFileThatIsNamedMustExist(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	missing := filepath.Join(t.TempDir(), "nope")
	d.run(t, "domain", "list", "--config", missing).expect(t, 2, "--config: there is no file "+missing)
	d.run(t, "domain", "list", "--token-file", missing).expect(t, 2, "--token-file: open "+missing)
	d.run(t, "login", "--config", missing).expect(t, 0) // makes it
	d.run(t, "domain", "list", "--config", missing).expect(t, 0)
	d.env["RELAYCTL_CONFIG"] = missing + "2"
	d.run(t, "domain", "list").expect(t, 2, "RELAYCTL_CONFIG: there is no file "+missing+"2")
	delete(d.env, "RELAYCTL_CONFIG")
	delete(d.env, "RELAYCTL_TOKEN")
	d.env["RELAYCTL_TOKEN_FILE"] = missing + "3"
	d.run(t, "domain", "list").expect(t, 2, "RELAYCTL_TOKEN_FILE: open "+missing+"3")
}

func TestLoginStoresWhatTheServerTook(t *testing.T) {
	p := newPlatform(t)
	d := newDesk(t)
	d.stdin = operatorToken + "\n"
	got := d.run(t, "login", "--url", p.URL, "--token", "-").expect(t, 0, "Context default stored")
	if !strings.Contains(got.stdout, "operator") || strings.Contains(got.stdout+got.stderr, operatorToken) {
		t.Errorf("login says:\n%s%s", got.stdout, got.stderr)
	}
	info, err := os.Stat(d.config())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v, want 0600", info.Mode(), err)
	}
	d.run(t, "whoami").expect(t, 0)

	d.stdin = "rly_wrong"
	d.run(t, "login", "--url", p.URL, "--context", "second", "--token", "-").expect(t, 4)
	if got := d.run(t, "context", "list", "-o", "csv").expect(t, 0); strings.Contains(got.stdout, "second") {
		t.Errorf("a token that was refused is stored:\n%s", got.stdout)
	}

	d.tty, d.secret = true, operatorToken
	d.run(t, "login", "--url", p.URL, "--context", "second").expect(t, 0)
	d.tty = false
	d.run(t, "login", "--url", p.URL).expect(t, 2, "--token-file")

	want := "name,url,in_use,token\ndefault," + p.URL + ",false,stored\nsecond," + p.URL + ",true,stored\n"
	if got := d.run(t, "context", "list", "-o", "csv").expect(t, 0); got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
	d.run(t, "context", "use", "default").expect(t, 0)
	d.env["RELAYCTL_TOKEN"] = operatorToken
	const wins = "RELAYCTL_TOKEN is set and wins over the context in use: unset it, or pass --context default"
	d.run(t, "context", "use", "default").expect(t, 0, wins)
	d.run(t, "login", "--url", p.URL, "--context", "default").expect(t, 0, wins)
	delete(d.env, "RELAYCTL_TOKEN")
	if got := d.run(t, "context", "show", "--columns", "name", "--no-headers").expect(t, 0); got.stdout != "default\n" {
		t.Errorf("in use: %s", got.stdout)
	}
	d.run(t, "context", "use", "third").expect(t, 2, "default, second", "relayctl login")
	d.run(t, "context", "delete", "default").expect(t, 2, "--yes")
	d.run(t, "context", "delete", "default", "--yes").expect(t, 0)
	d.run(t, "whoami").expect(t, 4)
	d.run(t, "whoami", "--context", "second").expect(t, 0)
}

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/problem"
)

func TestAnOperationIsOneCommandAndItsAnswerIsStandardOutput(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "partner", "put", "acme", "--name", "Acme IT").expect(t, 0)
	got := d.run(t, "domain", "put", "example.com", "--partner", "acme", "--licensed-users", "40", "--contacts", "a@example.com,b@example.com", "--include-subdomains", "-o", "json").expect(t, 0)
	want := `{
  "contacts": [
    "a@example.com",
    "b@example.com"
  ],
  "include_subdomains": true,
  "licensed_users": 40,
  "name": "example.com",
  "partner": "acme",
  "status": "active"
}
`
	if diff := cmp.Diff(want, got.stdout); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.stderr != "" {
		t.Errorf("standard error: %s", got.stderr)
	}
	shown := d.run(t, "domain", "show", "example.com").expect(t, 0).stdout
	if !strings.Contains(shown, "licensed users  ") || !strings.Contains(shown, `etag`) {
		t.Errorf("the table of an object lacks properties or ETag:\n%s", shown)
	}
}

func TestAListIsFollowedThroughAllPages(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		d.run(t, "domain", "put", name+".example", "--partner", "acme").expect(t, 0)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"all", []string{"--jq", ".items[].name"}, "a.example\nb.example\nc.example\nd.example\ne.example\n"},
		{"some", []string{"--max-items", "3", "-o", "csv", "--columns", "name", "--no-headers"}, "a.example\nb.example\nc.example\n"},
		{"one page", []string{"--page-token", "b.example", "--jq", ".items[].name"}, "c.example\nd.example\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := d.run(t, append([]string{"domain", "list"}, c.args...)...).expect(t, 0)
			if diff := cmp.Diff(c.want, got.stdout); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestABodyComesFromFileStandardInputAndFlags(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	file := filepath.Join(t.TempDir(), "domain.yaml")
	if err := os.WriteFile(file, []byte("partner: acme\nlicensed_users: 7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.run(t, "domain", "put", "a.example", "-f", file, "--licensed-users", "8").expect(t, 0)
	d.stdin = `{"partner":"acme","licensed_users":9,"time_zone":"Europe/Berlin"}`
	d.run(t, "domain", "put", "b.example", "-f", "-").expect(t, 0)
	d.run(t, "domain", "update", "b.example", "--time-zone", "null").expect(t, 0)
	got := d.run(t, "domain", "list", "--jq", ".items[] | [.name, .licensed_users, .time_zone]").expect(t, 0)
	if diff := cmp.Diff("[\"a.example\",8,null]\n[\"b.example\",9,null]\n", got.stdout); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMistakesOnTheCommandLineAreUsageErrorsThatSendNothing(t *testing.T) {
	p := newPlatform(t)
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"unknown command", []string{"domian", "list"}, []string{`has no command "domian"`, "relayctl domain"}},
		{"unknown verb", []string{"domain", "lst"}, []string{`has no command "lst"`, "relayctl domain list"}},
		{"unknown flag", []string{"domain", "list", "--colour", "red"}, []string{"--colour", "relayctl domain list --help"}},
		{"misspelt flag", []string{"domain", "list", "--statsu", "active"}, []string{"unknown flag: --statsu; did you mean --status?"}},
		{"part of a flag", []string{"user", "create", "--password", "x"}, []string{"did you mean --password-file?"}},
		{"nothing like a flag", []string{"domain", "list", "--xyzzy"}, []string{"unknown flag: --xyzzy\n"}},
		{"no help on that", []string{"help", "domian"}, []string{`no help on "domian"; choose from`, "exit-codes", "domain"}},
		{"no help on a verb", []string{"help", "domain", "lst"}, []string{`no help on "domain lst"; choose from`, "list"}},
		{"unknown shell", []string{"completion", "csh"}, []string{`has no command "csh"; choose from bash, fish, powershell, zsh`}},
		{"nothing like a command", []string{"xyzzy"}, []string{"choose from", "domain", "login"}},
		{"bad day", []string{"report", "quota", "--from", "yesterday"}, []string{`--from takes a day as YYYY-MM-DD, not "yesterday"`}},
		{"bad timeout", []string{"domain", "list", "--timeout", "0s"}, []string{"--timeout takes a positive duration such as 30s, not 0s"}},
		{"bad retries", []string{"domain", "list", "--retries", "-1"}, []string{"--retries takes 0 or more"}},
		{"context without a name", []string{"context", "use"}, []string{"context use needs NAME"}},
		{"too many names", []string{"context", "show", "a", "b"}, []string{`context show does not take "b"`}},
		{"no directory", []string{"man"}, []string{"man needs DIRECTORY"}},
		{"an argument that is a path", []string{"domain", "show", ".."}, []string{`DOMAIN must not be ".."`}},
		{"missing argument", []string{"domain", "show"}, []string{"domain show needs DOMAIN"}},
		{"too many arguments", []string{"domain", "show", "a", "b"}, []string{`does not take "b"`}},
		{"missing property", []string{"partner", "put", "acme"}, []string{"missing --name"}},
		{"bad number", []string{"domain", "update", "a.example", "--licensed-users", "many"}, []string{`--licensed-users takes a whole number, not "many"`}},
		{"bad choice", []string{"domain", "list", "--status", "dead"}, []string{"--status takes one of active, suspended"}},
		{"nothing to change", []string{"domain", "update", "a.example"}, []string{"nothing to change"}},
		{"no such file", []string{"domain", "put", "a.example", "-f", "/nowhere"}, []string{"/nowhere"}},
		{"secret in an argument", []string{"route", "create", "--host", "a", "--password", "x"}, []string{"unknown flag: --password"}},
		{"raw body without a file", []string{"complaint", "file", "--content-type", "message/rfc822"}, []string{"needs --file"}},
		{"bad type of a body", []string{"complaint", "file", "--content-type", "text/html"}, []string{"application/json, message/rfc822"}},
		{"bad format", []string{"domain", "list", "-o", "xml"}, []string{"table, json, yaml, jsonl, csv"}},
		{"bad filter", []string{"domain", "list", "--jq", ".["}, []string{"--jq"}},
		{"bad colour", []string{"domain", "list", "--color", "red"}, []string{"auto, always or never"}},
		{"negative limit", []string{"domain", "list", "--max-items", "-1"}, []string{"--max-items"}},
		{"token twice", []string{"domain", "list", "--token", "a", "--token-file", "b"}, []string{"token"}},
		{"bad URL", []string{"domain", "list", "--url", "relay.example.com"}, []string{"https://"}},
		{"nobody to ask", []string{"domain", "delete", "a.example"}, []string{"Delete a.example with its relay IPs, users and routes?", "--yes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := p.desk(t).run(t, c.args...).expect(t, 2, c.says...)
			if got.stdout != "" {
				t.Errorf("standard output: %s", got.stdout)
			}
		})
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("something was changed: %v", changes)
	}
}

func TestDestroyingSomethingIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		name  string
		tty   bool
		stdin string
		args  []string
		code  int
		gone  bool
	}{
		{name: "yes", tty: true, stdin: "y\n", gone: true},
		{name: "no", tty: true, stdin: "n\n", code: 1},
		{name: "just return", tty: true, stdin: "\n", code: 1},
		{name: "end of input", tty: true, code: 1},
		{name: "said before", args: []string{"--yes"}, gone: true},
		{name: "nobody to ask", code: 2},
		{name: "a dry run asks nothing", args: []string{"--dry-run"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t)
			d := p.desk(t)
			d.run(t, "domain", "put", "a.example", "--partner", "acme").expect(t, 0)
			p.reset()
			d.tty, d.stdin = c.tty, c.stdin
			d.run(t, append([]string{"domain", "delete", "a.example"}, c.args...)...).expect(t, c.code)
			if gone := len(p.reset()) > 0; gone != c.gone {
				t.Errorf("deleted: %v, want %v", gone, c.gone)
			}
		})
	}
}

func TestADryRunShowsTheRequestAndNoSecret(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.stdin = "hunter2\n"
	got := d.run(t, "route", "create", "--host", "mx.example.net", "--password-file", "-", "--username", "relay", "--dry-run").expect(t, 0)
	for _, secret := range []string{"hunter2", operatorToken} {
		if strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("%q is shown:\n%s%s", secret, got.stdout, got.stderr)
		}
	}
	if !strings.HasPrefix(got.stdout, "POST "+p.URL+"/v1/routes\n") || !strings.Contains(got.stdout, `"username": "relay"`) {
		t.Errorf("the request is not shown:\n%s", got.stdout)
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("a dry run changed something: %v", changes)
	}
}

// Control 24: no secret in what --verbose says.
func TestVerboseShowsRequestsAndNoSecret(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.stdin = "correct horse battery"
	got := d.run(t, "user", "create", "--address", "anna@example.com", "--password-file", "-", "-v").expect(t, 0, "POST "+p.URL+"/v1/users: 201", "req-test")
	if strings.Contains(got.stderr+got.stdout, "correct horse") || strings.Contains(got.stderr, operatorToken) {
		t.Errorf("a secret is shown:\n%s%s", got.stdout, got.stderr)
	}
}

func TestASecretIsAskedForAtATerminal(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.tty, d.secret = true, "typed in the dark"
	d.run(t, "user", "create", "--address", "anna@example.com", "--password-file", "-").expect(t, 0)
	got := d.run(t, "user", "show", "anna@example.com", "--jq", ".password").expect(t, 0)
	if got.stdout != "null\n" {
		t.Errorf("the platform made a password although one was typed: %s", got.stdout)
	}
	d.secret = ""
	d.run(t, "user", "create", "--address", "ben@example.com", "--password-file", "-").expect(t, 2, "no password was given")
}

func TestErrorsSayWhatWhereAndWhatNext(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	for _, c := range []struct {
		name    string
		problem *problem.Problem
		args    []string
		code    int
		want    string
	}{
		{
			name: "invalid field", code: 2, args: []string{"domain", "put", "a.example", "--licensed-users", "5"},
			problem: problem.Malformed("one field").With(problem.InvalidField{Pointer: "/licensed_users", Rule: "maximum", Message: "must be at most 3", Choices: []string{"1", "3"}}),
			want: `relayctl: Invalid request: one field
  field      /licensed_users (--licensed-users): must be at most 3 [maximum]
  choices    1, 3
  reason     invalid-request
  request    req-test
  try        relayctl domain put --help
`,
		},
		{
			name: "changed meanwhile", code: 5, args: []string{"domain", "put", "a.example", "--if-match", `"1"`}, problem: problem.PreconditionFailed(),
			want: `relayctl: Changed meanwhile: The object was changed since it was read
  reason     precondition-failed
  request    req-test
  try        relayctl domain show a.example
`,
		},
		{
			name: "control characters", code: 5, args: []string{"domain", "put", "a.example"}, problem: problem.Conflict("a\x1b[2Jb\nrelayctl: done"),
			want: "relayctl: Conflict: a\uFFFD[2Jb relayctl: done\n  reason     conflict\n  request    req-test\n",
		},
		{
			name: "not allowed", code: 4, args: []string{"domain", "put", "a.example"}, problem: problem.Forbidden("no scope domains:write"),
			want: `relayctl: Not allowed: no scope domains:write
  reason     forbidden
  request    req-test
  try        relayctl whoami
`,
		},
		{
			name: "rate limit", code: 6, args: []string{"domain", "put", "a.example", "--retries", "0"}, problem: problem.RateLimited(time.Minute),
			want: "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.refuse["putDomain"] = c.problem
			got := d.run(t, c.args...).expect(t, c.code)
			if c.want == "" {
				return
			}
			if diff := cmp.Diff(c.want, got.stderr); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	d.run(t, "domain", "show", "none.example").expect(t, 3, "try        relayctl domain list")
	d.env["RELAYCTL_TOKEN"] = "rly_wrong"
	d.run(t, "domain", "list").expect(t, 4, "the token from RELAYCTL_TOKEN was refused", "try        unset RELAYCTL_TOKEN, or pass --context NAME")
	d.run(t, "apply", "-f", put(t, "partners: [{slug: acme}]")).expect(t, 4, "the token from RELAYCTL_TOKEN was refused")
	d.run(t, "domain", "list", "--token", "rly_other").expect(t, 4, "the token from --token was refused", "try        relayctl login --url "+p.URL)
	d.env["RELAYCTL_TOKEN"] = ""
	d.run(t, "domain", "list").expect(t, 4, "No token", "relayctl login --url "+p.URL)
	p.Close()
	d.env["RELAYCTL_TOKEN"] = operatorToken
	d.run(t, "domain", "list", "--retries", "0").expect(t, 7, "Server not reached")
}

func TestWhatIsMissingIsPointedTo(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	for _, c := range []struct {
		operation, kind string
		args            []string
		next            string
	}{
		{"createUser", "domain", []string{"user", "create", "--address", "a@none.example"}, "relayctl domain list\n"},
		{"putDomain", "partner", []string{"domain", "put", "a.example", "--partner", "none"}, "relayctl partner list\n"},
		{"getQuotaOverride", "quota override", []string{"quota", "override", "show", "a.example"}, "relayctl quota override set a.example --expires-at INSTANT --limit NUMBER --reason TEXT\n"},
		{"getQuotaOverride", "domain", []string{"quota", "override", "show", "a.example"}, "relayctl domain list\n"},
		{"getBulkException", "bulk exception", []string{"domain", "bulk-exception", "show", "a.example"}, "relayctl domain bulk-exception set a.example --mode "},
		{"activateRelayIP", "relay IP", []string{"relay-ip", "activate", "rip_1"}, "relayctl relay-ip list\n"},
	} {
		p.refuse[c.operation] = problem.NotFound(c.kind)
		d.run(t, c.args...).expect(t, 3, "try        "+c.next)
	}
}

func TestARefusedArgumentIsCalledAsTheHelpCallsIt(t *testing.T) {
	p := newPlatform(t)
	p.refuse["getDomain"] = problem.Malformed("").With(problem.InvalidField{Pointer: "path/domain", Rule: "minLength", Message: "is too short"})
	p.desk(t).run(t, "domain", "show", "a.example").expect(t, 2, "field      DOMAIN: is too short [minLength]")
}

func TestAReferenceMayBePastedAsRepliesShowIt(t *testing.T) {
	p := newPlatform(t)
	for _, text := range []string{"01KAQ7M2Z8Y3F6N5T4R1W0X9VB", "ref=01KAQ7M2Z8Y3F6N5T4R1W0X9VB", "(ref=01KAQ7M2Z8Y3F6N5T4R1W0X9VB)."} {
		got := p.desk(t).run(t, "decision", "show", text, "--dry-run").expect(t, 0)
		if !strings.Contains(got.stdout, "/01KAQ7M2Z8Y3F6N5T4R1W0X9VB\n") {
			t.Errorf("%s asks for:\n%s", text, got.stdout)
		}
	}
}

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

func TestManualPagesAndCompletionsAreTheSameEachTime(t *testing.T) {
	d := newDesk(t)
	pages := func() map[string]string {
		directory := filepath.Join(t.TempDir(), "man1")
		d.run(t, "man", directory).expect(t, 0)
		found := map[string]string{}
		files, err := filepath.Glob(filepath.Join(directory, "*.1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found[filepath.Base(file)] = string(text)
		}
		return found
	}
	first, second := pages(), pages()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
	if !strings.Contains(first["relayctl-domain-put.1"], "licensed") {
		t.Errorf("no page of domain put among %d pages", len(first))
	}
	if text := first["relayctl.1"]; !strings.Contains(text, ".SH EXIT STATUS") || !strings.Contains(text, "nothing was changed") {
		t.Errorf("the page of the program does not explain its exit codes:\n%s", text)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := d.run(t, "completion", shell).expect(t, 0); !strings.Contains(got.stdout, "relayctl") {
			t.Errorf("completion of %s: %.80s", shell, got.stdout)
		}
	}
}

func TestCompletionKnowsChoicesAndObjects(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "domain", "put", "a.example", "--partner", "acme").expect(t, 0)
	d.run(t, "domain", "put", "b.example", "--partner", "acme").expect(t, 0)
	d.run(t, "partner", "put", "acme", "--name", "Acme").expect(t, 0)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"a choice", []string{"domain", "list", "--status", ""}, "active\nsuspended\n:4\n"},
		{"a format", []string{"domain", "list", "-o", ""}, "table\njson\nyaml\njsonl\ncsv\n:4\n"},
		{"an object", []string{"quota", "show", ""}, "a.example\nb.example\n:4\n"},
		{"an object that begins so", []string{"domain", "delete", "b"}, "b.example\n:4\n"},
		{"an object for a flag", []string{"domain", "list", "--partner", "a"}, "acme\n:4\n"},
		{"no more arguments", []string{"domain", "show", "a.example", ""}, ":4\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := d.run(t, append([]string{"__complete"}, c.args...)...).expect(t, 0)
			if diff := cmp.Diff(c.want, got.stdout); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	p.Close()
	if got := d.run(t, "__complete", "quota", "show", "").expect(t, 0); got.stdout != ":4\n" {
		t.Errorf("without a server: %q", got.stdout)
	}
}

func TestVersionNeedsNoServer(t *testing.T) {
	got := newDesk(t).run(t, "version", "-o", "json").expect(t, 0)
	if !strings.Contains(got.stdout, `"version": "`) {
		t.Errorf("got %s", got.stdout)
	}
}

// answering is a server that says one thing.
func answering(t *testing.T, status int, mediaType, text string) *desk {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	d := newDesk(t)
	d.env["RELAYCTL_URL"], d.env["RELAYCTL_TOKEN"] = s.URL, operatorToken
	return d
}

func TestAServiceThatIsNotReadySaysWhyAndEndsWithUnavailable(t *testing.T) {
	d := answering(t, 503, "application/json", `{"status":"failed","checks":[{"name":"database","status":"failed","detail":"locked"}]}`)
	got := d.run(t, "health", "ready").expect(t, 7, "Not ready")
	if !strings.Contains(got.stdout, "database") || !strings.Contains(got.stdout, "locked") {
		t.Errorf("the failing check is not shown:\n%s", got.stdout)
	}
}

func TestABatchOfWhichAPartFailedEndsWithFailure(t *testing.T) {
	d := answering(t, 200, "application/json",
		`{"results":[{"name":"a.example","outcome":"created"},{"name":"b.example","outcome":"failed","problem":{"type":"urn:activerelay:reason:invalid-request","reason":"invalid-request","status":400,"title":"Invalid request","detail":"one field","request_id":"req-1","errors":[{"pointer":"/domains/1/licensed_users","rule":"maximum","message":"must be at most 3"}]}}],"created":1,"updated":0,"unchanged":0,"failed":1}`)
	d.stdin = "domains: [{name: a.example}, {name: b.example}]"
	got := d.run(t, "domain", "import", "-f", "-").expect(t, 1, "1 failed", "(created 1, failed 1, unchanged 0, updated 0)",
		"b.example: Invalid request: one field", "field      /domains/1/licensed_users: must be at most 3 [maximum]")
	if !strings.Contains(got.stdout, "b.example  failed   one field") {
		t.Errorf("the failed entry is not shown:\n%s", got.stdout)
	}
}

func TestSomethingThatIsNotTheControlPlaneDoesNotSayThatAnObjectIsMissing(t *testing.T) {
	d := answering(t, 404, "text/html", "<h1>Not found</h1>")
	d.run(t, "domain", "show", "a.example").expect(t, 1, "Not an Active Relay server", "relayctl health ready --url URL")
	d.run(t, "apply", "-f", put(t, "partners: [{slug: acme}]")).expect(t, 1, "Not an Active Relay server")
}

func TestAPageThatIsNotTheLastSaysHowToGoOn(t *testing.T) {
	d := answering(t, 200, "application/json", `{"items":[{"id":"aud_1","time":"2026-11-24T10:11:12.345678901+01:00"}],"next_page_token":"t2"}`)
	got := d.run(t, "audit", "list", "--page-token", "t1", "--columns", "id,time").expect(t, 0, "(more: --page-token t2)")
	if want := "ID     TIME\naud_1  2026-11-24T10:11:12+01:00\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
}

func TestAColumnThatCannotBeIsRefusedBeforeAnythingIsSent(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	for _, args := range [][]string{
		{"domain", "list", "--columns", "name,licences"},
		{"domain", "put", "a.example", "--partner", "acme", "--columns", "licences"},
		{"context", "list", "--columns", "licences"},
		{"login", "--columns", "licences"},
		{"apply", "-f", put(t, "partners: [{slug: acme}]"), "--columns", "licences"},
	} {
		d.run(t, args...).expect(t, 2, `--columns: there is no "licences" here; choose from`)
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("changed %v", changes)
	}
	d.run(t, "domain", "list", "--columns", "relaying.state,relaying").expect(t, 0)
	d.run(t, "audit", "list", "--columns", "changes.after").expect(t, 0)
}

func TestLongWorkShowsHowFarItIsAtATerminalOnly(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	text := "partners: [{slug: acme, name: Acme}]\ndomains:\n"
	for i := range 25 {
		text += fmt.Sprintf("  - {name: d%d.example, partner: acme}\n", i)
	}
	file := put(t, text)
	if got := d.run(t, "apply", "-f", file, "--dry-run").expect(t, 0); strings.Contains(got.stderr, "\r") {
		t.Errorf("progress without a terminal: %q", got.stderr)
	}
	d.watched = true
	d.run(t, "apply", "-f", file).expect(t, 0, "\rComparing with the server: 26 of 26\x1b[K", "\rApplying: 26 of 26\x1b[K\r\x1b[K")
	few := put(t, "partners: [{slug: acme, name: Acme}]")
	if got := d.run(t, "apply", "-f", few).expect(t, 0); strings.Contains(got.stderr, "\r") {
		t.Errorf("progress of little: %q", got.stderr)
	}
	batch := answering(t, 200, "application/json", `{"results":[],"created":0,"updated":0,"unchanged":25,"failed":0}`)
	batch.watched, batch.stdin = true, strings.Replace(text, "partners: [{slug: acme, name: Acme}]\n", "", 1)
	batch.run(t, "domain", "import", "-f", "-").expect(t, 0, "waiting for what becomes of 25 entries\x1b[K\r\x1b[K")
}

func TestARawAnswerIsCopiedWhateverTheFormat(t *testing.T) {
	const report = "day,domain\r\n2026-11-22,a.example\r\n"
	d := answering(t, 200, "text/csv; charset=utf-8", report)
	if got := d.run(t, "report", "export", "-o", "json").expect(t, 0); got.stdout != report {
		t.Errorf("got %q", got.stdout)
	}
}

func TestADeletionSaysSoBesideTheEmptyAnswer(t *testing.T) {
	d := answering(t, 204, "", "")
	if got := d.run(t, "domain", "delete", "a.example", "-y").expect(t, 0, "Delete a domain: done."); got.stdout != "" {
		t.Errorf("standard output: %q", got.stdout)
	}
}

// A read that waits for a person must not outlive the interrupt.
func TestAQuestionCanBeInterrupted(t *testing.T) {
	p := newPlatform(t)
	for _, args := range [][]string{{"domain", "delete", "a.example"}, {"domain", "put", "a.example", "-f", "-"}} {
		ctx, cancel := context.WithCancel(t.Context())
		never, asked := io.Pipe()
		var stderr bytes.Buffer
		env := Env{
			Stdin: interrupting{never, cancel}, Stdout: &bytes.Buffer{}, Stderr: &stderr, StdinTTY: true,
			Getenv: func(name string) string {
				return map[string]string{"HOME": t.TempDir(), "RELAYCTL_URL": p.URL, "RELAYCTL_TOKEN": operatorToken}[name]
			},
		}
		if code := Main(ctx, args, env); code != 130 {
			t.Errorf("%v: exit code %d, want 130; standard error: %s", args, code, &stderr)
		}
		asked.Close()
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("changed %v", changes)
	}
}

// interrupting is a terminal at which Ctrl-C is pressed in place of an answer.
type interrupting struct {
	io.Reader
	interrupt func()
}

func (i interrupting) Read(b []byte) (int, error) {
	i.interrupt()
	return i.Reader.Read(b)
}

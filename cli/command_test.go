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

	"github.com/google/go-cmp/cmp"
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

func TestAReferenceMayBePastedAsRepliesShowIt(t *testing.T) {
	p := newPlatform(t)
	for _, text := range []string{"01KAQ7M2Z8Y3F6N5T4R1W0X9VB", "ref=01KAQ7M2Z8Y3F6N5T4R1W0X9VB", "(ref=01KAQ7M2Z8Y3F6N5T4R1W0X9VB)."} {
		got := p.desk(t).run(t, "decision", "show", text, "--dry-run").expect(t, 0)
		if !strings.Contains(got.stdout, "/01KAQ7M2Z8Y3F6N5T4R1W0X9VB\n") {
			t.Errorf("%s asks for:\n%s", text, got.stdout)
		}
	}
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
	p.objects["edges"] = map[string]map[string]any{"edg_1": {"id": "edg_1"}}
	p.objects["queue"] = map[string]map[string]any{
		"01A": {"message_id": "01A"}, "02B": {"message_id": "02B"}, "02B for another destination": {"message_id": "02B"},
	}
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
		{"an edge for a flag", []string{"queue", "list", "--edge", ""}, "edg_1\n:4\n"},
		{"a message for a flag", []string{"queue", "hold", "--message-ids", ""}, "01A\n02B\n:4\n"},
		{"one more message", []string{"queue", "hold", "--message-ids", "01A,02"}, "01A,02B\n:4\n"},
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

func TestANewJoinTokenComesWithTheCommandThatUsesIt(t *testing.T) {
	d := answering(t, 201, "application/json",
		`{"id":"jtk_1","token":"rly_join_1","partners":[],"created_at":"2026-11-24T10:00:00Z","expires_at":"2026-11-25T10:00:00Z"}`)
	command := "RELAYD_JOIN_TOKEN=rly_join_1 relayd --server " + d.env["RELAYCTL_URL"] + " --data-dir /var/lib/relayd"
	if got := d.run(t, "join-token", "create").expect(t, 0); !strings.Contains(got.stdout, "\n  "+command) {
		t.Errorf("the command is not shown:\n%s", got.stdout)
	}
	for _, args := range [][]string{{"-o", "json"}, {"--jq", ".token"}, {"--columns", "token"}} {
		if got := d.run(t, append([]string{"join-token", "create"}, args...)...).expect(t, 0); strings.Contains(got.stdout+got.stderr, "relayd") {
			t.Errorf("%v shows more than was asked for:\n%s", args, got.stdout)
		}
	}
}

func TestAPageThatIsNotTheLastSaysHowToGoOn(t *testing.T) {
	d := answering(t, 200, "application/json", `{"items":[{"id":"aud_1","time":"2026-11-24T10:11:12.345678901+01:00"}],"next_page_token":"t2"}`)
	got := d.run(t, "audit", "list", "--page-token", "t1", "--columns", "id,time").expect(t, 0, "(more: --page-token t2)")
	if want := "ID     TIME\naud_1  2026-11-24T10:11:12+01:00\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
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

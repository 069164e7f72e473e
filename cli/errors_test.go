package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/problem"
	"activerelay/api/reason"
)

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
		{"bad URL", []string{"domain", "list", "--url", "relay.example.com"}, []string{"https://", "try        --url https://relay.example.com\n"}},
		{"a URL of another kind", []string{"domain", "list", "--url", "ftp://relay.example.com"}, []string{"try        relayctl domain list --help\n"}},
		{"bad JSON", []string{"apply", "-f", put(t, `{"partners": [{"slug": "acme"}`)}, []string{":1:14: ", "try        relayctl apply --help\n"}},
		{"bad body", []string{"domain", "put", "a.example", "-f", put(t, `{"partner": `)}, []string{":1:", "try        relayctl domain put --help\n"}},
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
	d.run(t, "domain", "list").expect(t, 4, "the token from RELAYCTL_TOKEN was refused", "try        set RELAYCTL_TOKEN to a token that is valid, or unset it and pass --context NAME")
	d.run(t, "apply", "-f", put(t, "partners: [{slug: acme}]")).expect(t, 4, "the token from RELAYCTL_TOKEN was refused")
	d.run(t, "domain", "list", "--token", "rly_other").expect(t, 4, "the token from --token was refused", "try        relayctl login --url "+p.URL)
	d.env["RELAYCTL_TOKEN"] = ""
	d.run(t, "domain", "list").expect(t, 4, "No token", "relayctl login --url "+p.URL)
	d.env["RELAYCTL_TOKEN"] = operatorToken
	p.refuse["listPartners"] = problem.Forbidden("")
	d.run(t, "partner", "list").expect(t, 4, "try        relayctl whoami\n")
	p.Close()
	for _, args := range [][]string{{"domain", "list"}, {"apply", "-f", put(t, "partners: [{slug: acme}]")}} {
		d.run(t, append(args, "--retries", "0")...).expect(t, 7, "Server not reached",
			"try        relayctl health ready --url URL, with the right one; this one is from RELAYCTL_URL\n")
	}
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

func TestAnOperationOnNothingIsRefusedByFlagsAndExample(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	for _, args := range [][]string{{"queue", "retry"}, {"queue", "cancel", "--reason", "x"}, {"queue", "hold", "-f", put(t, "reason: x")}} {
		d.run(t, args...).expect(t, 2,
			"say what it is about, with one or more of --message-ids, --partner, --domain, --destination, --sender\n",
			"try        relayctl queue "+args[1]+" --")
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("something was sent: %v", changes)
	}
	d.run(t, "queue", "hold", "-f", put(t, "sender: <>"), "--dry-run").expect(t, 0)
	p.refuse["retryQueue"] = problem.Malformed("").With(problem.InvalidField{Rule: "minProperties", Message: "must name something"})
	d.run(t, "queue", "retry", "--domain", "a.example").expect(t, 2, "field      must name something [minProperties]\n")
}

func TestAMessageThatHasLeftTheQueueIsLookedForInTheLog(t *testing.T) {
	p := newPlatform(t)
	p.refuse["getQueuedMessage"] = problem.New(reason.NotFound, "No such message waits")
	p.refuse["retryQueue"] = p.refuse["getQueuedMessage"]
	d := p.desk(t)
	d.run(t, "queue", "show", "01KAQ7M2Z8Y3F6N5T4R1W0X9VB").expect(t, 3, "No such message waits", "try        at the edges: journalctl -u relayd | grep 01KAQ7M2Z8Y3F6N5T4R1W0X9VB\n")
	d.run(t, "queue", "retry", "--message-ids", "01KAQ7M2Z8Y3F6N5T4R1W0X9VB").expect(t, 3, "try        relayctl queue list\n")
}

func TestARefusedArgumentIsCalledAsTheHelpCallsIt(t *testing.T) {
	p := newPlatform(t)
	p.refuse["listDomains"] = problem.Malformed("").With(problem.InvalidField{Pointer: "query/partner", Rule: "slug", Message: "is no slug"})
	p.desk(t).run(t, "domain", "list", "--partner", "a").expect(t, 2, "field      --partner: is no slug [slug]\n")
	p.refuse["getDomain"] = problem.Malformed("").With(problem.InvalidField{Pointer: "path/domain", Rule: "minLength", Message: "is too short"})
	p.desk(t).run(t, "domain", "show", "a.example").expect(t, 2, "field      DOMAIN: is too short [minLength]")
}

func TestSomethingThatIsNotTheControlPlaneDoesNotSayThatAnObjectIsMissing(t *testing.T) {
	d := answering(t, 404, "text/html", "<h1>Not found</h1>")
	d.run(t, "domain", "show", "a.example").expect(t, 1, "Not an Active Relay server", "relayctl health ready --url URL")
	answering(t, 200, "text/html", "<h1>Welcome</h1>").run(t, "domain", "show", "a.example").expect(t, 1,
		"Not an Active Relay server: it answered text/html in place of JSON", "this one is from RELAYCTL_URL")
	d.run(t, "apply", "-f", put(t, "partners: [{slug: acme}]")).expect(t, 1, "Not an Active Relay server")
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

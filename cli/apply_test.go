package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/problem"
)

const customers = `# what our customers have
partners:
  - slug: acme
    name: Acme IT
    support_contact: support@acme.example
domains:
  - {name: example.com, partner: acme, licensed_users: 40, contacts: [admin@example.com, it@Example.com]}
  - {name: example.net, partner: acme, status: suspended, status_reason: contract ended}
relay_ips:
  - {domain: example.com, address: 192.0.2.10, state: active, comment: head office}
  - {domain: example.com, address: 192.0.2.0/28}
routes:
  - {domain: example.com, host: mx.example.net, port: 587, tls: required, username: relay, password: hunter2}
  - {recipient_domain: partner.example, host: mx.partner.example}
users:
  - {address: anna@example.com, aliases: [sales@example.com]}
---
kind: user
address: ben@example.com
password: correct horse battery staple
`

// put writes a file to apply.
func put(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "customers.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestApplyMakesThePlatformAsTheFileSaysAndIsSafeToRepeat(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	file := put(t, customers)
	got := d.run(t, "apply", "-f", file).expect(t, 0)
	want := `ACTION   KIND      NAME                           CHANGES                    PASSWORD
created  partner   acme                           -                          -
created  domain    example.com                    -                          -
created  domain    example.net                    status active → suspended  -
created  relay_ip  192.0.2.10 for example.com     state active               -
created  relay_ip  192.0.2.0/28 for example.com   -                          -
created  route     example.com                    host mx.example.net        -
created  route     any domain to partner.example  host mx.partner.example    -
created  user      anna@example.com               -                          made-for-anna@example.com
created  user      ben@example.com                -                          -
`
	if diff := cmp.Diff(want, got.stdout); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	changes := []string{
		"putPartner acme", "putDomain example.com", "putDomain example.net", "suspendDomain example.net",
		"requestRelayIP", "activateRelayIP rip_5", "requestRelayIP", "createRoute", "createRoute", "createUser", "createUser",
	}
	if diff := cmp.Diff(changes, p.reset()); diff != "" {
		t.Errorf("changes -want +got:\n%s", diff)
	}

	again := d.run(t, "apply", "-f", file, "--jq", "[.items[].action] | unique | .[]").expect(t, 0)
	if again.stdout != "unchanged\n" || again.stderr != "" {
		t.Errorf("the second time: %s%s", again.stdout, again.stderr)
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("the second time changed %v", changes)
	}
	if shown := d.run(t, "apply", "-f", file, "--dry-run").expect(t, 0); strings.Contains(shown.stdout+shown.stderr, "hunter2") {
		t.Errorf("a password of the file is shown:\n%s", shown.stdout)
	}
}

func TestADryRunOfApplyIsThePlanAndNothingElse(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "apply", "-f", put(t, customers)).expect(t, 0)
	p.reset()
	changed := strings.NewReplacer(
		"licensed_users: 40", "licensed_users: 60, time_zone: Europe/Berlin",
		"name: example.net, partner: acme, status: suspended", "name: example.net, partner: acme, status: active",
		"192.0.2.10, state: active", "192.0.2.10/32, state: disabled, reason: infected",
		"port: 587", "port: 465", "aliases: [sales@example.com]", "aliases: []",
		"support_contact: support@acme.example", "support_contact: null",
	).Replace(customers)
	got := d.run(t, "apply", "-f", put(t, changed), "--dry-run").expect(t, 0, "(create 0, delete 0, unchanged 3, update 6)")
	want := `ACTION     KIND      NAME                           CHANGES
update     partner   acme                           support_contact support@acme.example → none
update     domain    example.com                    licensed_users 40 → 60, time_zone none → Europe/Berlin
update     domain    example.net                    status suspended → active
update     relay_ip  192.0.2.10/32 for example.com  state active → disabled
unchanged  relay_ip  192.0.2.0/28 for example.com   -
update     route     example.com                    port 587 → 465
unchanged  route     any domain to partner.example  -
update     user      anna@example.com               aliases [sales@example.com] → []
unchanged  user      ben@example.com                -
`
	if diff := cmp.Diff(want, got.stdout); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("a dry run changed %v", changes)
	}
	d.run(t, "apply", "-f", put(t, changed)).expect(t, 0, "update")
	again := d.run(t, "apply", "-f", put(t, changed), "--jq", ".updated").expect(t, 0)
	if again.stdout != "0\n" {
		t.Errorf("after it was applied %s objects are still to be updated", again.stdout)
	}
}

func TestPropertiesThatTheFileDoesNotNameStay(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "apply", "-f", put(t, customers)).expect(t, 0)
	d.run(t, "domain", "update", "example.com", "--time-zone", "America/Havana").expect(t, 0)
	d.run(t, "apply", "-f", put(t, "domains: [{name: example.com, licensed_users: 41}]")).expect(t, 0)
	got := d.run(t, "domain", "show", "example.com", "--jq", ".licensed_users, .time_zone").expect(t, 0)
	if got.stdout != "41\nAmerica/Havana\n" {
		t.Errorf("got %s", got.stdout)
	}
}

func TestPruneDeletesWhatTheFileCouldHaveNamedAndNothingElse(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "apply", "-f", put(t, customers)).expect(t, 0)
	d.run(t, "partner", "put", "other", "--name", "Other").expect(t, 0)
	d.run(t, "domain", "put", "other.example", "--partner", "other").expect(t, 0)
	p.reset()
	smaller := put(t, `
partners: [{slug: acme}]
domains: [{name: example.com}]
relay_ips: [{domain: example.com, address: 192.0.2.10}]
users: []
`)
	plan := d.run(t, "apply", "-f", smaller, "--prune", "--dry-run", "-o", "csv", "--columns", "action,kind,name").expect(t, 0)
	want := `action,kind,name
unchanged,partner,acme
unchanged,domain,example.com
unchanged,relay_ip,192.0.2.10 for example.com
delete,user,anna@example.com
delete,user,ben@example.com
delete,relay_ip,192.0.2.0/28 for example.com
delete,domain,example.net
`
	if diff := cmp.Diff(want, plan.stdout); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	d.run(t, "apply", "-f", smaller, "--prune").expect(t, 2, "Make 4 changes, 4 of them deletions?", "--yes")
	if changes := p.reset(); len(changes) > 0 {
		t.Fatalf("without --yes changed %v", changes)
	}
	d.run(t, "apply", "-f", smaller, "--prune", "--yes").expect(t, 0)
	changes := p.reset()
	slices.Sort(changes)
	if len(changes) != 4 || !strings.HasPrefix(changes[0], "deleteDomain example.net") {
		t.Errorf("changes: %v", changes)
	}
	left := d.run(t, "domain", "list", "--jq", ".items[].name").expect(t, 0)
	if left.stdout != "example.com\nother.example\n" {
		t.Errorf("left: %s", left.stdout)
	}
}

func TestApplyAsksAtATerminal(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	file := put(t, "partners: [{slug: acme, name: Acme}]")
	d.tty, d.stdin = true, "n\n"
	d.run(t, "apply", "-f", file).expect(t, 1, "create  partner  acme", "Make 1 change?")
	if changes := p.reset(); len(changes) > 0 {
		t.Fatalf("changed %v", changes)
	}
	d.stdin = "y\n"
	d.run(t, "apply", "-f", file).expect(t, 0)
	d.stdin = ""
	d.run(t, "apply", "-f", file).expect(t, 0) // nothing to do, nothing to ask
}

func TestWhatCannotBeDoneIsReportedInItsPlaceAndTheRestGoesOn(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	p.refuse["createRoute"] = problem.Malformed("no").With(problem.InvalidField{Pointer: "/host", Rule: "format", Message: "is no host"})
	file := put(t, customers)
	got := d.run(t, "apply", "-f", file, "-o", "json").expect(t, 1,
		"route example.com ("+file+":13)", "/host: is no host [format]", "2 objects failed")
	var answer struct {
		Items  []struct{ Action, Kind, Name string }
		Failed int
	}
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil {
		t.Fatal(err)
	}
	last := answer.Items[len(answer.Items)-1]
	if answer.Failed != 2 || last.Action != "created" || last.Kind != "user" {
		t.Errorf("got %+v", answer)
	}
}

func TestAPartOfAStepIsAChangeToo(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	p.refuse["suspendDomain"] = problem.Malformed("no")
	d.run(t, "apply", "-f", put(t, "domains: [{name: a.example, partner: acme, status: suspended}]")).expect(t, 1, "1 object failed")
	if changes := p.reset(); len(changes) != 1 {
		t.Errorf("changed %v", changes)
	}
	d.run(t, "apply", "-f", put(t, "domains: [{name: a.example, status: suspended}]")).expect(t, 2, "1 object failed")
}

func TestAnObjectThatChangedSinceThePlanIsLeftAlone(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "domain", "put", "a.example", "--partner", "acme").expect(t, 0)
	p.refuse["updateDomain"] = problem.PreconditionFailed()
	d.run(t, "apply", "-f", put(t, "domains: [{name: a.example, licensed_users: 4}]")).expect(t, 5, "precondition-failed")
}

func TestApplyDoesNotMoveADomainToAnotherPartner(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	d.run(t, "domain", "put", "a.example", "--partner", "acme").expect(t, 0)
	p.reset()
	d.run(t, "apply", "-f", put(t, "domains: [{name: a.example, partner: other}]")).expect(t, 5, "a.example belongs to acme, not other", "customers.yaml:1")
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("changed %v", changes)
	}
}

func TestPasswordsAreSetAgainOnlyWhenThatIsSaid(t *testing.T) {
	p := newPlatform(t)
	d := p.desk(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := put(t, "users: [{address: anna@example.com, password_file: "+secret+"}]\n"+
		"routes: [{domain: example.com, host: mx.example.net, password_file: "+secret+"}]\n")
	got := d.run(t, "apply", "-f", file).expect(t, 0)
	if strings.Contains(got.stdout, "made-for") {
		t.Errorf("the password of the file was not used: %s", got.stdout)
	}
	p.reset()
	d.run(t, "apply", "-f", file).expect(t, 0)
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("changed %v", changes)
	}
	d.run(t, "apply", "-f", file, "--set-passwords").expect(t, 0)
	changes := strings.Join(p.reset(), ",")
	if !strings.Contains(changes, "rotateUserPassword anna@example.com") || !strings.Contains(changes, "updateRoute rte_") {
		t.Errorf("changed %v", changes)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	d.run(t, "apply", "-f", file).expect(t, 2, "password_file", secret, "customers.yaml")
}

func TestAFileThatIsMisreadPlansNothing(t *testing.T) {
	p := newPlatform(t)
	for _, c := range []struct{ name, text, says string }{
		{"unknown section", "domans: []\n", `:1: unknown key "domans"; choose from domains, kind, partners, relay_ips, routes, users`},
		{"unknown property", "domains:\n  - name: a.example\n    licenced_users: 4\n", `:3: unknown key "licenced_users"; choose from contacts, include_subdomains, licensed_users`},
		{"unknown kind", "kind: daemon\n", `:1: kind takes one of domain, partner, relay_ip, route, user, not "daemon"`},
		{"no key", "domains:\n  - partner: acme\n", ":2: this domain has no name"},
		{"relay IP without a domain", "relay_ips:\n  - address: 192.0.2.1\n", ":2: this relay_ip has no domain"},
		{"twice", "domains:\n  - name: a.example\n  - name: A.example\n", ":3: domain a.example stands in line 2 already"},
		{"one address written in two ways", "relay_ips:\n- {domain: a.example, address: 192.0.2.1}\n- {domain: a.example, address: 192.0.2.1/32}\n", ":3: relay_ip a.example 192.0.2.1/32 stands in line 2"},
		{"not a list", "domains: {name: a.example}\n", "domains must be a list"},
		{"not a mapping", "- a\n", "must be a mapping"},
		{"bad state", "relay_ips: [{domain: a.example, address: 192.0.2.1, state: on}]\n", `:1: state takes one of requested, active, disabled, not "on"`},
		{"bad status", "partners: [{slug: acme, status: dead}]\n", `:1: status takes one of active, suspended, not "dead"`},
		{"bad number", "domains:\n  - name: a.example\n    licensed_users: many\n", `:3: licensed_users takes a whole number, not "many"`},
		{"number out of bounds", "domains:\n  - name: a.example\n    licensed_users: -1\n", ":3: licensed_users takes a whole number of at least 0, not -1"},
		{"bad zone", "partners:\n  - slug: acme\n    time_zone: Berlin\n", `:3: time_zone takes a name of the IANA time zone database such as Europe/Berlin, not "Berlin"`},
		{"bad choice", "routes:\n  - host: mx.example\n    tls: maybe\n", ":3: tls takes one of "},
		{"bad address", "relay_ips:\n  - domain: a.example\n    address: 192.0.2.300\n", `:3: address takes an IP address or a prefix such as 192.0.2.0/28, not "192.0.2.300"`},
		{"bad user", "users: [{address: anna}]\n", `:1: address takes an address such as anna@example.com, not "anna"`},
		{"bad contact", "domains: [{name: a.example, contacts: [a@a.example, b]}]\n", `("b" is none)`},
		{"no list", "domains: [{name: a.example, contacts: a@a.example}]\n", ":1: contacts takes a list"},
		{"no truth", "domains: [{name: a.example, include_subdomains: perhaps}]\n", ":1: include_subdomains takes true or false"},
		{"null of what cannot be cleared", "domains: [{name: a.example, licensed_users: null}]\n", ":1: licensed_users takes a value, and cannot be cleared"},
		{"several", "domains:\n  - name: a.example\n    licensed_users: many\n    time_zone: Berlin\n", "has 2 values that cannot be"},
		{"empty", "# nothing\n", "names nothing"},
		{"no YAML", "partners: []\ndomains: [\n", "customers.yaml:2:10: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.desk(t).run(t, "apply", "-f", put(t, c.text)).expect(t, 2, c.says)
		})
	}
	p.desk(t).run(t, "apply").expect(t, 2, "apply needs -f FILE")
	if changes := p.reset(); len(changes) > 0 {
		t.Errorf("changed %v", changes)
	}
}

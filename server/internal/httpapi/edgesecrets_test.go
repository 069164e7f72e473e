package httpapi_test

import (
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"golang.org/x/crypto/nacl/box"

	"activerelay/api"
	"activerelay/api/feedback"
)

func secretsPath(ids ...string) string { return "/v1/edge/secrets?" + url.Values{"id": ids}.Encode() }

// secrets fetches and opens secrets.
func (e *edge) secrets(ids ...string) []openedSecret {
	e.f.t.Helper()
	var list api.SecretList
	e.call("GET", secretsPath(ids...), nil).want(200).into(&list)
	var opened []openedSecret
	for _, secret := range list.Secrets {
		sealed, err := base64.StdEncoding.DecodeString(secret.Sealed)
		if err != nil {
			e.f.t.Fatal(err)
		}
		plain, ok := box.OpenAnonymous(nil, sealed, e.publicKey, e.privateKey)
		if !ok {
			e.f.t.Fatalf("secret %s is not sealed to the key of %s", secret.ID, e.id)
		}
		opened = append(opened, openedSecret{secret.ID, secret.Version, string(plain)})
	}
	return opened
}

type openedSecret struct {
	id      string
	version int64
	plain   string
}

// route makes a route with a password; without a domain it is the operator's.
func (f *fixture) route(domain, password string) string {
	f.t.Helper()
	body := object{"host": "smarthost.example.net", "username": "relay", "password": password}
	if domain != "" {
		body["domain"] = domain
	}
	var made api.Route
	f.call(f.Token, "POST", "/v1/routes", body).want(201).into(&made)
	return made.ID
}

func TestControl13SecretsAreSealedToTheEdgesThatServeThePartner(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.partner("other")
	f.domain("acme", "acme.example", 100)
	f.domain("other", "other.example", 100)
	own, foreign, platform := f.route("acme.example", "password of acme"), f.route("other.example", "password of other"), f.route("", "password of all")
	e := f.edge("fra1", "acme")

	got := e.secrets(platform, own)
	want := []openedSecret{{platform, 1, "password of all"}, {own, 1, "password of acme"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("opened %v, want %v", got, want)
	}
	absent := e.call("GET", secretsPath("rte_01KAQ7M2Z8Y3F6N5T4R1W0X9VB"), nil).refused(404, "not-found")
	outside := e.call("GET", secretsPath(foreign), nil).refused(404, "not-found")
	if absent.words() != outside.words() {
		t.Errorf("a foreign secret is refused with %s, an absent one with %s", outside.words(), absent.words())
	}
	e.call("GET", secretsPath(own, foreign), nil).refused(404, "not-found") // all or nothing
	if all := f.edge("ams1").secrets(own, foreign, platform); len(all) != 3 {
		t.Errorf("an edge of all partners got %v", all)
	}
	if text := string(e.call("GET", "/v1/edge/policy", nil).want(200).body); strings.Contains(text, "password of") {
		t.Error("the policy holds a password")
	}
}

func TestAChangedPasswordHasTheVersionThatThePolicyNames(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "acme.example", 100)
	id := f.route("acme.example", "the first one")
	e := f.edge("fra1")
	f.call(f.Token, "PATCH", "/v1/routes/"+id, object{"password": "the second one"}).want(200)
	route := e.pull("", "").keys()["domain/acme.example"].Domain.Routes[0]
	if route.SecretID == nil || *route.SecretID != id || route.SecretVersion == nil {
		t.Fatalf("the policy names %v, want %s", route.SecretID, id)
	}
	if got := e.secrets(id)[0]; got.version != *route.SecretVersion || got.plain != "the second one" {
		t.Errorf("opened %+v, want version %d of the second one", got, *route.SecretVersion)
	}
	f.call(f.Token, "PATCH", "/v1/routes/"+id, object{"username": nil, "password": nil}).want(200)
	e.call("GET", secretsPath(id), nil).refused(404, "not-found")
}

func TestAComplaintFindsTheMessageByTheKeyThatOnlyItsEdgeHolds(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	f.domain("acme", "acme.example", 100)
	e, other := f.edge("fra1"), f.edge("ams1")
	key := func(e *edge) [feedback.KeyBytes]byte {
		secret := e.secrets("feedback")[0]
		if len(secret.plain) != feedback.KeyBytes {
			t.Fatalf("the feedback key has %d bytes", len(secret.plain))
		}
		return [feedback.KeyBytes]byte([]byte(secret.plain))
	}
	if key(e) == key(other) {
		t.Fatal("two edges have one feedback key")
	}
	message := ulid.MustNew(ulid.Timestamp(noon), rand.Reader).String()
	complain := func(key [feedback.KeyBytes]byte) reply {
		token, err := feedback.Seal(key, e.id, feedback.Claims{
			MessageID: message, Domain: "acme.example", ClientAddress: "192.0.2.10", Sender: "anna@acme.example",
		})
		if err != nil {
			t.Fatal(err)
		}
		return f.call(f.Token, "POST", "/v1/complaints", object{"feedback_id": token, "reporter": "isp.example"})
	}
	complain(key(other)).refused(422, "complaint-unresolved")
	var complaint api.Complaint
	complain(key(e)).want(201).into(&complaint)
	if complaint.Edge != e.id || complaint.Domain != "acme.example" || complaint.MessageID != message {
		t.Errorf("the complaint is %+v, want about the message of %s", complaint, e.id)
	}
}

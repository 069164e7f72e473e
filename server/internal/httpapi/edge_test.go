package httpapi_test

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/url"
	"testing"

	"github.com/oklog/ulid/v2"
	"golang.org/x/crypto/nacl/box"

	"activerelay/api"
	"activerelay/server/internal/credential"
)

// edge is a relayd as far as the control plane can tell.
type edge struct {
	f                     *fixture
	id, credential        string
	publicKey, privateKey *[32]byte
	bootNonce             string
	generation, sequence  int64
}

// joinToken makes a join token for a scope; none is all partners.
func (f *fixture) joinToken(partners ...string) (id, token string) {
	f.t.Helper()
	var made api.JoinTokenWithSecret
	f.call(f.Token, "POST", "/v1/join-tokens", object{"partners": append([]string{}, partners...)}).want(201).into(&made)
	return made.ID, made.Token
}

func joinBody(token, name, publicKey string) object {
	return object{"join_token": token, "name": name, "public_key": publicKey, "version": "1.0.0", "capability_version": 1}
}

func newPublicKey(t *testing.T) string {
	t.Helper()
	public, _, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(public[:])
}

// edge joins an edge with a scope.
func (f *fixture) edge(name string, partners ...string) *edge {
	f.t.Helper()
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	_, token := f.joinToken(partners...)
	var joined api.EdgeJoined
	f.call("", "POST", "/v1/edge/join", joinBody(token, name, base64.StdEncoding.EncodeToString(public[:]))).want(201).into(&joined)
	return &edge{
		f: f, id: joined.EdgeID, credential: joined.Credential, publicKey: public, privateKey: private,
		bootNonce: "boot-of-" + name, generation: joined.Generation,
	}
}

func (e *edge) call(method, path string, body any) reply {
	e.f.t.Helper()
	return e.f.call(e.credential, method, path, body)
}

// guessed is a well-formed token with the id of another one and a secret that is not its.
func guessed(t *testing.T, token string) string {
	t.Helper()
	parsed, err := credential.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	return credential.New(parsed.Kind, parsed.ID).Token()
}

func TestAnEdgeJoinsOnceWithAToken(t *testing.T) {
	f := newFixture(t)
	id, token := f.joinToken()
	var joined api.EdgeJoined
	f.call("", "POST", "/v1/edge/join", joinBody(token, "fra1", newPublicKey(t))).want(201).into(&joined)
	f.call("", "POST", "/v1/edge/join", joinBody(token, "fra2", newPublicKey(t))).refused(401, "unauthenticated")

	var used api.JoinToken
	f.call(f.Token, "GET", "/v1/join-tokens/"+id, nil).want(200).into(&used)
	if used.UsedBy == nil || *used.UsedBy != joined.EdgeID || used.UsedAt == nil || !used.UsedAt.Equal(noon) {
		t.Errorf("the join token shows %+v, want that %s used it at noon", used, joined.EdgeID)
	}
	var edges api.EdgeList
	f.call(f.Token, "GET", "/v1/edges", nil).want(200).into(&edges)
	if len(edges.Items) != 1 || edges.Items[0].ID != joined.EdgeID || edges.Items[0].Name != "fra1" || edges.Items[0].Status != api.EdgeStatusActive {
		t.Errorf("the edges are %+v, want fra1 alone", edges.Items)
	}
	var who api.Identity
	f.call(joined.Credential, "GET", "/v1/whoami", nil).want(200).into(&who)
	if who.Role != api.RoleEdge || who.Edge == nil || *who.Edge != joined.EdgeID {
		t.Errorf("the credential is %+v, want the edge's", who)
	}
	f.call(f.Token, "DELETE", "/v1/join-tokens/"+id, nil).refused(409, "conflict")
}

func TestAJoinTokenIsSpentByOneOfManyWhoTryAtOnce(t *testing.T) {
	f := newFixture(t)
	_, token := f.joinToken()
	const tries = 8
	statuses := make(chan int, tries)
	for range tries {
		body := joinBody(token, "fra1", newPublicKey(t))
		go func() {
			got, err := f.try(t.Context(), "", "POST", "/v1/edge/join", body, nil)
			if err != nil {
				t.Error(err)
			}
			statuses <- got.status
		}()
	}
	counts := map[int]int{}
	for range tries {
		counts[<-statuses]++
	}
	if counts[201] != 1 || counts[401] != tries-1 {
		t.Errorf("statuses of %d attempts at once: %v, want one 201 and the rest 401", tries, counts)
	}
}

func TestAnAttemptToJoinWhoseReplyWasLostIsAnsweredAgain(t *testing.T) {
	f := newFixture(t)
	_, token := f.joinToken()
	body := joinBody(token, "fra1", newPublicKey(t))
	first := f.keyed("attempt-1", "", "POST", "/v1/edge/join", body).want(201)
	again := f.keyed("attempt-1", "", "POST", "/v1/edge/join", body).want(201)
	if string(first.body) != string(again.body) {
		t.Errorf("the same attempt got %s, before %s", again.body, first.body)
	}
	if again.header.Get("Idempotent-Replayed") != "true" {
		t.Error("the second reply does not say that it is a repetition")
	}
	// Another key pair under the key is another request, and who has the key without the token gets nothing.
	f.keyed("attempt-1", "", "POST", "/v1/edge/join", joinBody(token, "fra1", newPublicKey(t))).refused(409, "idempotency-conflict")
	body["join_token"] = guessed(t, token)
	f.keyed("attempt-1", "", "POST", "/v1/edge/join", body).refused(401, "unauthenticated")
	var edges api.EdgeList
	f.call(f.Token, "GET", "/v1/edges", nil).want(200).into(&edges)
	if len(edges.Items) != 1 {
		t.Errorf("%d edges, want 1", len(edges.Items))
	}
}

func TestWhateverIsWrongWithAJoinTokenIsRefusedInTheSameWords(t *testing.T) {
	f := newFixture(t)
	revokedID, revoked := f.joinToken()
	f.call(f.Token, "DELETE", "/v1/join-tokens/"+revokedID, nil).want(204)
	f.call(f.Token, "GET", "/v1/join-tokens/"+revokedID, nil).refused(404, "not-found")
	_, used := f.joinToken()
	f.call("", "POST", "/v1/edge/join", joinBody(used, "fra1", newPublicKey(t))).want(201)
	_, expired := f.joinToken()
	_, unused := f.joinToken()
	f.clock.Set(noon.AddDate(0, 0, 1)) // the very instant at which it expires

	tokens := map[string]string{
		"revoked": revoked, "used": used, "expired": expired, "no token": "rly_join_nothing", "an operator's": f.Token,
		"guessed": guessed(t, unused), "unknown": credential.New(credential.Join, ulid.Make()).Token(),
	}
	words := map[string]bool{}
	for name, token := range tokens {
		got := f.call("", "POST", "/v1/edge/join", joinBody(token, "fra1", newPublicKey(t)))
		if got.status != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", name, got.status)
			continue
		}
		words[got.words()] = true
	}
	if len(words) != 1 {
		t.Errorf("the refusals differ: %v", words)
	}
}

func TestAJoinTokenIsNoCredentialOfTheAPI(t *testing.T) {
	f := newFixture(t)
	_, token := f.joinToken()
	f.call(token, "GET", "/v1/whoami", nil).refused(401, "unauthenticated")
	f.call(token, "GET", "/v1/edge/policy", nil).refused(401, "unauthenticated")
}

func TestAJoinTokenNamesKnownPartnersOnly(t *testing.T) {
	f := newFixture(t)
	f.partner("acme")
	got := f.call(f.Token, "POST", "/v1/join-tokens", object{"partners": []string{"acme", "nobody"}}).want(422)
	var told struct{ Errors []struct{ Pointer string } }
	got.into(&told)
	if len(told.Errors) != 1 || told.Errors[0].Pointer != "/partners/1" {
		t.Errorf("refused at %+v, want /partners/1", told.Errors)
	}
}

func TestAKeyThatNothingCanBeSealedToIsRefused(t *testing.T) {
	f := newFixture(t)
	_, token := f.joinToken()
	for name, key := range map[string]string{
		"short":              base64.StdEncoding.EncodeToString(make([]byte, 31)),
		"not base64":         "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
		"a point of order 1": base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		if got := f.call("", "POST", "/v1/edge/join", joinBody(token, "fra1", key)); got.status != 422 {
			t.Errorf("%s: status %d, want 422", name, got.status)
		}
	}
	f.call("", "POST", "/v1/edge/join", joinBody(token, "fra1", newPublicKey(t))).want(201)
}

func TestARotatedCredentialTakesOverWhenItIsFirstUsed(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	rotate := func() string {
		var made api.EdgeCredential
		e.call("POST", "/v1/edge/rotate-credential", nil).want(200).into(&made)
		if made.EdgeID != e.id {
			t.Fatalf("a credential of %s, want %s", made.EdgeID, e.id)
		}
		return made.Credential
	}
	lost := rotate()
	e.call("GET", "/v1/whoami", nil).want(200) // the reply was lost, so the old one goes on
	next := rotate()
	f.call(lost, "GET", "/v1/whoami", nil).refused(401, "unauthenticated")
	e.call("GET", "/v1/whoami", nil).want(200)
	f.call(next, "GET", "/v1/whoami", nil).want(200)
	e.call("GET", "/v1/whoami", nil).refused(401, "unauthenticated")
	f.call(next, "GET", "/v1/whoami", nil).want(200)

	for entry := range f.audit("edge/" + e.id) {
		if entry.Action == "rotateEdgeCredential" {
			return
		}
	}
	t.Error("the rotation is not in the audit log")
}

// audit yields the audit entries of an object, newest first.
func (f *fixture) audit(name string) func(yield func(api.AuditEntry) bool) {
	f.t.Helper()
	var page api.AuditList
	f.call(f.Token, "GET", "/v1/audit?object="+url.QueryEscape(name), nil).want(200).into(&page)
	return func(yield func(api.AuditEntry) bool) {
		for _, entry := range page.Items {
			if !yield(entry) {
				return
			}
		}
	}
}

func TestARetiredEdgeIsRefusedEverywhere(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	var rotated api.EdgeCredential
	e.call("POST", "/v1/edge/rotate-credential", nil).want(200).into(&rotated)
	waiting := e.startPoll(e.pull("", "").at(), 30)
	f.untilPolling(1)

	var retired, again api.Edge
	f.call(f.Token, "POST", "/v1/edges/"+e.id+"/retire", nil).want(200).into(&retired)
	if retired.Status != api.EdgeStatusRetired || retired.RetiredAt == nil {
		t.Errorf("the edge is %+v, want retired", retired)
	}
	f.clock.Advance(1e9)
	f.call(f.Token, "POST", "/v1/edges/"+e.id+"/retire", nil).want(200).into(&again)
	if !again.RetiredAt.Equal(*retired.RetiredAt) {
		t.Error("retiring again changed when it was retired")
	}
	waiting.result().refused(401, "unauthenticated")
	for _, credential := range []string{e.credential, rotated.Credential} {
		f.call(credential, "GET", "/v1/edge/policy", nil).refused(401, "unauthenticated")
		f.call(credential, "GET", "/v1/edge/secrets?id=feedback", nil).refused(401, "unauthenticated")
		f.call(credential, "POST", "/v1/edge/rotate-credential", nil).refused(401, "unauthenticated")
		f.call(credential, "POST", "/v1/edge/leases", object{"boot_nonce": "12345678", "generation": 1, "sequence": 1, "leases": []any{}}).
			refused(401, "unauthenticated")
		f.call(credential, "POST", "/v1/edge/events", object{"generation": 1, "first_kept": 1, "events": []any{}}).
			refused(401, "unauthenticated")
	}
	f.call(f.Token, "POST", "/v1/edges/edg_01KAQ7M2Z8Y3F6N5T4R1W0X9VB/retire", nil).refused(404, "not-found")
}

package uplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"activerelay/api/client"
	"activerelay/api/problem"
)

// always answers every call with one body of JSON.
func always(t *testing.T, body string) *client.ClientWithResponses {
	t.Helper()
	c, err := client.NewClientWithResponses("http://plane.test", client.WithHTTPClient(fixed(body)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type fixed string

func (f fixed) Do(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, Status: "200 OK", Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(string(f))),
	}, nil
}

func vault(t *testing.T, p *plane, s *Store, dir string) *Vault {
	t.Helper()
	return NewVault(p.client(func() *Store { return s }), openJournal(t, dir), s)
}

func want(t *testing.T, v *Vault, id string, version int64, plain string) {
	t.Helper()
	if got, err := v.Secret(context.Background(), id, version); err != nil || string(got) != plain {
		t.Errorf("secret %s of version %d: %q, %v; want %q", id, version, got, err, plain)
	}
}

func TestASecretIsFetchedOnceAndKeptForStartsWithoutControlPlane(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	s, _ := joinedEdge(t, p)
	v := vault(t, p, s, dir)
	plain := p.secrets[FeedbackSecret].plain
	for range 3 {
		want(t, v, FeedbackSecret, 0, plain)
	}
	if n := p.count("secrets"); n != 1 {
		t.Errorf("%d calls", n)
	}
	if err := v.journal.Close(); err != nil {
		t.Fatal(err)
	}
	p.server.Close()
	v = vault(t, p, s, dir)
	if got, err := v.SecretPatiently(context.Background(), FeedbackSecret, quiet); err != nil || string(got) != plain {
		t.Errorf("without control plane: %q, %v", got, err)
	}
	if _, err := v.Secret(context.Background(), "another", 0); err == nil {
		t.Error("a secret that was never fetched came from nowhere")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.SecretPatiently(ctx, "another", quiet); err == nil {
		t.Error("waiting goes on after the end")
	}
}

func TestSecretsStaySealedOnTheDisk(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	s, identity := joinedEdge(t, p)
	const plain = "smarthost password that must not be read"
	p.secrets["route_1"] = secret{1, plain}
	v := vault(t, p, s, dir)
	want(t, v, "route_1", 1, plain)
	kept, err := v.kept("route_1")
	if err != nil || kept == nil {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if err := v.journal.Close(); err != nil {
		t.Fatal(err)
	}
	sealed := false
	for _, root := range []string{dir, identity} {
		err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(filepath.Join(root, path))
			if bytes.Contains(content, []byte(plain)) {
				t.Errorf("%s holds the secret in the clear", path)
			}
			sealed = sealed || bytes.Contains(content, []byte(kept.Sealed))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !sealed {
		t.Error("the sealed secret was not found: the test shows nothing")
	}
	if _, err := os.Stat(filepath.Join(dir, "identity.json")); err == nil {
		t.Error("the key lies with the secrets")
	}
}

func TestASecretOpensOnlyWithTheKeyOfTheEdgeItIsFor(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	s, _ := joinedEdge(t, p)
	v := vault(t, p, s, dir)
	want(t, v, FeedbackSecret, 0, p.secrets[FeedbackSecret].plain)
	public, private, err := newKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := s.Identity()
	for name, thief := range map[string]Identity{
		"another edge's keys":   {PublicKey: public, PrivateKey: private},
		"only the public key":   {PublicKey: who.PublicKey, PrivateKey: private},
		"a key that is no key":  {PublicKey: who.PublicKey, PrivateKey: "c2hvcnQ="},
		"no key":                {},
		"a key that is no text": {PublicKey: "%", PrivateKey: "%"},
	} {
		other := NewVault(v.client, v.journal, &Store{now: thief})
		if plain, err := other.Secret(context.Background(), FeedbackSecret, 0); err == nil {
			t.Errorf("%s: opened %q", name, plain)
		} else if strings.Contains(err.Error(), p.secrets[FeedbackSecret].plain) {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
}

func TestANewerVersionThatPolicyNamesIsFetchedAndAnOlderOneIsNotTakenForIt(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	s, _ := joinedEdge(t, p)
	p.secrets["route_1"] = secret{1, "one"}
	v := vault(t, p, s, dir)
	want(t, v, "route_1", 1, "one")
	if got, err := v.Secret(context.Background(), "route_1", 2); err == nil {
		t.Errorf("version 1 passed for version 2: %q", got)
	}
	want(t, v, "route_1", 1, "one") // which goes on
	p.set(func() { p.secrets["route_1"] = secret{2, "two"} })
	want(t, v, "route_1", 2, "two")
	want(t, v, "route_1", 1, "two")
	if err := v.journal.Close(); err != nil {
		t.Fatal(err)
	}
	p.server.Close()
	want(t, vault(t, p, s, dir), "route_1", 2, "two")
}

func TestAReplyThatIsNotTheSecretAskedForIsRefused(t *testing.T) {
	p := newPlane(t)
	s, _ := joinedEdge(t, p)
	v := vault(t, p, s, t.TempDir())
	good := v.client
	sealed := seal(t, p.public, "of another")
	for _, reply := range []string{
		`{}`, `null`, `{"secrets":[]}`, `{"secrets":[{"id":"other","version":1,"sealed":"` + sealed + `"}]}`,
		`{"secrets":[{"id":"route_1","version":1,"sealed":"` + sealed + `"},{"id":"route_1","version":2,"sealed":"` + sealed + `"}]}`,
	} {
		v.client = always(t, reply)
		if got, err := v.Secret(context.Background(), "route_1", 0); err == nil {
			t.Errorf("%s: taken as %q", reply, got)
		}
	}
	v.client = good
	p.set(func() { p.trouble = func(string) *problem.Problem { return problem.Unavailable(0) } })
	if _, err := v.Secret(context.Background(), "route_1", 0); err == nil {
		t.Error("trouble was taken for a secret")
	}
	p.set(func() { p.trouble, p.secrets["route_1"] = nil, secret{1, "one"} })
	want(t, v, "route_1", 0, "one")
}

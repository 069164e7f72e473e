package uplink

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
)

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestJoiningLeavesOneIdentityThatOnlyItsOwnerReads(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	// What an earlier crash, or a careless copy, may have left.
	if err := os.WriteFile(filepath.Join(dir, "identity.json.new"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	store, err := Join(context.Background(), p.config(dir))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "identity.json" {
		t.Errorf("files %s", got)
	}
	info, err := os.Stat(filepath.Join(dir, "identity.json"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	loaded, err := LoadIdentity(dir)
	if err != nil || loaded.Identity() != store.Identity() {
		t.Fatalf("loaded %+v, %v", loaded, err)
	}
	who := loaded.Identity()
	if who.EdgeID != "edg_1" || who.Credential != "credential-0" || who.Server != p.server.URL || who.Generation != 1 || who.PublicKey != p.public {
		t.Errorf("identity %+v", who)
	}
	if plain, err := loaded.open(seal(t, p.public, "x")); err != nil || string(plain) != "x" {
		t.Errorf("what is sealed to the key that joined: %q, %v", plain, err)
	}
}

func TestALostReplyToJoiningIsHealedByAskingAgain(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.set(func() { p.lost = true })
	if _, err := Join(context.Background(), p.config(dir)); err == nil {
		t.Fatal("joined without a reply")
	}
	if info, err := os.Stat(filepath.Join(dir, "joining.json")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the attempt is not kept for its owner: %v", err)
	}
	for _, again := range []*problem.Problem{problem.RateLimited(time.Second), problem.IdempotencyInProgress(), problem.Unavailable(time.Second)} {
		p.set(func() { p.lost, p.trouble = false, func(string) *problem.Problem { return again } })
		if _, err := Join(context.Background(), p.config(dir)); err == nil {
			t.Fatal("joined although told to wait")
		}
	}
	p.set(func() { p.trouble = nil })
	store, err := Join(context.Background(), p.config(dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.joined) != 1 || store.Identity().PublicKey != p.public {
		t.Errorf("%d edges joined, key of the last %s, ours %s", len(p.joined), p.public, store.Identity().PublicKey)
	}
}

func TestACrashBetweenTheReplyAndTheDiskIsHealedByAskingAgain(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	obstacle := filepath.Join(dir, "identity.json.new") // as good as a full disk
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(context.Background(), p.config(dir)); err == nil {
		t.Fatal("joined without an identity on the disk")
	}
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotJoined) {
		t.Errorf("identity: %v", err)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	store, err := Join(context.Background(), p.config(dir))
	if err != nil || len(p.joined) != 1 || store.Identity().PublicKey != p.public {
		t.Errorf("%d edges joined: %v", len(p.joined), err)
	}
}

func TestARefusedTokenEndsItsAttemptAndTheNextTokenJoins(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.tokens[joinToken] = true
	var refused *problem.Problem
	store, err := JoinPatiently(context.Background(), p.config(dir), quiet)
	if store != nil || !errors.As(err, &refused) || refused.Status != 401 {
		t.Fatalf("joined with a used token: %v", err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("files %s", got)
	}
	c := p.config(dir)
	c.JoinToken = "rly_join_another_one"
	if _, err := JoinPatiently(context.Background(), c, quiet); err != nil {
		t.Error(err)
	}
}

func TestAnEdgeWaitsForAControlPlaneInTrouble(t *testing.T) {
	p := newPlane(t)
	p.trouble = func(call string) *problem.Problem {
		if p.calls[call] < 3 {
			return problem.Unavailable(time.Second)
		}
		return nil
	}
	if _, err := JoinPatiently(context.Background(), p.config(t.TempDir()), quiet); err != nil || p.calls["join"] != 3 {
		t.Errorf("after %d calls: %v", p.calls["join"], err)
	}
}

func TestAnIdentityIsNeverOverwrittenByJoining(t *testing.T) {
	p := newPlane(t)
	for _, content := range []string{"", "{}", "sound"} {
		_, dir := joinedEdge(t, p)
		path := filepath.Join(dir, "identity.json")
		if content != "sound" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		calls := p.count("join")
		other := newPlane(t)
		for _, c := range []JoinConfig{p.config(dir), other.config(dir)} {
			c.JoinToken = "rly_join_another_one"
			if _, err := JoinPatiently(context.Background(), c, quiet); !errors.Is(err, ErrJoined) || !strings.Contains(err.Error(), path) {
				t.Errorf("%q: joined over it: %v", content, err)
			}
		}
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(before) || p.count("join") != calls || other.count("join") != 0 {
			t.Errorf("%q: the identity changed, or a token was spent: %v", content, err)
		}
		p.set(func() { clear(p.tokens) })
	}
}

func TestADamagedIdentityIsAnErrorAndNotAnInvitationToJoin(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotJoined) {
		t.Errorf("empty directory: %v", err)
	}
	for _, content := range []string{"", "{", "{}", `{"edge_id":"edg_1"}`, `{"credential":"x"}`, "null", "[]"} {
		if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil || errors.Is(err, ErrNotJoined) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestAnIncompleteReplyToJoiningIsNoIdentity(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	c := p.config(dir)
	try, err := prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, half := range []api.EdgeJoined{{EdgeID: "edg_1"}, {Credential: "x"}, {}} {
		p.set(func() { p.joined[try.IdempotencyKey] = half })
		if _, err := Join(context.Background(), c); err == nil {
			t.Errorf("joined as %+v", half)
		}
		if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotJoined) {
			t.Errorf("%+v was kept: %v", half, err)
		}
	}
}

// rotator is one whose clock stands at now.
func rotator(p *plane, s *Store, now time.Time) *Rotator {
	return &Rotator{Client: p.client(func() *Store { return s }), Store: s, Log: quiet, Now: func() time.Time { return now }}
}

// works makes a call as the edge.
func works(t *testing.T, p *plane, s *Store) {
	t.Helper()
	v := NewVault(p.client(func() *Store { return s }), openJournal(t, t.TempDir()), s)
	if _, err := v.Secret(context.Background(), FeedbackSecret, 0); err != nil {
		t.Errorf("the credential does not work: %v", err)
	}
}

func TestACredentialIsReplacedWhenItIsOldAndUsedAtOnce(t *testing.T) {
	p := newPlane(t)
	s, dir := joinedEdge(t, p)
	if err := rotator(p, s, noon.Add(RotateEvery-time.Minute)).rotateIfOld(context.Background()); err != nil || p.count("rotate-credential") != 0 {
		t.Fatalf("a young credential was replaced: %v", err)
	}
	now := noon.Add(RotateEvery)
	for range 2 { // the second time it is young
		if err := rotator(p, s, now).rotateIfOld(context.Background()); err != nil || p.count("rotate-credential") != 1 {
			t.Fatalf("%d calls, %v", p.count("rotate-credential"), err)
		}
	}
	works(t, p, s)
	loaded, err := LoadIdentity(dir)
	if err != nil || loaded.Token() != "credential-1" || s.Token() != "credential-1" || p.current != "credential-1" {
		t.Fatalf("on the disk %v, in memory %s, at the control plane %s: %v", loaded.Token(), s.Token(), p.current, err)
	}
	if who, before := loaded.Identity(), s.Identity(); who != before || who.EdgeID != "edg_1" || who.PrivateKey == "" {
		t.Errorf("identity %+v", who)
	}
	if got := names(t, dir); got != "identity.json" {
		t.Errorf("files %s", got)
	}
}

func TestARotationThatIsCutOffLeavesAnEdgeThatWorks(t *testing.T) {
	now := noon.Add(RotateEvery)
	for name, cut := range map[string]struct {
		begin, end func(p *plane, dir string) error
	}{
		"the reply is lost": {
			begin: func(p *plane, _ string) error { p.set(func() { p.lost = true }); return nil },
			end:   func(p *plane, _ string) error { p.set(func() { p.lost = false }); return nil },
		},
		"the disk takes nothing": {
			begin: func(_ *plane, dir string) error { return os.Mkdir(filepath.Join(dir, "identity.json.new"), 0o700) },
			end:   func(_ *plane, dir string) error { return os.Remove(filepath.Join(dir, "identity.json.new")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			s, dir := joinedEdge(t, p)
			for range 3 {
				if err := cut.begin(p, dir); err != nil {
					t.Fatal(err)
				}
				if err := rotator(p, s, now).rotateIfOld(context.Background()); err == nil {
					t.Fatal("rotated")
				}
				if err := cut.end(p, dir); err != nil {
					t.Fatal(err)
				}
				works(t, p, s)
				var err error
				if s, err = LoadIdentity(dir); err != nil { // the next process
					t.Fatal(err)
				}
				works(t, p, s)
			}
			if err := rotator(p, s, now).rotateIfOld(context.Background()); err != nil {
				t.Fatal(err)
			}
			works(t, p, s)
			if s, err := LoadIdentity(dir); err != nil || s.Token() != p.current || p.current == "credential-0" {
				t.Errorf("on the disk %s, at the control plane %s: %v", s.Token(), p.current, err)
			}
		})
	}
}

func TestAReplyWithoutACredentialReplacesNone(t *testing.T) {
	p := newPlane(t)
	s, dir := joinedEdge(t, p)
	for _, reply := range []string{`{}`, `{"edge_id":"edg_1","credential":""}`, `{"edge_id":"edg_2","credential":"of another"}`, `null`} {
		r := rotator(p, s, noon.Add(RotateEvery))
		r.Client = always(t, reply)
		if err := r.rotateIfOld(context.Background()); err == nil {
			t.Errorf("%s was taken", reply)
		}
		if loaded, err := LoadIdentity(dir); err != nil || loaded.Token() != "credential-0" || s.Token() != "credential-0" {
			t.Errorf("%s: identity %v", reply, err)
		}
	}
}

package server_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"activerelay/api"
	"activerelay/server"
	"activerelay/server/internal/store/storetest/pgtest"
	"activerelay/server/servertest"
)

func tokens(t *testing.T, s *servertest.Server) []api.Token {
	t.Helper()
	reply, err := s.Client().ListTokensWithResponse(t.Context(), nil)
	must(t, err)
	return reply.JSON200.Items
}

func TestTheFirstStartLeavesOneOperatorTokenThatWorks(t *testing.T) {
	s := servertest.Start(t, servertest.Config{})
	me, err := s.Client().WhoAmIWithResponse(t.Context())
	must(t, err)
	if me.JSON200.Role != api.RoleOperator || me.JSON200.ReadOnly {
		t.Fatalf("the token is of %+v", me.JSON200)
	}
	if got := tokens(t, s); len(got) != 1 {
		t.Fatalf("%d tokens were made, want 1", len(got))
	}
	for _, name := range []string{"operator.token", "secrets.key", "relay.db", "relay.db-wal"} {
		info, err := os.Stat(filepath.Join(s.DataDir, name))
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %#o, want 0600", name, info.Mode().Perm())
		}
	}
	audit, err := s.Client().ListAuditEntriesWithResponse(t.Context(), nil)
	must(t, err)
	if len(audit.JSON200.Items) != 1 || audit.JSON200.Items[0].Action != "createToken" {
		t.Fatalf("the audit log has %+v", audit.JSON200.Items)
	}
}

func TestTheFirstStartPublishesTheSettings(t *testing.T) {
	keys, _, _ := pull(t, join(t, servertest.Start(t, servertest.Config{})))
	if len(keys) != 1 || keys[0] != "platform" {
		t.Fatalf("a new edge gets %v", keys)
	}
}

func TestASecondStartKeepsTokenAndRows(t *testing.T) {
	dir := t.TempDir()
	first := servertest.Start(t, servertest.Config{DataDir: dir})
	reply, err := first.Client().PutPartnerWithResponse(t.Context(), "acme", nil, api.PartnerPut{Name: "Acme"})
	must(t, err)
	if reply.StatusCode() != http.StatusCreated {
		t.Fatalf("partner: %d %s", reply.StatusCode(), reply.Body)
	}
	first.Stop()
	second := servertest.Start(t, servertest.Config{DataDir: dir})
	if second.Token != first.Token || len(tokens(t, second)) != 1 {
		t.Fatal("the second start made another token")
	}
	partners, err := second.Client().ListPartnersWithResponse(t.Context(), nil)
	must(t, err)
	if len(partners.JSON200.Items) != 1 {
		t.Fatal("the partner is gone")
	}
}

func TestADeletedTokenFileIsNotMadeAgain(t *testing.T) {
	dir := t.TempDir()
	first := servertest.Start(t, servertest.Config{DataDir: dir})
	first.Stop()
	must(t, os.Remove(filepath.Join(dir, "operator.token")))
	second := servertest.Start(t, servertest.Config{DataDir: dir})
	if second.Token != "" {
		t.Fatal("who may restart the control plane was given a new operator token")
	}
	second.Token = first.Token
	if len(tokens(t, second)) != 1 {
		t.Fatal("there is another token")
	}
}

func TestAFirstStartThatBrokeOffBeforeItsTokenWasStoredIsTakenUp(t *testing.T) {
	dir := t.TempDir()
	first := servertest.Start(t, servertest.Config{DataDir: dir})
	first.Stop()
	// What a crash between the file and the row leaves: the files, and a database without tokens.
	for _, name := range []string{"relay.db", "relay.db-wal", "relay.db-shm", "relay.db.mark"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	second := servertest.Start(t, servertest.Config{DataDir: dir})
	if second.Token != first.Token || len(tokens(t, second)) != 1 {
		t.Fatal("the token in the file is not the one that works")
	}
}

func TestATokenThatCannotBeWrittenDownIsNotMade(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "operator.token")
	must(t, os.Symlink(filepath.Join(dir, "nowhere"), path)) // no file is there, and none can be put there
	if err := run(t, dir); err == nil || !strings.Contains(err.Error(), "operator token: ") {
		t.Fatalf("the first start ended with %v", err)
	}
	must(t, os.Remove(path))
	if got := tokens(t, servertest.Start(t, servertest.Config{DataDir: dir})); len(got) != 1 {
		t.Fatalf("there are %d tokens, of which one is known", len(got))
	}
}

func TestATokenFileOfSomethingElseIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "operator.token")
	must(t, os.WriteFile(path, []byte("my notes\n"), 0o600))
	if err := run(t, dir); err == nil || !strings.Contains(err.Error(), "holds no operator token") {
		t.Fatalf("the first start ended with %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "my notes\n" {
		t.Fatalf("the file holds %q, %v", text, err)
	}
}

func TestALostSecretsKeyIsMissedAndNotReplaced(t *testing.T) {
	dir := t.TempDir()
	servertest.Start(t, servertest.Config{DataDir: dir}).Stop()
	must(t, os.Remove(filepath.Join(dir, "secrets.key")))
	err := run(t, dir)
	if err == nil || !strings.Contains(err.Error(), "secrets.key") || !strings.Contains(err.Error(), "set secrets-key-file") {
		t.Fatalf("the start ended with %v", err)
	}
}

func TestASecretsKeyThatIsNoneOrOpenToEverybodyIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
		mode             os.FileMode
	}{
		{name: "too short", text: "c2hvcnQ=", mode: 0o600, want: "want 32 bytes in base64"},
		{name: "open", text: strings.Repeat("A", 43) + "=", mode: 0o644, want: "chmod 600"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			must(t, os.WriteFile(path, []byte(test.text), test.mode))
			config := quiet(t.TempDir())
			config.SecretsKeyFile = path
			if err := server.Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestReplicasOnOnePostgreSQLShareOneKeyAndOneFirstToken(t *testing.T) {
	var postgres pgtest.Server
	must(t, postgres.Start())
	t.Cleanup(postgres.Stop)
	database := postgres.Database(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type result struct {
		dir string
		err error
	}
	ended, listening := make(chan result, 2), make(chan string, 2)
	for range 2 {
		config := quiet(t.TempDir())
		config.Database = database
		config.Listening = func(net.Addr) { listening <- config.DataDir }
		go func() { ended <- result{dir: config.DataDir, err: server.Run(ctx, config)} }()
	}
	first := <-listening
	loser := <-ended
	if loser.dir == first || loser.err == nil || !strings.Contains(loser.err.Error(), "key") {
		t.Fatalf("the second of two first starts ended with %v", loser.err)
	}
	if _, err := os.Stat(filepath.Join(loser.dir, "operator.token")); !os.IsNotExist(err) {
		t.Fatal("the second one left a token that nobody accepts")
	}
	replica := servertest.Start(t, servertest.Config{Database: database, DataDir: loser.dir, Configure: func(c *server.Config) {
		c.SecretsKeyFile = filepath.Join(first, "secrets.key")
	}})
	text, err := os.ReadFile(filepath.Join(first, "operator.token"))
	must(t, err)
	replica.Token = strings.TrimSpace(string(text))
	if got := tokens(t, replica); len(got) != 1 {
		t.Fatalf("there are %d tokens", len(got))
	}
	cancel()
	if last := <-ended; last.err != nil {
		t.Fatal(last.err)
	}
}

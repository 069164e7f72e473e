package server

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"

	"activerelay/api"
	"activerelay/server/internal/credential"
	"activerelay/server/internal/store"
)

// Names of the files that a first start leaves in the data directory.
const (
	operatorTokenFile = "operator.token"
	secretsKeyFile    = "secrets.key"
)

// errNotFirst means that another control plane has begun on the same database at the same time.
var errNotFirst = errors.New("another control plane was first")

// firstStart returns the installation's secrets key. On a database without any token it makes the key and the first
// operator's token.
//
// Files come before rows, so that a crash in between leaves a token that nobody accepts and never one that nobody
// knows; the next start takes up the file that it finds. Two control planes that begin on one database at once agree by
// the lock on the settings, and the second one removes what it has just made.
func firstStart(ctx context.Context, config Config, opened *store.Store) (key [32]byte, err error) {
	first := false
	err = opened.Read(ctx, store.System(), func(tx *store.Tx) error {
		count, err := tx.CountTokens()
		first = count == 0
		return err
	})
	if err != nil {
		return key, fmt.Errorf("look for tokens: %w", err)
	}
	if !first {
		return loadSecretsKey(config)
	}
	key, madeKey, err := makeSecretsKey(config)
	if err != nil {
		return key, err
	}
	path := filepath.Join(config.DataDir, operatorTokenFile)
	token, madeToken, err := makeOperatorToken(config, path)
	if err != nil {
		return key, err
	}
	err = insertFirstToken(ctx, opened, token)
	if errors.Is(err, errNotFirst) {
		return key, errors.Join(fmt.Errorf("first start: %w; start again, with its secrets key", err),
			removeIf(madeToken, path), removeIf(madeKey, filepath.Join(config.DataDir, secretsKeyFile)))
	}
	if err != nil {
		return key, fmt.Errorf("first start: %w", err)
	}
	config.Log.InfoContext(ctx, "first start: the operator's token was written", slog.String("file", path))
	return key, nil
}

func removeIf(made bool, path string) error {
	if !made {
		return nil
	}
	return os.Remove(path)
}

// insertFirstToken adds the token if there is still none, and begins the policy.
func insertFirstToken(ctx context.Context, opened *store.Store, token credential.Credential) error {
	row := store.Token{
		ID: "tok_" + token.ID.String(), Name: "first operator", Role: string(api.RoleOperator), SecretHash: token.Secret.Hash(),
	}
	return opened.Write(ctx, store.System(), func(tx *store.Tx) error {
		if _, err := tx.LockSettings(); err != nil { // one at a time
			return err
		}
		count, err := tx.CountTokens()
		if err != nil {
			return err
		}
		if count > 0 {
			return errNotFirst
		}
		tx.Audit(store.AuditRow{
			ActorName: "relay-server", ActorRole: "system", Action: "createToken", Object: "token/" + row.ID,
			Reason: "first start on an empty database",
		})
		tx.Publish(store.PlatformKey) // edges need the settings, also where nobody ever changes them
		return tx.InsertToken(&row)
	})
}

// makeOperatorToken writes a new token, or takes up the one of a start that did not get further.
func makeOperatorToken(config Config, path string) (token credential.Credential, made bool, err error) {
	text, err := readSecret(path)
	if err == nil {
		token, err = credential.Parse(text)
		if err == nil && token.Kind == credential.Operator {
			return token, false, nil
		}
		return token, false, fmt.Errorf("%s holds no operator token, and the database has none either; remove the file and start again", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return token, false, fmt.Errorf("operator token: %w", err)
	}
	id, err := ulid.New(ulid.Timestamp(config.Now()), rand.Reader)
	if err != nil {
		return token, false, fmt.Errorf("operator token: %w", err)
	}
	token = credential.New(credential.Operator, id)
	if err := createSecret(path, token.Token()); err != nil {
		return token, false, fmt.Errorf("operator token: %w", err)
	}
	return token, true, nil
}

// makeSecretsKey reads the key, or writes a new one where none is set and none is there.
func makeSecretsKey(config Config) (key [32]byte, made bool, err error) {
	key, err = loadSecretsKey(config)
	if config.SecretsKeyFile != "" || !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	_, _ = rand.Read(key[:]) // never fails
	if err := createSecret(filepath.Join(config.DataDir, secretsKeyFile), base64.StdEncoding.EncodeToString(key[:])); err != nil {
		return key, false, fmt.Errorf("secrets key: %w", err)
	}
	return key, true, nil
}

// loadSecretsKey never makes a key: what was sealed under a lost one could not be opened, and replicas with keys of their
// own would not read each other's secrets.
func loadSecretsKey(config Config) (key [32]byte, err error) {
	path := config.SecretsKeyFile
	if path == "" {
		path = filepath.Join(config.DataDir, secretsKeyFile)
	}
	key, err = readSecretsKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return key, fmt.Errorf("secrets key: %w; the database was begun with a key that belongs there: copy it, or set secrets-key-file", err)
	}
	if err != nil {
		return key, fmt.Errorf("secrets key: %w", err)
	}
	return key, nil
}

func readSecretsKey(path string) (key [32]byte, err error) {
	text, err := readSecret(path)
	if err != nil {
		return key, err
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != len(key) {
		return key, fmt.Errorf("%s: want %d bytes in base64, as `head -c %d /dev/urandom | base64` makes them", path, len(key), len(key))
	}
	return [32]byte(raw), nil
}

// readSecret reads one line from a file that is not open to everybody.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s: mode %#o lets everybody at it; chmod 600 it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

// createSecret writes a file that only its owner may read, whole or not at all, and never in place of another.
func createSecret(path, text string) error {
	fresh, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(fresh.Name()) }()
	_, err = fresh.WriteString(text + "\n")
	if err == nil {
		err = fresh.Sync()
	}
	if err := errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if err := os.Link(fresh.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Package uplink is the edge's side of its conversation with the control plane, apart from policy: it joins once, keeps and
// rotates its credential, fetches the secrets that policy names, reports events and leases quota.
//
// Every loop here may fail for days without harm: what is reported lies in the outbox and the ledger, what was fetched is
// kept, sealed, in the journal. A loop backs off with jitter while calls fail and starts afresh with the first success.
//
// The edge's private key and credential lie in DATA_DIR/identity.json (mode 0600), and nowhere else. Secrets stay sealed to
// that key on the disk; they are opened when they are used.
package uplink

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/nacl/box"
)

// Identity is what an edge is: it survives restarts and is never copied to another host.
type Identity struct {
	EdgeID     string `json:"edge_id"`
	Name       string `json:"name"`
	Server     string `json:"server"`
	Credential string `json:"credential"`
	PublicKey  string `json:"public_key"`
	PrivateKey string `json:"private_key"`
	// Generation is the first of this edge's leases and events.
	Generation int64 `json:"generation"`
	// RotatedAt is when the credential was last replaced, RFC 3339.
	RotatedAt string `json:"rotated_at"`
}

// ErrNotJoined means that the data directory holds no identity yet.
var ErrNotJoined = errors.New("this edge has not joined a control plane yet")

const (
	identityFile = "identity.json"
	joiningFile  = "joining.json"
)

// Store holds the identity in memory and on disk; its methods may be called from any goroutine.
type Store struct {
	dir string
	mu  sync.Mutex
	now Identity
}

// LoadIdentity reads the identity of the data directory, or answers ErrNotJoined.
func LoadIdentity(dir string) (*Store, error) {
	store := &Store{dir: dir}
	if err := readJSON(filepath.Join(dir, identityFile), &store.now); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotJoined
		}
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if store.now.EdgeID == "" || store.now.Credential == "" {
		return nil, fmt.Errorf("read identity: %s is incomplete; join again with a new token", filepath.Join(dir, identityFile))
	}
	return store, nil
}

// Identity answers the identity as it is now.
func (s *Store) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Token answers the credential for the next call.
func (s *Store) Token() string { return s.Identity().Credential }

// replaceCredential puts the new credential on disk before it is used, so that a crash in between loses neither.
func (s *Store) replaceCredential(credential, rotatedAt string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.now
	next.Credential, next.RotatedAt = credential, rotatedAt
	if err := writeJSON(filepath.Join(s.dir, identityFile), next); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	s.now = next
	return nil
}

// open opens what was sealed to this edge.
func (s *Store) open(sealed string) ([]byte, error) {
	identity := s.Identity()
	public, err := key(identity.PublicKey)
	if err != nil {
		return nil, err
	}
	private, err := key(identity.PrivateKey)
	if err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, fmt.Errorf("decode sealed secret: %w", err)
	}
	plain, ok := box.OpenAnonymous(nil, data, public, private)
	if !ok {
		return nil, errors.New("sealed secret is not for this edge's key")
	}
	return plain, nil
}

func newKeys(random io.Reader) (public, private string, err error) {
	pub, priv, err := box.GenerateKey(random)
	if err != nil {
		return "", "", fmt.Errorf("make key pair: %w", err)
	}
	return base64.StdEncoding.EncodeToString(pub[:]), base64.StdEncoding.EncodeToString(priv[:]), nil
}

func key(encoded string) (*[32]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != 32 {
		return nil, errors.New("identity holds no valid key; join again with a new token")
	}
	return (*[32]byte)(raw), nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// writeJSON replaces a file so that after a power cut there is the old one or the new one, whole.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = file.Chmod(0o600) // it may be there from before, as something else
	if err == nil {
		_, err = file.Write(append(data, '\n'))
	}
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

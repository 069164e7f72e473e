package uplink

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/api/problem"

	"github.com/oklog/ulid/v2"
)

// JoinConfig says where and as what to join. All fields are required.
type JoinConfig struct {
	Dir       string
	Server    string
	Name      string
	JoinToken string
	Version   string
	Client    *client.ClientWithResponses
	Now       func() time.Time
}

// attempt is written before the call, so that a crash or a lost reply in the middle of joining is healed by asking again
// under the same Idempotency-Key with the same key pair.
type attempt struct {
	IdempotencyKey string `json:"idempotency_key"`
	JoinToken      string `json:"join_token"`
	PublicKey      string `json:"public_key"`
	PrivateKey     string `json:"private_key"`
}

// ErrJoined means that the data directory holds an identity already, sound or not. It is never overwritten: a lost key
// makes every sealed secret useless, a lost edge id leaves its leases behind.
var ErrJoined = errors.New("the data directory holds an identity already")

// Join exchanges the join token for an identity and puts it into the data directory.
func Join(ctx context.Context, c JoinConfig) (*Store, error) {
	if _, err := os.Lstat(filepath.Join(c.Dir, identityFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("join %s: %w: %s", c.Server, ErrJoined, filepath.Join(c.Dir, identityFile))
	}
	try, err := prepare(c)
	if err != nil {
		return nil, fmt.Errorf("prepare to join: %w", err)
	}
	reply, err := c.Client.JoinEdgeWithResponse(ctx, &api.JoinEdgeParams{IdempotencyKey: &try.IdempotencyKey}, api.EdgeJoin{
		JoinToken: &try.JoinToken, Name: c.Name, PublicKey: try.PublicKey, Version: c.Version, CapabilityVersion: api.CapabilityVersion,
	})
	if err != nil {
		if refused(err) {
			// The token is used up, expired or mistyped: the next one is a new attempt.
			_ = os.Remove(filepath.Join(c.Dir, joiningFile))
		}
		return nil, fmt.Errorf("join %s: %w", c.Server, err)
	}
	if reply.JSON201 == nil || reply.JSON201.EdgeID == "" || reply.JSON201.Credential == "" {
		return nil, fmt.Errorf("join %s: unexpected reply %s", c.Server, reply.Status())
	}
	identity := Identity{
		EdgeID: reply.JSON201.EdgeID, Name: c.Name, Server: c.Server, Credential: reply.JSON201.Credential,
		PublicKey: try.PublicKey, PrivateKey: try.PrivateKey, Generation: reply.JSON201.Generation, RotatedAt: c.Now().UTC().Format(time.RFC3339),
	}
	if err := writeJSON(filepath.Join(c.Dir, identityFile), identity); err != nil {
		return nil, fmt.Errorf("write identity: %w", err)
	}
	_ = os.Remove(filepath.Join(c.Dir, joiningFile))
	return &Store{dir: c.Dir, now: identity}, nil
}

// JoinPatiently is Join that waits for a control plane which cannot be reached, or is in trouble, until ctx ends. A token that
// is refused, and a certificate of an authority that is not known here, are an error at once: no waiting mends them.
func JoinPatiently(ctx context.Context, c JoinConfig, log *slog.Logger) (*Store, error) {
	var wait pause
	for {
		store, err := Join(ctx, c)
		if err == nil || ctx.Err() != nil || refused(err) || errors.Is(err, ErrJoined) || errors.As(err, new(x509.UnknownAuthorityError)) {
			return store, err
		}
		log.WarnContext(ctx, "not joined yet; trying again", "error", err)
		wait.sleep(ctx)
	}
}

// refused tells whether the control plane will never take this attempt. One that it may take later (its rate limit, a first
// call that still runs) must be made again as it was: a new one would find the token used up.
func refused(err error) bool {
	var p *problem.Problem
	return errors.As(err, &p) && p.Status < 500 && p.RetryAfter == 0 && p.Status != http.StatusTooManyRequests
}

// prepare answers the attempt that was begun with this token, or begins one.
func prepare(c JoinConfig) (attempt, error) {
	path := filepath.Join(c.Dir, joiningFile)
	var try attempt
	err := readJSON(path, &try)
	if err == nil && try.JoinToken == c.JoinToken {
		return try, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return attempt{}, err
	}
	public, private, err := newKeys(rand.Reader)
	if err != nil {
		return attempt{}, err
	}
	id, err := ulid.New(ulid.Timestamp(c.Now()), rand.Reader)
	if err != nil {
		return attempt{}, fmt.Errorf("make idempotency key: %w", err)
	}
	try = attempt{IdempotencyKey: id.String(), JoinToken: c.JoinToken, PublicKey: public, PrivateKey: private}
	return try, writeJSON(path, try)
}

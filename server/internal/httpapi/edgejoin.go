package httpapi

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/credential"
	"activerelay/server/internal/store"
)

// JoinEdge exchanges a join token for the identity of an edge. The token is the credential of this operation, which is
// public otherwise: whatever is wrong with it, unknown, wrong, used, expired or revoked, is answered in the same words.
func (a *API) JoinEdge(ctx context.Context, r rest.JoinEdgeRequestObject) (rest.JoinEdgeResponseObject, error) {
	if err := checkPublicKey(r.Body.PublicKey); err != nil {
		return nil, err
	}
	token, err := a.presentedJoinToken(ctx, text(r.Body.JoinToken))
	if err != nil {
		return nil, err
	}
	// The token is known to be the caller's from here on, so an attempt whose reply was lost can be answered again, though
	// the token is used up by then.
	return idempotent(ctx, a, attempt[rest.JoinEdgeResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true, principal: token,
		visit: rest.JoinEdgeResponseObject.VisitJoinEdgeResponse,
	}, func(tx *store.Tx) (rest.JoinEdgeResponseObject, error) {
		return a.join(ctx, tx.As(store.System()), token, *r.Body)
	})
}

// checkPublicKey refuses a key that nothing could be sealed to. A point of low order would make what is sealed to it
// readable by everybody.
func checkPublicKey(encoded string) error {
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err == nil {
		err = usableKey(raw)
	}
	if err != nil {
		return invalid("/public_key", "x25519", "must be an X25519 public key, 32 bytes in base64")
	}
	return nil
}

func usableKey(raw []byte) error {
	public, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return err
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	_, err = private.ECDH(public)
	return err
}

// presentedJoinToken returns the id of the join token that a text is. An unknown id costs the same as a wrong secret.
func (a *API) presentedJoinToken(ctx context.Context, presentedText string) (string, error) {
	presented, err := credential.Parse(presentedText)
	if err != nil || presented.Kind != credential.Join {
		return "", problem.Unauthenticated()
	}
	var row store.JoinToken
	err = a.Store.Read(ctx, store.System(), func(tx *store.Tx) (err error) {
		row, err = tx.JoinToken(joinTokenID(presented))
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("look up join token: %w", err)
	}
	if !presented.Matches(row.SecretHash) {
		return "", problem.Unauthenticated()
	}
	return row.ID, nil
}

// join uses a token up and adds the edge in the same transaction.
func (a *API) join(ctx context.Context, tx *store.Tx, token string, body api.EdgeJoin) (rest.JoinEdgeResponseObject, error) {
	used, err := tx.LockJoinToken(token)
	if errors.Is(err, store.ErrNotFound) || err == nil && (used.UsedAt != nil || !tx.Now.Before(used.ExpiresAt)) {
		return nil, problem.Unauthenticated()
	}
	if err != nil {
		return nil, err
	}
	made := credential.New(credential.Edge, newULID(tx.Now))
	row := store.Edge{
		ID: edgeID(made), Name: body.Name, Partners: used.Partners, PublicKey: body.PublicKey, SoftwareVersion: body.Version,
		CapabilityVersion: body.CapabilityVersion, CredentialHash: made.Secret.Hash(),
	}
	if err := tx.InsertEdge(&row); err != nil {
		return nil, err
	}
	if err := tx.UseJoinToken(&used, row.ID); err != nil {
		return nil, err
	}
	by := Principal{TokenID: used.ID, Name: row.Name, Role: api.RoleEdge}
	err = a.auditBy(ctx, tx, by, change{object: "edge/" + row.ID, after: a.edgeToAPI(row, store.LastRejection{})})
	return rest.JoinEdge201JSONResponse{EdgeID: row.ID, Credential: made.Token(), Generation: row.Generation}, err
}

// RotateEdgeCredential makes a new credential for the calling edge. The old one goes on until the new one is first used,
// so that a lost reply locks nobody out; another rotation before that replaces the one that was never used.
func (a *API) RotateEdgeCredential(ctx context.Context, r rest.RotateEdgeCredentialRequestObject) (rest.RotateEdgeCredentialResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.RotateEdgeCredentialResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true,
		visit: rest.RotateEdgeCredentialResponseObject.VisitRotateEdgeCredentialResponse,
	}, func(tx *store.Tx) (rest.RotateEdgeCredentialResponseObject, error) {
		row, err := lockOwnEdge(ctx, tx)
		if err != nil {
			return nil, err
		}
		id, err := ulid.ParseStrict(strings.TrimPrefix(row.ID, "edg_"))
		if err != nil {
			return nil, fmt.Errorf("id of edge %s: %w", row.ID, err)
		}
		made := credential.New(credential.Edge, id)
		if err := tx.SetNextCredential(&row, made.Secret.Hash()); err != nil {
			return nil, err
		}
		err = a.audit(ctx, tx, change{object: "edge/" + row.ID, secrets: []string{"credential"}})
		return rest.RotateEdgeCredential200JSONResponse{EdgeID: row.ID, Credential: made.Token()}, err
	})
}

// lockOwnEdge returns the calling edge, which may have been retired since it was authenticated.
func lockOwnEdge(ctx context.Context, tx *store.Tx) (store.Edge, error) {
	row, err := tx.LockEdge(PrincipalFrom(ctx).Edge)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Status != store.EdgeActive {
		return row, problem.Unauthenticated()
	}
	return row, err
}

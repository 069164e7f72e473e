package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/box"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

const (
	// feedbackSecret is the id under which an edge asks for the key of its feedback tokens.
	feedbackSecret = "feedback"
	// feedbackKeyVersion is that of feedbackKey: another derivation would be the next.
	feedbackKeyVersion = 1
)

// plainSecret is a secret before it is sealed.
type plainSecret struct {
	version int64
	value   []byte
}

// GetEdgeSecrets answers secrets that the calling edge needs, sealed to its public key, in the order in which it asks.
// What is outside of its scope is not found.
func (a *API) GetEdgeSecrets(ctx context.Context, r rest.GetEdgeSecretsRequestObject) (rest.GetEdgeSecretsResponseObject, error) {
	edge := PrincipalFrom(ctx)
	var row store.Edge
	found := make([]plainSecret, len(r.Params.ID))
	err := a.Store.Read(ctx, edge.Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.Edge(edge.Edge); err != nil {
			return err
		}
		for i, id := range r.Params.ID {
			if found[i], err = a.secretOf(tx, row, id); err != nil {
				return notFound(err, "secret")
			}
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem.Unauthenticated()
	}
	if err != nil {
		return nil, err
	}
	secrets := make([]api.SealedSecret, len(found))
	for i, secret := range found {
		sealed, err := sealTo(row.PublicKey, secret.value)
		if err != nil {
			return nil, fmt.Errorf("seal secret to edge %s: %w", row.ID, err)
		}
		secrets[i] = api.SealedSecret{ID: r.Params.ID[i], Version: secret.version, Sealed: sealed}
	}
	return rest.GetEdgeSecrets200JSONResponse{Secrets: secrets}, nil
}

// secretOf finds a secret by id: the edge's own feedback key, or the password of a route that it may use.
func (a *API) secretOf(tx *store.Tx, edge store.Edge, id string) (plainSecret, error) {
	if id == feedbackSecret {
		key := a.feedbackKey(edge.ID)
		return plainSecret{version: feedbackKeyVersion, value: key[:]}, nil
	}
	route, err := tx.RouteForEdge(id)
	if err != nil {
		return plainSecret{}, err
	}
	if route.PasswordSealed == nil {
		return plainSecret{}, store.ErrNotFound
	}
	password, err := a.routePassword(route)
	if err != nil {
		return plainSecret{}, fmt.Errorf("password of route %s: %w", route.ID, err)
	}
	return plainSecret{version: route.SecretVersion, value: password}, nil
}

// sealTo makes a NaCl anonymous sealed box for an X25519 public key; all is base64.
func sealTo(publicKey string, plain []byte) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(publicKey)
	if err != nil || len(raw) != 32 {
		return "", errors.New("the edge has no usable public key")
	}
	sealed, err := box.SealAnonymous(nil, plain, (*[32]byte)(raw), rand.Reader)
	return base64.StdEncoding.EncodeToString(sealed), err
}

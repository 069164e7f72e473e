package httpapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/server/internal/store"
)

// IdempotencyWindow is how long the result of an executed request is kept.
const IdempotencyWindow = 24 * time.Hour

// attempt is one POST as far as a repetition of it is concerned.
type attempt[R any] struct {
	// key is the Idempotency-Key; nil means that every request is a new one.
	key *api.IdempotencyKey
	// request is what was asked: the generated request object, or its fields where that holds a stream.
	request any
	// visit writes a response, e.g. rest.SuspendPartnerResponseObject.VisitSuspendPartnerResponse.
	visit func(R, http.ResponseWriter) error
	// secret marks replies that show a secret: they are kept encrypted under the Idempotency-Key, which itself is not
	// kept, so that nobody who has the database alone can read them.
	secret bool
	// principal stands for the caller on public operations. Empty means the caller's token.
	principal string
}

// idempotent runs fn in a write transaction of the caller. Under an Idempotency-Key the result is kept in the same
// transaction, and a repetition gets it again without running fn; another request under the key is refused. What fails
// is not kept, because it had no effect.
func idempotent[R any](ctx context.Context, a *API, t attempt[R], fn func(tx *store.Tx) (R, error)) (R, error) {
	var response R
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if t.key == nil {
			response, err = fn(tx)
			return err
		}
		row, err := a.reserve(ctx, tx, t.principal, *t.key, t.request)
		if err != nil {
			return err
		}
		if response, err = fn(tx); err != nil {
			return err
		}
		kept := &recorder{header: http.Header{}, status: http.StatusOK}
		if err := t.visit(response, kept); err != nil {
			return err
		}
		return a.keep(tx, row, kept, *t.key, t.secret)
	})
	return response, err
}

// reserve takes the key for this transaction. Where it was taken before, the error is what the client is answered: a
// *replay or a problem.
func (a *API) reserve(ctx context.Context, tx *store.Tx, principal, key string, request any) (*store.IdempotencyKey, error) {
	if principal == "" {
		principal = PrincipalFrom(ctx).TokenID
	}
	hash, err := a.requestHash(ctx, request)
	if err != nil {
		return nil, err
	}
	row := &store.IdempotencyKey{Principal: principal, Key: a.keyName(key), Operation: operationID(ctx), RequestHash: hash}
	free, err := tx.ReserveIdempotencyKey(row)
	if err != nil || free {
		return row, err
	}
	kept, err := tx.IdempotencyKey(row.Principal, row.Key)
	if err != nil {
		return nil, err
	}
	if kept.CreatedAt.Before(tx.Now.Add(-IdempotencyWindow)) {
		return row, tx.ReplaceIdempotencyKey(row)
	}
	if kept.Operation != row.Operation || !hmac.Equal(kept.RequestHash, hash) {
		return nil, problem.IdempotencyConflict()
	}
	return nil, a.replay(kept, key)
}

// keep writes the result beside its effect.
func (a *API) keep(tx *store.Tx, row *store.IdempotencyKey, result *recorder, key string, secret bool) error {
	headers, err := json.Marshal(result.header)
	if err != nil {
		return err
	}
	row.Status, row.Headers, row.Body, row.Sealed = result.status, string(headers), result.body.Bytes(), secret
	if secret {
		if row.Body, err = seal(a.replyKey(key), row.Body, []byte(row.Key)); err != nil {
			return err
		}
	}
	return tx.FinishIdempotencyKey(row)
}

func (a *API) replay(kept store.IdempotencyKey, key string) error {
	again := &replay{status: kept.Status, body: kept.Body}
	if err := json.Unmarshal([]byte(kept.Headers), &again.header); err != nil {
		return fmt.Errorf("kept headers: %w", err)
	}
	if kept.Sealed {
		var err error
		if again.body, err = open(a.replyKey(key), kept.Body, []byte(kept.Key)); err != nil {
			return fmt.Errorf("kept reply: %w", err)
		}
	}
	return again
}

// keyName is what is stored of an Idempotency-Key: enough to find it, too little to open what is sealed under it.
func (a *API) keyName(key string) string {
	return hex.EncodeToString(deriveKey(append(a.subkey("idempotency name"), key...), "idempotency name"))
}

func (a *API) replyKey(key string) []byte {
	return deriveKey(append(a.subkey("idempotency reply"), key...), "idempotency reply")
}

// requestHash identifies a request. It is keyed, because requests hold passwords that a plain hash would let guess.
func (a *API) requestHash(ctx context.Context, request any) ([]byte, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("hash request: %w", err)
	}
	mac := hmac.New(sha256.New, a.subkey("request hash"))
	mac.Write([]byte(operationID(ctx)))
	mac.Write(text)
	return mac.Sum(nil), nil
}

// replay is a kept result on its way to the client. It travels as an error, because the transaction that found it must
// not commit anything.
type replay struct {
	status int
	header http.Header
	body   []byte
}

func (*replay) Error() string { return "replay of a kept result" }

func (r *replay) write(w http.ResponseWriter) error {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.Header().Set("Idempotent-Replayed", "true")
	w.WriteHeader(r.status)
	_, err := w.Write(r.body)
	return err
}

// asReplay returns the kept result in an error chain.
func asReplay(err error) (*replay, bool) {
	var again *replay
	ok := errors.As(err, &again)
	return again, ok
}

// recorder takes down a response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

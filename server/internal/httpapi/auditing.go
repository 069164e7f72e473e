package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"activerelay/server/internal/store"
)

// change is what one operation does to one object.
type change struct {
	// object is "kind/key", partner whose it is; empty for the platform's own.
	object, partner string
	reason          string
	// before and after are the object as the API shows it; nil where it did not or does not exist.
	before, after any
	// secrets names write-only properties that changed; their values are never written.
	secrets []string
}

// masked stands for the value of a secret.
const masked = "***"

// audit notes a change in the transaction that makes it.
func (a *API) audit(ctx context.Context, tx *store.Tx, c change) error {
	return a.auditBy(ctx, tx, PrincipalFrom(ctx), c)
}

// auditBy notes a change of a public operation, whose caller shows who it is in another way than by a token of the API.
func (a *API) auditBy(ctx context.Context, tx *store.Tx, by Principal, c change) error {
	changes, err := differences(c.before, c.after)
	if err != nil {
		return fmt.Errorf("audit %s: %w", c.object, err)
	}
	for _, name := range c.secrets {
		changes[name] = map[string]any{"from": masked, "to": masked}
	}
	text, err := json.Marshal(changes)
	if err != nil {
		return fmt.Errorf("audit %s: %w", c.object, err)
	}
	tx.Audit(store.AuditRow{
		TokenID: by.TokenID, ActorName: by.Name, ActorRole: string(by.Role), ActorPartner: by.Partner,
		Action: operationID(ctx), Object: c.object, Partner: c.partner, Reason: c.reason,
		RequestID: callFrom(ctx).requestID, Changes: string(text),
	})
	return nil
}

// differences lists the properties whose wire form changed, each with "from" and "to". A property that is absent on one
// side is null there. The time of the change is the entry's own.
func differences(before, after any) (map[string]any, error) {
	from, err := wireObject(before)
	if err != nil {
		return nil, err
	}
	to, err := wireObject(after)
	if err != nil {
		return nil, err
	}
	changes := map[string]any{}
	for name := range from {
		if !reflect.DeepEqual(from[name], to[name]) {
			changes[name] = map[string]any{"from": from[name], "to": to[name]}
		}
	}
	for name := range to {
		if _, known := from[name]; !known {
			changes[name] = map[string]any{"from": nil, "to": to[name]}
		}
	}
	delete(changes, "updated_at")
	return changes, nil
}

// unchanged reports whether an edit came to nothing, so that it need not be written. before is nil for a new object.
func unchanged(before, after any) (bool, error) {
	if before == nil {
		return false, nil
	}
	changes, err := differences(before, after)
	return len(changes) == 0, err
}

// wireObject decodes the wire form of a value into its members; nil has none.
func wireObject(value any) (map[string]any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	err = json.Unmarshal(text, &object)
	return object, err
}

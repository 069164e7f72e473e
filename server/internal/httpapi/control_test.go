package httpapi

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"activerelay/api/rest"
)

func TestControl7AnOperationWithoutScopeOrRoleFailsAtStartUp(t *testing.T) {
	for name, breakIt := range map[string]func(extensions map[string]any){
		"no scope":         func(e map[string]any) { delete(e, "x-scope") },
		"an empty scope":   func(e map[string]any) { e["x-scope"] = "" },
		"an unknown scope": func(e map[string]any) { e["x-scope"] = "domains:burn" },
		"no role":          func(e map[string]any) { delete(e, "x-roles") },
		"no roles":         func(e map[string]any) { e["x-roles"] = []any{} },
		"an unknown role":  func(e map[string]any) { e["x-roles"] = []any{"operator", "visitor"} },
	} {
		t.Run(name, func(t *testing.T) {
			document, err := rest.GetSpec()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := indexContract(document); err != nil {
				t.Fatalf("the contract as it is: %v", err)
			}
			breakIt(document.Paths.Find("/v1/domains/{domain}").Delete.Extensions)
			_, err = indexContract(document)
			if err == nil || !strings.Contains(err.Error(), "DELETE /v1/domains/{domain}") {
				t.Errorf("got %v, want an error that names the operation", err)
			}
		})
	}
}

func TestControl7APrincipalOfNoRoleMayDoNothing(t *testing.T) {
	contract, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	for route, op := range contract.byRoute {
		method, _, _ := strings.Cut(route, " ")
		if op.scope != scopePublic && (Principal{}).may(op, method) {
			t.Errorf("nobody may %s", op.id)
		}
	}
}

func TestControl9PasswordsAreHashedSoManyAtOnce(t *testing.T) {
	h := newHashing()
	for h.slots.TryAcquire(1) { // all turns are taken
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := h.hash(ctx, "correct horse battery"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want to wait for a turn", err)
	}
	h.slots.Release(1)
	if text, err := h.hash(t.Context(), "correct horse battery"); err != nil || !strings.HasPrefix(text, "$argon2id$") {
		t.Errorf("with a turn: %q, %v", text, err)
	}
}

package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"activerelay/api/rest"
)

func TestControl13AnEdgeReadsThePolicyOfItsPartnersOnly(t *testing.T) {
	f := newFixture(t)
	for _, slug := range []string{"acme", "other"} {
		f.partner(slug)
		f.domain(slug, slug+".example", 100)
	}
	e := f.edge("fra1", "acme")
	page := e.pull("", "")
	keys := page.keys()
	for _, key := range []string{"partner/acme", "domain/acme.example"} {
		if _, told := keys[key]; !told {
			t.Errorf("%s is missing", key)
		}
	}
	for key := range keys {
		if strings.Contains(key, "other") {
			t.Errorf("the edge is told %s, which is not in its scope", key)
		}
	}
	// A change outside of the scope wakes nobody with anything.
	f.call(f.Token, "POST", "/v1/domains/other.example/suspend", object{"reason": "contract ended"}).want(200)
	e.call("GET", pollPath(page.at(), 0, 0), nil).want(204)
	f.call(f.Token, "DELETE", "/v1/domains/acme.example", nil).want(204)
	if gone := e.pull(page.at().epoch, page.at().after).keys()["domain/acme.example"]; !gone.Deleted {
		t.Errorf("the deletion arrives as %+v", gone)
	}
}

// An edge of one partner is told which names below that partner's domain are others', though not their documents: or it would
// let the one speak as the other.
func TestControl13AnEdgeIsToldWhichSubdomainsBelongToOtherPartners(t *testing.T) {
	f := newFixture(t)
	for _, slug := range []string{"acme", "other"} {
		f.partner(slug)
	}
	f.domain("acme", "acme.example", 100)
	f.call(f.Token, "PATCH", "/v1/domains/acme.example", object{"include_subdomains": true}).want(200)
	e := f.edge("fra1", "acme")
	excepted := func() []string { return e.pull("", "").keys()["domain/acme.example"].Domain.ExceptSubdomains }
	if got := excepted(); len(got) != 0 {
		t.Fatalf("before there are any: %v", got)
	}
	f.domain("other", "sub.acme.example", 100)
	f.domain("acme", "own.acme.example", 100)
	if got := excepted(); !slices.Equal(got, []string{"sub.acme.example"}) {
		t.Errorf("excepted are %v, want the other partner's", got)
	}
	f.call(f.Token, "DELETE", "/v1/domains/sub.acme.example", nil).want(204)
	if got := excepted(); len(got) != 0 {
		t.Errorf("once it is deleted: %v", got)
	}
}

func TestControl13AnEdgeMayCallWhatItsProtocolNeedsAndNothingElse(t *testing.T) {
	f := newFixture(t)
	e := f.edge("fra1")
	spec, err := rest.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	refused, edgeOnly := 0, 0
	for path, item := range spec.Paths.Map() {
		for method, operation := range item.Operations() {
			roles, _ := operation.Extensions["x-roles"].([]any)
			scope := operation.Extensions["x-scope"]
			url := strings.NewReplacer("{", "x", "}", "").Replace(path)
			switch {
			case scope == "public":
			case !slices.Contains(roles, any("edge")):
				refused++
				got, err := f.try(t.Context(), e.credential, method, url, nil, http.Header{})
				if err != nil || got.status != http.StatusForbidden {
					t.Errorf("%s: an edge gets %d, want 403 (%v)", operation.OperationID, got.status, err)
				}
			case scope == "edge":
				edgeOnly++
				got, err := f.try(t.Context(), f.Token, method, url, nil, http.Header{})
				if err != nil || got.status != http.StatusForbidden {
					t.Errorf("%s: the operator gets %d, want 403 (%v)", operation.OperationID, got.status, err)
				}
			}
		}
	}
	if refused < 50 || edgeOnly != 5 {
		t.Errorf("%d operations are closed to edges and %d are theirs: the contract was not read", refused, edgeOnly)
	}
}

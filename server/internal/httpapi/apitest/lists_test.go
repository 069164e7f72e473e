package apitest_test

import (
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// page reads one page of a list.
func (w *world) page(t *testing.T, token, path string, size int, after string) (items []any, next string) {
	t.Helper()
	answer := w.askAs(t, token, "GET", pagePath(path, size, after), nil)
	items, _ = answer["items"].([]any)
	return items, text(answer, "next_page_token")
}

func pagePath(path string, size int, after string) string {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	path += separator + "page_size=" + strconv.Itoa(size)
	if after != "" {
		path += "&page_token=" + url.QueryEscape(after)
	}
	return path
}

// pages reads a list page by page.
func (w *world) pages(t *testing.T, token, path string, size int) []any {
	t.Helper()
	all := []any{}
	for after := ""; ; {
		items, next := w.page(t, token, path, size, after)
		if len(items) > size {
			t.Fatalf("%s: %d items on a page of %d", path, len(items), size)
		}
		all = append(all, items...)
		if next == "" {
			return all
		}
		if len(items) < size {
			t.Fatalf("%s: a page of %d items with one after it, want %d", path, len(items), size)
		}
		after = next
	}
}

// lists are the operations with pages, each with the filter that narrows it, empty for none.
func lists(t *testing.T) []operation {
	t.Helper()
	var found []operation
	for _, op := range operations(t) {
		if op.declared.Parameters.GetByInAndName("query", "page_token") != nil {
			found = append(found, op)
		}
	}
	return found
}

// For every list and every size of page: the pages together are the whole, in its order.
func TestPagesTogetherAreTheWholeList(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		for _, partner := range []string{"one", "two", "three", "four"} {
			w.scene(t, partner, "address", "relay_ip_id", "route_id", "complaint_id", "edge_id", "join_token_id", "token_id", "ref", "message_id", "destination")
		}
		partner, _ := w.newToken(t, map[string]any{"role": "partner", "partner": "two"})
		w.do(t, whoami(partner))
		for _, op := range lists(t) {
			for name, token := range map[string]string{"operator": w.Token, "partner": partner} {
				if !op.allows(name) {
					continue
				}
				whole, next := w.page(t, token, op.path, 200, "")
				if next != "" || name == "operator" && len(whole) < 4 || len(whole) == 0 {
					t.Fatalf("%s as %s: %d items, next %q", op.id, name, len(whole), next)
				}
				for _, size := range []int{1, 2, 3, len(whole) - 1, len(whole), len(whole) + 1} {
					if size < 1 || size == 1 && len(whole) > 20 {
						continue
					}
					if parts := w.pages(t, token, op.path, size); !reflect.DeepEqual(parts, whole) {
						t.Errorf("%s as %s in pages of %d: %d items, want %d", op.id, name, size, len(parts), len(whole))
					}
				}
			}
		}
	})
}

// What is added or deleted behind the reader's back neither repeats nor hides what stays.
func TestAListThatChangesWhileItIsReadShowsOnceWhatStays(t *testing.T) {
	w := newWorld(t)
	w.ask(t, "PUT", "/v1/partners/acme", map[string]any{"name": "Acme"})
	for _, name := range []string{"b", "d", "f", "h"} {
		w.ask(t, "PUT", "/v1/domains/"+name+".example", map[string]any{"partner": "acme"})
	}
	first, next := w.page(t, w.Token, "/v1/domains", 2, "")
	w.ask(t, "DELETE", "/v1/domains/d.example", nil) // the one that the token points at
	w.ask(t, "PUT", "/v1/domains/a.example", map[string]any{"partner": "acme"})
	w.ask(t, "PUT", "/v1/domains/e.example", map[string]any{"partner": "acme"})
	second, end := w.page(t, w.Token, "/v1/domains", 5, next)
	var names []string
	for _, item := range append(first, second...) {
		object, _ := item.(map[string]any)
		names = append(names, text(object, "name"))
	}
	if want := []string{"b.example", "d.example", "e.example", "f.example", "h.example"}; !reflect.DeepEqual(names, want) || end != "" {
		t.Errorf("got %v, want %v", names, want)
	}
}

func TestAPageTokenBelongsToItsListFilterAndTenant(t *testing.T) {
	w := newWorld(t)
	for _, partner := range []string{"one", "two"} {
		w.scene(t, partner, "address", "relay_ip_id", "route_id", "complaint_id", "edge_id", "join_token_id", "token_id", "ref", "message_id", "destination")
	}
	other, _ := w.newToken(t, map[string]any{"role": "partner", "partner": "one"})
	all := lists(t)
	tokens := map[string]string{}
	for _, op := range all {
		_, tokens[op.id] = w.page(t, w.Token, op.path, 1, "")
		if tokens[op.id] == "" {
			t.Fatalf("%s has one page only", op.id)
		}
	}
	refused := func(what string, answer reply) {
		t.Helper()
		fields := answer.problem(t).Errors
		if answer.status != http.StatusBadRequest || len(fields) != 1 || fields[0].Pointer != "query/page_token" {
			t.Errorf("%s: got %d %s", what, answer.status, answer.body)
		}
	}
	for i, op := range all {
		token := tokens[op.id]
		path := pagePath(op.path, 1, token)
		if answer := w.do(t, call{method: "GET", path: path, token: w.Token}); answer.status != http.StatusOK {
			t.Errorf("%s: got %d %s", op.id, answer.status, answer.body)
		}
		refused(op.id+" with the token of another list", w.do(t, call{method: "GET", path: pagePath(op.path, 1, tokens[all[(i+1)%len(all)].id]), token: w.Token}))
		for _, filter := range []string{"partner=one", "domain=one.example", "status=active", "state=requested", "destination=dest.example", "edge=edg_1", "object=partner/one", "prefix=o"} {
			name, _, _ := strings.Cut(filter, "=")
			if op.id == "listQueue" && name == "state" {
				filter = "state=held"
			}
			if op.declared.Parameters.GetByInAndName("query", name) != nil {
				refused(op.id+" with "+filter, w.do(t, call{method: "GET", path: path + "&" + filter, token: w.Token}))
			}
		}
		if op.allows("partner") {
			refused(op.id+" of another tenant", w.do(t, call{method: "GET", path: path, token: other}))
		}
		flipped := []byte(token)
		flipped[len(flipped)/2] ^= 1
		refused(op.id+" with a changed token", w.do(t, call{method: "GET", path: pagePath(op.path, 1, string(flipped)), token: w.Token}))
	}
}

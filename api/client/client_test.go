package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"activerelay/api/client"
	"activerelay/api/problem"
)

func TestAProblemReplyIsAnErrorThatKeepsItsReason(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer rly_op_x" {
			t.Errorf("Authorization = %q", got)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"type":"urn:activerelay:reason:not-found","title":"Not found","status":404,"reason":"not-found","request_id":"r1"}`))
	}))
	defer server.Close()
	c, err := client.New(client.Config{URL: server.URL, Token: func() string { return "rly_op_x" }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.GetDomainWithResponse(context.Background(), "example.com")
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != 404 || string(p.Reason) != "not-found" || p.RequestID != "r1" {
		t.Fatalf("err = %#v", err)
	}
}

func TestARedirectIsNotFollowedWithTheCredential(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("followed to another host with Authorization %q", r.Header.Get("Authorization"))
	}))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer server.Close()
	c, err := client.New(client.Config{URL: server.URL, Token: func() string { return "secret" }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetDomainWithResponse(context.Background(), "example.com"); err == nil {
		t.Fatal("a redirect counted as success")
	}
}

func TestAnAddressThatWouldShowTheCredentialIsRefused(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"http://relay.example.com", "plain HTTP is for loopback only"},
		{"relay.example.com", "want https://"},
		{"ftp://127.0.0.1", "want https://"},
		{"https://relay.example.com", ""},
		{"http://127.0.0.1:8080", ""},
		{"http://localhost:8080", ""},
		{"http://[::1]:8080", ""},
	} {
		_, err := client.New(client.Config{URL: test.url})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.url, err, test.want)
		}
	}
}

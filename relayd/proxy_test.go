package relayd_test

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"activerelay/relayd"
	"activerelay/relayd/relaytest/edgetest"
)

// Control 19: what a load balancer says by the PROXY protocol decides who the client is. swaks says it, in both versions.
func TestControl19ClientBehindALoadBalancerIsJudgedByItsOwnAddress(t *testing.T) {
	swaks, err := exec.LookPath("swaks")
	if err != nil {
		t.Skipf("SKIPPED %s: swaks is not installed", t.Name())
	}
	w := newWorld(t)
	w.call("PUT", "/v1/domains/behind.example", `{"partner":"acme"}`, nil)
	w.call("POST", "/v1/relay-ips", `{"domain":"behind.example","address":"192.0.2.10"}`, nil)
	w.call("POST", "/v1/relay-ips", `{"domain":"behind.example","address":"2001:db8::10"}`, nil)
	e := edgetest.Start(t, edgetest.Config{
		Server: w.plane.URL, JoinToken: w.joinToken(), Now: w.clock,
		Configure: func(c *relayd.Config) { c.ProxyPeers = []string{"127.0.0.1", "2001:db8:1::/64"} },
	})
	send := func(source, subject string, flags ...string) string {
		host, port, err := net.SplitHostPort(e.Relay)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, _ := exec.CommandContext(ctx, swaks, append(flags, "--server", host, "--port", port, "--from", "anna@behind.example",
			"--to", "bob@example.net", "--header", "Subject: "+subject, "--proxy-source", source, "--proxy-source-port", "40000",
			"--proxy-dest", source, "--proxy-dest-port", "25")...).CombinedOutput() // a refusal is an error to swaks
		return string(out)
	}
	v1, v1six := []string{"--proxy-version", "1", "--proxy-family", "TCP4"}, []string{"--proxy-version", "1", "--proxy-family", "TCP6"}
	v2, v2six := []string{"--proxy-version", "2", "--proxy-family", "AF_INET"}, []string{"--proxy-version", "2", "--proxy-family", "AF_INET6"}
	eventually(t, "policy at the edge", func() bool { return strings.Contains(send("192.0.2.10", "one", v1...), "queued as") })
	for _, test := range []struct {
		source, want string
		flags        []string
	}{
		{source: "192.0.2.10", flags: v2, want: "queued as"},
		{source: "2001:db8::10", flags: v1six, want: "queued as"},
		{source: "2001:db8::10", flags: v2six, want: "queued as"},
		{source: "192.0.2.11", flags: v1, want: "client address 192.0.2.11 is not active for behind.example"},
		{source: "192.0.2.11", flags: v2, want: "client address 192.0.2.11 is not active for behind.example"},
		{source: "2001:db8::11", flags: v2six, want: "client address 2001:db8::11 is not active for behind.example"},
	} {
		if got := send(test.source, "more", test.flags...); !strings.Contains(got, test.want) {
			t.Errorf("from %s with %v: want %q in\n%s", test.source, test.flags, test.want, got)
		}
	}
}

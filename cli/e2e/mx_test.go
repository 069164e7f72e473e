package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// nameServer is nsd, serving zones of the test's own on a loopback port.
func nameServer(t *testing.T, zones map[string]string) (addr string) {
	t.Helper()
	program := need(t, "nsd", "nsd")
	dir := t.TempDir()
	port := freePort(t)
	config := fmt.Sprintf(`server:
	ip-address: 127.0.0.1@%s
	username: ""
	chroot: ""
	zonesdir: %q
	database: ""
	pidfile: %q
	xfrdfile: %q
	zonelistfile: %q
	xfrdir: %q
	server-count: 1
remote-control:
	control-enable: no
`, port, dir, dir+"/pid", dir+"/xfrd", dir+"/zonelist", dir)
	for name, text := range zones {
		file := filepath.Join(dir, name+".zone")
		soa := "$ORIGIN " + name + ".\n$TTL 60\n@ SOA ns." + name + ". admin." + name + ". 1 60 60 60 60\n@ NS ns." + name + ".\nns A 127.0.0.1\n"
		must(t, os.WriteFile(file, []byte(soa+text), 0o644))
		config += fmt.Sprintf("zone:\n\tname: %q\n\tzonefile: %q\n", name, file)
	}
	path := filepath.Join(dir, "nsd.conf")
	must(t, os.WriteFile(path, []byte(config), 0o644))
	start(t, exec.Command(program, "-d", "-c", path))
	waitListening(t, "127.0.0.1:"+port)
	return "127.0.0.1:" + port
}

// Mail without a route goes to the best of the recipient domain's mail servers that answers; at the first one nobody listens.
func TestMailWithoutARouteIsDeliveredByMXOfARealNameServer(t *testing.T) {
	sink, inbox := smtpSink(t)
	dns := nameServer(t, map[string]string{
		"example.net": "@ MX 10 dead\n@ MX 20 mx\ndead A 127.0.0.77\nmx A 127.0.0.1\n",
		"example.com": "@ MX 10 mx\nmx A 127.0.0.1\n",
		"null.test":   "@ MX 0 .\n",
		"inner.test":  "@ MX 10 inside\ninside A 10.1.2.3\n",
	})
	s := newStack(t)
	edge := s.addEdge("--resolver", dns, "--mx-port", port(sink))
	s.seed(sink)
	var routes struct{ Items []struct{ ID string } }
	s.ctlJSON(&routes, "route", "list", "--domain", "example.com")
	s.ctl("route", "delete", routes.Items[0].ID, "--yes")
	s.synced()
	send := func(to string) {
		t.Helper()
		if r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", to, letter("anna@example.com", "")); r.code != 250 {
			t.Fatalf("%s: refused: %v", to, r)
		}
	}
	send("bob@example.net")
	if got := received(t, inbox, 1)[0]; !strings.Contains(string(got), "Hello Bob.") {
		t.Fatalf("arrived:\n%s", got)
	}
	for _, test := range []struct{ to, status string }{
		{to: "x@null.test", status: `5\.1\.10`},
		{to: "x@absent.null.test", status: `5\.1\.2`},
		{to: "x@inner.test", status: `5\.4\.4`}, // a private address: refused after resolution
	} {
		send(test.to)
		told := regexp.MustCompile(`(?s)Final-Recipient: rfc822; ?` + regexp.QuoteMeta(test.to) + `.*?Status: ` + test.status)
		eventually(t, "notification about "+test.to, func() bool {
			for _, message := range received(t, inbox, 1) {
				if told.Match(message) {
					return true
				}
			}
			return false
		})
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"activerelay/relayd/relaytest"
)

var socketCall = regexp.MustCompile(`socket\((AF_\w+)`)

// Of a family of sockets that its unit does not name systemd says that the kernel has none such, and an edge that cannot ask for
// the addresses of its host does not start.
func TestTheUnitOfTheEdgeNamesEachFamilyOfSocketsThatTheEdgeOpens(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join("..", "..", "relayd", "packaging", "relayd.service"))
	must(t, err)
	named := regexp.MustCompile(`(?m)^RestrictAddressFamilies=(.*)$`).FindStringSubmatch(string(unit))
	if named == nil {
		t.Fatal("the unit names no families")
	}
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	s := newStack(t)
	log := filepath.Join(t.TempDir(), "strace.log")
	s.wrap = []string{"strace", "-D", "-f", "-qq", "-e", "trace=socket", "-o", log}
	edge := s.addEdge()
	s.seed(mx.Addr().String())
	if r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", "")); r.code != 250 {
		t.Fatal(r)
	}
	eventually(t, "the message", func() bool { return len(mx.Messages()) > 0 })
	calls, err := os.ReadFile(log)
	must(t, err)
	opened := socketCall.FindAllStringSubmatch(string(calls), -1)
	if len(opened) == 0 {
		t.Fatalf("strace saw no socket:\n%s", calls)
	}
	for _, call := range opened {
		if !slices.Contains(strings.Fields(named[1]), call[1]) {
			t.Errorf("the edge opens a socket of %s, and the unit names %s", call[1], named[1])
		}
	}
}

package relaytest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// RealZone is a zone for [StartResolver].
type RealZone struct {
	// Records are the lines of the zone file below SOA and NS, relative to the
	// zone's name.
	Records string
	// Signed signs the zone; the resolver knows its key.
	Signed bool
	// Alter, when set, changes the zone file after it was signed.
	Alter func(signed string) string
}

// StartResolver serves zones with Debian's nsd, signed by Debian's ldns, and
// returns the address of Debian's unbound, which resolves and validates them.
// Both end with the test.
func StartResolver(t testing.TB, zones map[string]RealZone) netip.AddrPort {
	t.Helper()
	dir := t.TempDir()
	served, resolver := FreePort(t), FreePort(t)
	authority := fmt.Sprintf("server:\n\tip-address: 127.0.0.1@%s\n\tusername: \"\"\n\tchroot: \"\"\n\tzonesdir: %q\n\tdatabase: \"\"\n"+
		"\tpidfile: %q\n\txfrdfile: %q\n\tzonelistfile: %q\n\txfrdir: %q\n\tserver-count: 1\nremote-control:\n\tcontrol-enable: no\n",
		served, dir, dir+"/nsd.pid", dir+"/xfrd", dir+"/zonelist", dir)
	anchors, stubs := "", ""
	for name, zone := range zones {
		file, anchor := writeZone(t, dir, name, zone)
		authority += fmt.Sprintf("zone:\n\tname: %q\n\tzonefile: %q\n", name, file)
		if anchor != "" {
			anchors += fmt.Sprintf("\ttrust-anchor-file: %q\n", anchor)
		}
		stubs += fmt.Sprintf("stub-zone:\n\tname: %q\n\tstub-addr: 127.0.0.1@%s\n", name, served)
	}
	recursor := fmt.Sprintf("server:\n\tinterface: 127.0.0.1@%s\n\tdo-ip6: no\n\tusername: \"\"\n\tchroot: \"\"\n\tdirectory: %q\n"+
		"\tpidfile: \"\"\n\tuse-syslog: no\n\tlogfile: \"\"\n\tdo-daemonize: no\n\tmodule-config: \"validator iterator\"\n"+
		"\tdo-not-query-localhost: no\n\tlocal-zone: \"test.\" nodefault\n%s%sremote-control:\n\tcontrol-enable: no\n",
		resolver, dir, anchors, stubs)
	writeFile(t, dir+"/nsd.conf", authority)
	writeFile(t, dir+"/unbound.conf", recursor)
	daemon(t, served, "nsd", "nsd", "-d", "-c", dir+"/nsd.conf")
	daemon(t, resolver, "unbound", "unbound", "-d", "-c", dir+"/unbound.conf")
	return netip.MustParseAddrPort("127.0.0.1:" + resolver)
}

// writeZone returns the file of a zone and, for a signed one, that of its key.
func writeZone(t testing.TB, dir, name string, zone RealZone) (file, anchor string) {
	t.Helper()
	file = filepath.Join(dir, name+".zone")
	writeFile(t, file, fmt.Sprintf("$ORIGIN %s.\n$TTL 60\n@ SOA ns admin 1 60 60 3600 60\n@ NS ns\nns A 127.0.0.1\n%s", name, zone.Records))
	if !zone.Signed {
		return file, ""
	}
	key := string(bytes.TrimSpace(tool(t, dir, "ldns-keygen", "-a", "ECDSAP256SHA256", "-k", name)))
	tool(t, dir, "ldns-signzone", "-f", file+".signed", file, key)
	file += ".signed"
	if zone.Alter != nil {
		signed, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("relaytest: reading a signed zone: %v", err)
		}
		altered := zone.Alter(string(signed))
		if altered == string(signed) {
			t.Fatalf("relaytest: zone %s was not altered:\n%s", name, signed)
		}
		writeFile(t, file, altered)
	}
	return file, filepath.Join(dir, key+".key")
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("relaytest: %v", err)
	}
}

// program finds a program of a Debian package, or fails the test with its name.
func program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	path = "/usr/sbin/" + name
	if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
		t.Fatalf("relaytest: %s is missing: install the Debian package %s", name, debian)
	}
	return path
}

func tool(t testing.TB, dir, name string, args ...string) []byte {
	t.Helper()
	command := exec.Command(program(t, name, "ldnsutils"), args...)
	command.Dir = dir
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil {
		t.Fatalf("relaytest: %s %q: %v\n%s", name, args, err, &errs)
	}
	return out
}

// daemon runs a program until the test ends and waits until it listens.
func daemon(t testing.TB, port, name, debian string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatalf("relaytest: %v", err)
	}
	command := exec.Command(program(t, name, debian), args...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatalf("relaytest: starting %s: %v", name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	t.Cleanup(func() {
		// Both take it as the order to end, with their children.
		_ = command.Process.Signal(os.Interrupt)
		<-ended
		_ = log.Close()
	})
	// A process of somebody else's cannot tell when it is ready.
	late, tick := time.NewTimer(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer late.Stop()
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-tick.C:
			continue
		case <-ended:
		case <-late.C:
		}
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("relaytest: %s does not listen: %v\n%s", name, err, said)
	}
}

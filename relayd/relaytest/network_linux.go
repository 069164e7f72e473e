package relaytest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is a network of two: this host, and another one, which is a namespace of its own. There the table "inet test" of nft has
// the empty chains "in" and "out".
type Network struct {
	t    testing.TB
	name string
	far  netip.Addr

	// Near and Far are the devices at either end.
	Near, Far string
}

// NewNetwork makes one, as far as the machine lets us: where it allows none the test is skipped by name. Names and addresses come
// from the process and from number, below 64.
func NewNetwork(t testing.TB, number int) *Network {
	t.Helper()
	for command, debian := range map[string]string{"ip -V": "iproute2", "tc -V": "iproute2", "nft -v": "nftables"} {
		if out, err := run(command); err != nil {
			t.Fatalf("%s: %v: %s; run: apt-get install --no-install-recommends %s", command, err, out, debian)
		}
	}
	pid := os.Getpid()
	n := &Network{t: t, name: fmt.Sprintf("relay%d-%d", pid, number), Far: fmt.Sprintf("r%dx%d", pid, number)}
	n.Near = n.Far + "a"
	if out, err := run("ip netns add " + n.name); err != nil {
		t.Skipf("SKIPPED %s: this machine allows no network namespaces: %v: %s", t.Name(), err, out)
	}
	t.Cleanup(func() {
		// Connections that have not ended yet may keep the namespace for a while.
		_, _ = run("ip link delete " + n.Near)
		_, _ = run("ip netns delete " + n.name)
	})
	near := netip.AddrFrom4([4]byte{10, byte(200 + pid>>8%50), byte(pid), byte(4*number + 1)})
	n.far = near.Next()
	n.Do(fmt.Sprintf("ip link add %s type veth peer name %s netns %s", n.Near, n.Far, n.name))
	n.Do(fmt.Sprintf("ip address add %s/30 dev %s", near, n.Near))
	n.Do(fmt.Sprintf("ip link set %s up", n.Near))
	n.Inside(fmt.Sprintf("ip address add %s/30 dev %s", n.far, n.Far))
	n.Inside(fmt.Sprintf("ip link set %s up", n.Far))
	n.Inside("nft add table inet test")
	n.Inside("nft add chain inet test in { type filter hook input priority 0 ; }")
	n.Inside("nft add chain inet test out { type filter hook output priority 0 ; }")
	return n
}

func run(command string) (string, error) {
	words := append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, strings.Fields(command)...)
	out, err := exec.Command("env", words...).CombinedOutput()
	return string(out), err
}

// Do runs a command at this host.
func (n *Network) Do(command string) {
	n.t.Helper()
	if out, err := run(command); err != nil {
		n.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// Inside runs a command at the other host.
func (n *Network) Inside(command string) {
	n.t.Helper()
	n.Do("ip netns exec " + n.name + " " + command)
}

// Listen opens a listener at the other host: a socket stays in the namespace of the thread that made it.
func (n *Network) Listen() net.Listener {
	n.t.Helper()
	var l net.Listener
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread is never unlocked, and so ends with the goroutine
		theirs, err := os.Open("/var/run/netns/" + n.name)
		if err == nil {
			err = errors.Join(unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET), theirs.Close())
		}
		if err == nil {
			l, err = net.Listen("tcp", netip.AddrPortFrom(n.far, 0).String())
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
	return l
}

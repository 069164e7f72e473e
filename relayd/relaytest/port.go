package relaytest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports that programs of the tests are told to use lie below those that a kernel gives to outgoing connections (32768 and
// up on Linux, 49152 elsewhere), so that none of the many connections of a test run can take one before its program does.
const firstPort, lastPort = 15000, 32000

// FreePort answers a port of 127.0.0.1 that was free a moment ago, for programs that cannot choose one and say which.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(firstPort + rand.IntN(lastPort-firstPort))
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		packets, err := net.ListenPacket("udp", net.JoinHostPort("127.0.0.1", port))
		_ = listener.Close()
		if err != nil {
			continue
		}
		_ = packets.Close()
		return port
	}
	t.Fatal("relaytest: no free port")
	return ""
}

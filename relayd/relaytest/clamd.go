package relaytest

import (
	"testing"

	"activerelay/relayd/internal/scan/clamdtest"
)

// MalwareName is the name under which the scanner of Clamd knows EICAR.
const MalwareName = clamdtest.Signature

// Clamd starts a real clamd that knows one signature and answers its address, as --clamd takes it. It ends with the test.
func Clamd(t testing.TB) string {
	t.Helper()
	return clamdtest.Start(t, clamdtest.Options{}).Address
}

// EICAR is the harmless test file of the anti-virus industry.
func EICAR() []byte { return clamdtest.EICAR() }

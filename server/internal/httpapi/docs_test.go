package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// The sum of bundles/redoc.standalone.js in version 2.5.1 of the npm package redoc.
const redocSum = "2d8d13e94b5a21011cc6f8260d87ca475d0f6f2faed16dd12e7394dfa3bb05b8"

// A script that was cut is served like a whole one, and the page stays blank.
func TestTheScriptOfTheDocumentationPageIsWhole(t *testing.T) {
	script, err := static.ReadFile("static/redoc.standalone.js")
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(script); hex.EncodeToString(sum[:]) != redocSum {
		t.Errorf("static/redoc.standalone.js has %d bytes and the sum %x: it is not the one of the package", len(script), sum)
	}
}

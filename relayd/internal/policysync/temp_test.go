package policysync_test

import (
	"os"
	"testing"

	"pgregory.net/rapid"
)

// temp lets the helpers of this package serve a property test, whose T is not a testing.TB.
type temp struct{ *rapid.T }

func (t temp) dir() string {
	dir, err := os.MkdirTemp("", "policysync")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

type fataler interface{ Fatal(args ...any) }

var (
	_ fataler = testing.TB(nil)
	_ fataler = (*rapid.T)(nil)
)

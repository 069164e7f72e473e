package publish

import (
	"fmt"
	"strconv"
	"strings"

	"activerelay/server/internal/store"
)

// lastKey sorts after every key: a cursor with it says that a revision is enforced whole.
const lastKey = "~"

// parseCursor reads an `after`, "revision,key". Empty is the beginning.
func parseCursor(text string) (store.PolicyCursor, error) {
	if text == "" {
		return store.PolicyCursor{}, nil
	}
	number, key, found := strings.Cut(text, ",")
	revision, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || revision < 0 {
		return store.PolicyCursor{}, fmt.Errorf("%w: %q", ErrCursor, text)
	}
	return store.PolicyCursor{Revision: revision, Key: key}, nil
}

func formatCursor(c store.PolicyCursor) string {
	return strconv.FormatInt(c.Revision, 10) + "," + c.Key
}

// before reports whether a lies before b.
func before(a, b store.PolicyCursor) bool {
	return a.Revision < b.Revision || a.Revision == b.Revision && a.Key < b.Key
}

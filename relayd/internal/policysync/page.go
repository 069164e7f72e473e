package policysync

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"activerelay/api"
	"activerelay/api/policy"
)

// errPage means that a reply is no page that can follow what is enforced. It changes nothing.
var errPage = errors.New("unusable page")

// check refuses what cannot be the page after a position. Documents come in order of (revision, key), so a page with a hole
// at its end, with documents that were enforced before, or that goes back within an epoch, is told by its cursors.
func check(page *api.PolicyPage, after string) error {
	if page.Documents == nil {
		return fmt.Errorf("%w: it has no list of documents", errPage)
	}
	end, err := parseCursor(page.Next)
	if err != nil {
		return err
	}
	var last policy.Cursor
	if after != "" {
		if last, err = parseCursor(after); err != nil {
			return err
		}
	}
	if end.Compare(last) < 0 {
		return fmt.Errorf("%w: it ends at %q, before %q which is enforced", errPage, page.Next, after)
	}
	for i := range page.Documents {
		place := policy.Cursor{Revision: page.Documents[i].Revision, Key: page.Documents[i].Key}
		if place.Compare(last) <= 0 || place.Compare(end) > 0 {
			return fmt.Errorf("%w: document %q of revision %d is out of order", errPage, place.Key, place.Revision)
		}
		last = place
	}
	if page.More && (len(page.Documents) == 0 || last != end) {
		return fmt.Errorf("%w: it ends at %q, its documents before", errPage, page.Next)
	}
	return nil
}

// parseCursor reads a position, "revision,key". One that cannot be read must not be kept, or every later poll would ask for it.
func parseCursor(text string) (policy.Cursor, error) {
	number, key, found := strings.Cut(text, ",")
	revision, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || revision < 0 {
		return policy.Cursor{}, fmt.Errorf("%w: %q is no position", errPage, text)
	}
	return policy.Cursor{Revision: revision, Key: key}, nil
}

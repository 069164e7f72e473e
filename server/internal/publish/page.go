package publish

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"activerelay/server/internal/store"
)

// page is what one read found after a cursor, encoded once for all who stand there.
type page struct {
	// epoch is that of the database, revision the last one that the read could see. Deltas are whole from horizon on,
	// where tombstones were removed, and from moved on, where they gave way to another partner's document.
	epoch                    string
	revision, horizon, moved int64
	// next is where the page ends.
	next store.PolicyCursor
	more bool
	// documents is a JSON list, count its length.
	documents []byte
	count     int
}

// readPage reads the documents after a cursor as far as a tenant sees them: one query for first passes and for deltas.
func (p *Publisher) readPage(ctx context.Context, tenant store.Tenant, after store.PolicyCursor) (*page, error) {
	found := &page{next: after}
	var rows []store.Document
	err := p.store.Read(ctx, tenant, func(tx *store.Tx) (err error) {
		if found.epoch, err = tx.Epoch(); err != nil {
			return err
		}
		if found.revision, err = tx.Revision(); err != nil {
			return err
		}
		if found.horizon, err = tx.PolicyHorizon(); err != nil {
			return err
		}
		if found.moved, err = tx.MoveHorizon(); err != nil {
			return err
		}
		rows, err = tx.DocumentsAfter(after, p.config.PageDocuments+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	found.encode(rows, p.config.PageDocuments, p.config.PageBytes)
	return found, nil
}

// encode writes as many rows as a page holds, at least one.
func (g *page) encode(rows []store.Document, limit, bytes int) {
	out := make([]byte, 0, 4096)
	out = append(out, '[')
	for i, row := range rows {
		if i == limit || i > 0 && len(out)+len(row.Body) > bytes {
			g.more = true
			break
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = appendDocument(out, row)
		g.next, g.count = store.PolicyCursor{Revision: row.Revision, Key: row.Key}, g.count+1
	}
	g.documents = append(out, ']')
	// At the end of a pass everything up to the revision of the read is known, though others may have no document here.
	if last := (store.PolicyCursor{Revision: g.revision, Key: lastKey}); !g.more && before(g.next, last) {
		g.next = last
	}
}

// appendDocument writes the contract's PolicyDocument around a body that is kept encoded.
func appendDocument(out []byte, row store.Document) []byte {
	out = append(out, `{"key":`...)
	out = strconv.AppendQuote(out, row.Key) // slugs and domain names are ASCII without escapes
	out = append(out, `,"revision":`...)
	out = strconv.AppendInt(out, row.Revision, 10)
	out = append(out, `,"deleted":`...)
	out = strconv.AppendBool(out, row.Deleted)
	if !row.Deleted {
		out = append(out, `,"`...)
		out = append(out, kindOf(row.Key)...)
		out = append(out, `":`...)
		out = append(out, row.Body...)
	}
	return append(out, '}')
}

// maxShared bounds how many pages are kept for others who stand at the same place.
const maxShared = 64

// shared lets polls of equal state have one read and one encoded page. All pages are of one revision of the bell.
type shared struct {
	mu       sync.Mutex
	revision int64
	pages    map[string]*sharedPage
}

// sharedPage is a page in the making until ready is closed.
type sharedPage struct {
	ready chan struct{}
	page  *page
	err   error
}

// forget drops all pages, because the history changed.
func (s *shared) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = nil
}

// get returns the page under a key for a revision of the bell, read by whoever comes first.
func (s *shared) get(ctx context.Context, revision int64, key string, read func(context.Context) (*page, error)) (*page, error) {
	s.mu.Lock()
	if s.pages == nil || s.revision < revision {
		s.pages, s.revision = map[string]*sharedPage{}, revision
	}
	entry, mine := s.pages[key], false
	if entry == nil {
		entry, mine = &sharedPage{ready: make(chan struct{})}, true
		if len(s.pages) < maxShared {
			s.pages[key] = entry
		}
	}
	pages := s.pages
	s.mu.Unlock()
	if mine {
		entry.page, entry.err = read(ctx)
		close(entry.ready)
		if entry.err != nil {
			s.mu.Lock()
			delete(pages, key)
			s.mu.Unlock()
		}
		return entry.page, entry.err
	}
	select {
	case <-entry.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if entry.err != nil {
		return read(ctx) // the other's trouble, e.g. that its client went away, need not be ours
	}
	return entry.page, nil
}

// sharedKey says what polls of equal state have in common.
func sharedKey(tenant store.Tenant, after store.PolicyCursor) string {
	return formatCursor(after) + "|" + strings.Join(tenant.Partners, ",")
}

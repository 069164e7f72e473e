package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"activerelay/api"
)

// defaultPageSize is the contract's.
const defaultPageSize = 50

// tokenTagBytes is how much of the MAC a page token carries.
const tokenTagBytes = 12

// cursor is one page of a list: at most size rows after the one with the key after.
type cursor struct {
	size int
	// after is the key of the last row of the page before; empty starts at the beginning.
	after string
	bind  func(after string) []byte
}

// limit is how many rows to ask the store for: one more than the page, to know whether there is a next one.
func (c cursor) limit() int { return c.size + 1 }

// page reads the paging parameters of a list. A token belongs to one operation with the same filters, which are all its
// other parameters: with others it is refused, because the key in it would point into another list.
func (a *API) page(ctx context.Context, size *api.PageSize, token *api.PageToken, filters ...any) (cursor, error) {
	described, err := json.Marshal(append([]any{operationID(ctx), PrincipalFrom(ctx).Tenant()}, filters...))
	if err != nil {
		return cursor{}, err
	}
	c := cursor{size: defaultPageSize, bind: func(after string) []byte {
		mac := hmac.New(sha256.New, a.subkey("page token"))
		mac.Write(described)
		mac.Write([]byte{0})
		mac.Write([]byte(after))
		return mac.Sum(nil)[:tokenTagBytes]
	}}
	if size != nil {
		c.size = *size
	}
	if token == nil {
		return c, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(*token)
	if err != nil || len(text) <= tokenTagBytes {
		return cursor{}, badPageToken()
	}
	c.after = string(text[tokenTagBytes:])
	if !hmac.Equal(text[:tokenTagBytes], c.bind(c.after)) {
		return cursor{}, badPageToken()
	}
	return c, nil
}

func badPageToken() error {
	return invalid("query/page_token", "page_token", "is not a token of this list with these filters")
}

// cut takes the rows of a page from what the store returned for limit(), with the token of the next page, nil at the end.
func cut[T any](c cursor, rows []T, key func(T) string) ([]T, *string) {
	if len(rows) <= c.size {
		return rows, nil
	}
	rows = rows[:c.size]
	after := key(rows[len(rows)-1])
	token := base64.RawURLEncoding.EncodeToString(append(c.bind(after), after...))
	return rows, &token
}

// convert maps rows to what is sent; its result is never nil, because the contract wants a list.
func convert[T, U any](rows []T, to func(T) U) []U {
	items := make([]U, 0, len(rows))
	for _, row := range rows {
		items = append(items, to(row))
	}
	return items
}

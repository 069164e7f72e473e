package invoke

import (
	"context"
	"iter"
	"strconv"
	"strings"
)

const (
	pageSize  = "page_size"
	pageToken = "page_token"
)

// Pages makes the call and, for a list, the calls for all further pages, until
// most rows were seen; 0 means all of them. A page_token given by the caller
// asks for that one page. An operation that is not a list has one page.
func (c *Client) Pages(ctx context.Context, call Call, most int) iter.Seq2[*Answer, error] {
	return func(yield func(*Answer, error) bool) {
		onePage := !call.Op.Paged || len(call.Params[pageToken]) > 0
		seen := 0
		for call := sized(call, most); ; {
			answer, err := c.Do(ctx, call)
			if err != nil {
				yield(nil, err)
				return
			}
			next := nextPage(answer.Value)
			seen += len(Rows(answer.Value, call.Op.Rows))
			if !yield(answer, nil) || onePage || next == "" || most > 0 && seen >= most {
				return
			}
			call = call.with(pageToken, next)
		}
	}
}

// sized asks for the largest pages, since all of them are wanted, or for one
// that holds no more than that.
func sized(call Call, most int) Call {
	if !call.Op.Paged || call.Op.PageMax == 0 || len(call.Params[pageSize]) > 0 {
		return call
	}
	size := call.Op.PageMax
	if most > 0 {
		size = min(size, most)
	}
	return call.with(pageSize, strconv.Itoa(size))
}

func (call Call) with(name, text string) Call {
	params := make(map[string][]string, len(call.Params)+1)
	for key, texts := range call.Params {
		params[key] = texts
	}
	params[name] = []string{text}
	call.Params = params
	return call
}

func nextPage(value any) string {
	object, _ := value.(map[string]any)
	token, _ := object["next_page_token"].(string)
	return token
}

// Rows returns the objects of the list at the dotted path, nil where there is
// none.
func Rows(value any, path string) []any {
	if path == "" {
		return nil
	}
	for name := range strings.SplitSeq(path, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	rows, _ := value.([]any)
	return rows
}

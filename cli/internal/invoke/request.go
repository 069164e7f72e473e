package invoke

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// request builds the HTTP request of one attempt.
func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	address, err := c.address(call)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	if call.Body != nil {
		body = bytes.NewReader(call.Body.Content)
	}
	request, err := http.NewRequestWithContext(ctx, call.Op.Method, address, body)
	if err != nil {
		return nil, fmt.Errorf("building the request: %w", err)
	}
	return request, c.header(request.Header, call)
}

func (c *Client) header(header http.Header, call Call) error {
	header.Set("User-Agent", c.config.UserAgent)
	header.Set("Accept", accept(call))
	if c.config.Token != "" {
		header.Set("Authorization", "Bearer "+c.config.Token)
	}
	if call.Body != nil {
		header.Set("Content-Type", call.Body.Type)
	}
	for _, p := range call.Op.Params {
		if p.In != ops.Header {
			continue
		}
		for _, text := range call.Params[p.Name] {
			if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				return failure.Usagef("--%s must not hold control characters", p.Flag)
			}
			header.Set(p.Name, text)
		}
	}
	return nil
}

func accept(call Call) string {
	if call.Accept != "" {
		return call.Accept
	}
	types := slices.Clone(call.Op.Produces)
	if !slices.Contains(types, "application/problem+json") {
		types = append(types, "application/problem+json")
	}
	return strings.Join(types, ", ")
}

func (c *Client) address(call Call) (string, error) {
	path := call.Op.Path
	parameters := call.Op.Arguments()
	if len(parameters) != len(call.Arguments) {
		return "", failure.Usagef("%s takes %d arguments, not %d", call.Op.Command(), len(parameters), len(call.Arguments))
	}
	for i, p := range parameters {
		value := call.Arguments[i]
		// A dot segment would be resolved on the way and address another object.
		if value == "" || value == "." || value == ".." {
			return "", failure.Usagef("%s must not be %q", p.Argument(), value)
		}
		path = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(value), 1)
	}
	address := strings.TrimSuffix(c.base.String(), "/") + path
	query, err := query(call)
	if err != nil || query == "" {
		return address, err
	}
	return address + "?" + query, nil
}

// query encodes the query parameters: lists by repeating the name, which is
// OpenAPI's default style.
func query(call Call) (string, error) {
	values := url.Values{}
	for _, p := range call.Op.Params {
		texts := call.Params[p.Name]
		if p.In != ops.Query || len(texts) == 0 {
			continue
		}
		value, err := Value(p.Field, texts)
		if err != nil {
			return "", err
		}
		if many, ok := value.([]any); ok {
			for _, one := range many {
				values.Add(p.Name, fmt.Sprint(one))
			}
			continue
		}
		values.Set(p.Name, fmt.Sprint(value))
	}
	return values.Encode(), nil
}

// Show writes the request that Do would send, without its secrets.
func (c *Client) Show(ctx context.Context, w io.Writer, call Call) error {
	request, err := c.request(ctx, call)
	if err != nil {
		return err
	}
	if request.Header.Get("Authorization") != "" {
		request.Header.Set("Authorization", "Bearer "+mask)
	}
	if _, takes := call.Op.Param(ops.Header, idempotencyKey); takes && request.Header.Get(idempotencyKey) == "" {
		request.Header.Set(idempotencyKey, "(a new one)")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", request.Method, request.URL)
	for _, name := range slices.Sorted(maps.Keys(request.Header)) {
		for _, value := range request.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	if call.Body != nil {
		fmt.Fprintf(&b, "\n%s", call.Body.Shown)
	}
	_, err = w.Write(b.Bytes())
	return err
}

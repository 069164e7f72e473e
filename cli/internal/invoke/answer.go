package invoke

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"activerelay/api/problem"
	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// maxAnswerBytes bounds what is held in memory of one answer. A page of the
// contract is far smaller; the bound is for a server that is not ours.
const maxAnswerBytes = 64 << 20

// answer reads the response: a good one, one that the contract describes in
// spite of its status (a service that is not ready says why), or a refusal.
func (c *Client) answer(call Call, response *http.Response) (*Answer, error) {
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	good := response.StatusCode >= 200 && response.StatusCode < 300
	described := response.StatusCode == http.StatusServiceUnavailable && media == "application/json"
	if !good && !described {
		defer response.Body.Close()
		return nil, refusal(call.Op, response)
	}
	answer := &Answer{Status: response.StatusCode, Header: response.Header}
	if good && (call.Op.Raw || call.Op.Stream) {
		answer.Body = response.Body
		return answer, nil
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, &transportError{err: err}
	}
	if len(content) > maxAnswerBytes {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswerBytes)
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return answer, nil
	}
	if !isJSON(media) {
		return nil, &failure.Error{Code: failure.Failed, Title: NotOurs, Detail: "it answered " + cmp.Or(media, "something of no type") + " in place of JSON"}
	}
	if answer.Value, err = decodeJSON(content); err != nil {
		return nil, fmt.Errorf("the answer is not the JSON it says it is: %w", err)
	}
	return answer, nil
}

func isJSON(media string) bool {
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// Refusal is an answer that is not good. It unwraps to the *failure.Error that
// people see.
type Refusal struct {
	Status int
	// RetryAfter is when the server says that a retry may help; 0 when it
	// does not say.
	RetryAfter time.Duration
	shown      *failure.Error
}

func (r *Refusal) Error() string { return r.shown.Error() }

// Unwrap returns the failure as it is shown.
func (r *Refusal) Unwrap() error { return r.shown }

func refusal(op *ops.Op, response *http.Response) *Refusal {
	if location := response.Header.Get("Location"); location != "" && response.StatusCode < 400 {
		return &Refusal{Status: response.StatusCode, shown: &failure.Error{
			Code: failure.Failed, Title: "Redirected",
			Detail: fmt.Sprintf("the server points to %s, which is not followed; set --url to the final address", location),
		}}
	}
	p := problem.Decode(response.StatusCode, response.Header.Get("Content-Type"), response.Body)
	refused := &Refusal{
		Status: response.StatusCode, RetryAfter: max(p.RetryAfter, retryAfter(response.Header, time.Now())), shown: shown(op, p),
	}
	refused.shown.RequestID = cmp.Or(p.RequestID, response.Header.Get("X-Request-Id"))
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.StatusCode == http.StatusNotFound && media != problem.ContentType {
		// Not "there is no such object": nobody who knows objects was asked.
		refused.shown.Code, refused.shown.Title, refused.shown.Reason = failure.Failed, NotOurs, ""
	}
	return refused
}

func shown(op *ops.Op, p *problem.Problem) *failure.Error {
	return &failure.Error{
		Code: failure.Code(p.Exit()), Title: p.Title, Detail: p.Detail, Reason: string(p.Reason),
		RequestID: p.RequestID, Fields: fields(op, p.Errors),
	}
}

// Entry is the failure of one entry of a batch, from the problem that stands
// in the answer; nil where there is none.
func Entry(entry any) error {
	object, _ := entry.(map[string]any)
	text, err := json.Marshal(object["problem"])
	if err != nil || object["problem"] == nil {
		return nil
	}
	var p problem.Problem
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("the problem of an entry: %w", err)
	}
	return shown(&ops.Op{}, &p)
}

// fields gives each invalid field the flag that sets it.
func fields(op *ops.Op, invalid []problem.InvalidField) []failure.Field {
	var found []failure.Field
	for _, f := range invalid {
		found = append(found, failure.Field{
			Pointer: argument(op, f.Pointer), Flag: flagOf(op, f.Pointer), Rule: f.Rule, Message: f.Message, Choices: f.Choices,
		})
	}
	return found
}

// argument names a parameter as the command line does: DOMAIN, not path/domain,
// and nothing where a flag says it all.
func argument(op *ops.Op, pointer string) string {
	if !strings.HasPrefix(pointer, "/") && flagOf(op, pointer) != "" {
		return ""
	}
	if name, ok := strings.CutPrefix(pointer, "path/"); ok {
		if p, known := op.Param(ops.Path, name); known {
			return p.Argument()
		}
	}
	return pointer
}

// flagOf finds the flag by the longest property that the pointer lies in
// (/contacts/0 is set by --contacts), or by query/NAME and header/NAME.
func flagOf(op *ops.Op, pointer string) string {
	if place, name, ok := strings.Cut(pointer, "/"); ok && place != "" {
		p, _ := op.Param(ops.In(place), name)
		if p.In == ops.Path {
			return ""
		}
		return p.Flag
	}
	if op.Body == nil {
		return ""
	}
	best, longest := "", 0
	for _, p := range op.Body.Properties {
		at := p.Pointer()
		if (pointer == at || strings.HasPrefix(pointer, at+"/")) && len(at) > longest {
			best, longest = p.Input(), len(at)
		}
	}
	return best
}

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
)

// PullPolicy answers what is new for the calling edge, or nothing in the time that it may take.
func (a *API) PullPolicy(ctx context.Context, r rest.PullPolicyRequestObject) (rest.PullPolicyResponseObject, error) {
	edge := PrincipalFrom(ctx)
	if err := a.acknowledge(ctx, edge, r.Params.Acknowledged); err != nil {
		return nil, err
	}
	if version, capability, told := software(text(r.Params.UserAgent)); told {
		a.Publisher.Runs(edge.Edge, version, capability)
	}
	poll := publish.Poll{
		Edge: edge.Edge, Partners: edge.Partners, Epoch: text(r.Params.Epoch), After: text(r.Params.After),
	}
	if r.Params.Wait != nil {
		poll.Wait = time.Duration(*r.Params.Wait) * time.Second
	}
	page, err := a.Publisher.Poll(ctx, poll)
	switch {
	case errors.Is(err, publish.ErrGone):
		return nil, problem.PolicyGone()
	case errors.Is(err, publish.ErrRetired):
		return nil, problem.Unauthenticated()
	case errors.Is(err, publish.ErrCursor):
		return nil, invalid("query/after", "cursor", "must be `revision,key` as an answer of this operation gave it, with the epoch that it is of")
	case err != nil:
		return nil, err
	case page == nil:
		return rest.PullPolicy204Response{}, nil
	}
	return pageResponse(page, a.Now())
}

// maxVersionBytes is how long a version may be.
const maxVersionBytes = 64

// software reads what an edge says that it runs, "relayd/1.0.0 capability/2".
func software(agent string) (version string, capability int, told bool) {
	program, rest, _ := strings.Cut(agent, " ")
	version, isEdge := strings.CutPrefix(program, "relayd/")
	if !isEdge || version == "" || len(version) > maxVersionBytes {
		return "", 0, false
	}
	number, _ := strings.CutPrefix(rest, "capability/")
	capability, err := strconv.Atoi(number)
	return version, capability, err == nil && capability > 0
}

// queueOperations is the first capability with which an edge acts on its queue and tells what came of it.
const queueOperations = 2

// acknowledge forgets the instructions that the edge has carried out. Each poll says how far it is, so most say nothing
// new and must not cost a write. What the edge has done it did before it polled: what it runs from this poll on says nothing.
func (a *API) acknowledge(ctx context.Context, edge Principal, number *int64) error {
	if number == nil || *number == 0 {
		return nil
	}
	var row store.Edge
	err := a.Store.Read(ctx, edge.Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.Edge(edge.Edge)
		return err
	})
	if err != nil {
		return notFound(err, "edge")
	}
	if *number <= row.InstructionAcknowledged {
		return nil
	}
	operates := a.newest(row).CapabilityVersion >= queueOperations
	return a.Store.Write(ctx, edge.Tenant(), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(*number, operates) })
}

// encodedPage is the contract's PolicyPage around documents that are encoded once for many edges.
type encodedPage struct{ head, documents, tail []byte }

func pageResponse(page *publish.Page, now time.Time) (rest.PullPolicyResponseObject, error) {
	instructions := make([]api.Instruction, 0, len(page.Instructions))
	for _, row := range page.Instructions {
		instruction, err := instructionToAPI(row)
		if err != nil {
			return nil, err
		}
		instructions = append(instructions, instruction)
	}
	head, err := json.Marshal(struct {
		Epoch        string            `json:"epoch"`
		Next         string            `json:"next"`
		More         bool              `json:"more"`
		Now          time.Time         `json:"now"`
		Instructions []api.Instruction `json:"instructions"`
	}{page.Epoch, page.Next, page.More, now.UTC(), instructions})
	if err != nil {
		return nil, fmt.Errorf("encode policy page: %w", err)
	}
	// The documents take the place of the closing brace.
	return encodedPage{head: append(head[:len(head)-1], `,"documents":`...), documents: page.Documents, tail: []byte("}\n")}, nil
}

// VisitPullPolicyResponse writes the page.
func (p encodedPage) VisitPullPolicyResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for _, part := range [][]byte{p.head, p.documents, p.tail} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func instructionToAPI(row store.Instruction) (api.Instruction, error) {
	shown := api.Instruction{Number: row.Number, Kind: api.InstructionKind(row.Kind)}
	var body any
	if row.Kind == store.InstructionSendNotice {
		shown.Notice = new(api.Notice)
		body = shown.Notice
	} else {
		shown.Queue = new(api.QueueInstruction)
		body = shown.Queue
	}
	if err := json.Unmarshal([]byte(row.Body), body); err != nil {
		return shown, fmt.Errorf("instruction %d of %s: %w", row.Number, row.Edge, err)
	}
	return shown, nil
}

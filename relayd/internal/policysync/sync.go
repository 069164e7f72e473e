// Package policysync keeps the edge's policy: it starts from the last good one on its own disk, pulls what changed by long
// poll, and for each page validates, compiles, persists and swaps, in that order; only then does its next poll say
// that the page is enforced.
//
// One query serves snapshot and delta: a new edge asks from the beginning. An edge that is told to start again (410, another
// epoch) goes on enforcing what it holds until the new pass is whole, and replaces everything then.
//
// Readers take Table, an immutable value behind an atomic pointer; they never wait for a pull. Status tells them how old it may
// be, and so how far a permanent refusal may lean on it.
package policysync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/api/policy"
	"activerelay/api/problem"
	"activerelay/relayd/internal/journal"
)

// waitSeconds is how long the control plane may hold a poll.
const waitSeconds = 10

// pollTimeout bounds one poll, the wait included.
const pollTimeout = 40 * time.Second

// Config wires a Syncer. Instruct, OnReply and Changed may be nil; all others are required.
type Config struct {
	Client  *client.ClientWithResponses
	Journal *journal.Journal
	Log     *slog.Logger
	Now     func() time.Time
	// Rejected is told of documents that did not compile.
	Rejected func(ctx context.Context, rejected []policy.Rejected)
	// Instruct carries out the instructions of a page, given as they came: what this version has no field for must not get lost on
	// the way. Acknowledged answers the highest that is done.
	Instruct     func(ctx context.Context, instructions []json.RawMessage) error
	Acknowledged func() int64
	// OnReply is told the outcome of each poll that Run makes.
	OnReply func(error)
	// Changed is called when another Table is in force.
	Changed func()
}

// Syncer pulls policy.
type Syncer struct {
	config Config
	keep   keeper
	table  atomic.Pointer[policy.Table]

	mu       sync.Mutex
	enforced position
	staged   *staged
	status   Status
}

// staged is a pass that is to replace what is enforced, once it is whole.
type staged struct {
	at    position
	table *policy.Table
}

// Status is how the pull stands.
type Status struct {
	// Complete is whether a first pass was ever finished.
	Complete bool
	// Epoch and After are what is enforced.
	Epoch, After string
	// LastSuccess is when a poll last ended with nothing more to fetch.
	LastSuccess time.Time
	// LastError is the error of the last poll; nil after a success.
	LastError error
}

// Open loads the last good policy. A damaged one is dropped, with an error in the log: the edge then defers until it has
// pulled anew.
func Open(c Config) (*Syncer, error) {
	s := &Syncer{config: c, keep: keeper{c.Journal}}
	at, documents, err := s.keep.load()
	if err == nil && c.Journal.ChangesLost() {
		err = fmt.Errorf("%w: a document that was enforced may be lost, and the position behind it is not", errDamaged)
	}
	switch {
	case errors.Is(err, errDamaged):
		c.Log.Error("policy on disk is damaged; pulling it anew", "error", err)
		if err := s.keep.reset(); err != nil {
			return nil, fmt.Errorf("drop damaged policy: %w", err)
		}
		at, documents = position{}, nil
	case err != nil:
		return nil, err
	}
	table, rejected := policy.Apply(policy.Empty(), documents)
	if len(rejected) > 0 {
		c.Log.Warn("documents on disk do not compile", "count", len(rejected), "first", rejected[0].Key)
	}
	s.table.Store(table)
	s.enforced = at
	s.status = Status{Complete: at.Complete, Epoch: at.Epoch, After: at.After}
	return s, nil
}

// Table is the policy in force. It never changes; ask again for the next transaction.
func (s *Syncer) Table() *policy.Table { return s.table.Load() }

// Status answers how the pull stands.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run pulls until ctx ends. The first poll, and the next after a failure, is answered at once, so that an edge knows soon
// that its policy holds.
func (s *Syncer) Run(ctx context.Context) error {
	failures, wait := 0, 0
	for ctx.Err() == nil {
		err := s.Pull(ctx, wait)
		if s.config.OnReply != nil && ctx.Err() == nil {
			s.config.OnReply(err)
		}
		if err == nil {
			failures, wait = 0, waitSeconds
			continue
		}
		wait = 0
		if ctx.Err() != nil {
			return nil
		}
		s.note(func(st *Status) { st.LastError = err })
		s.config.Log.WarnContext(ctx, "policy not pulled", "error", err)
		failures++
		pause(ctx, failures)
	}
	return nil
}

// Pull makes one poll that waits at most wait seconds, and enforces what it brings.
func (s *Syncer) Pull(ctx context.Context, wait int) error {
	reply, err := s.poll(ctx, wait)
	var gone *problem.Problem
	if errors.As(err, &gone) && gone.Status == http.StatusGone {
		s.config.Log.WarnContext(ctx, "control plane asks for a new pass; the held policy stays in force until it is whole")
		return s.restart()
	}
	if err != nil {
		return err
	}
	if reply.JSON200 == nil {
		s.succeeded()
		return nil
	}
	if err := s.take(ctx, reply.JSON200); err != nil {
		return err
	}
	if s.config.Instruct == nil || len(reply.JSON200.Instructions) == 0 {
		return nil
	}
	var page struct {
		Instructions []json.RawMessage `json:"instructions"`
	}
	if err := json.Unmarshal(reply.Body, &page); err != nil {
		return fmt.Errorf("pull policy: %w", err)
	}
	return s.config.Instruct(ctx, page.Instructions)
}

// poll asks for what follows. A reply without a page says that there is nothing new.
func (s *Syncer) poll(ctx context.Context, wait int) (*client.PullPolicyResponse, error) {
	at := s.asking()
	params := &api.PullPolicyParams{Wait: &wait}
	if at.Epoch != "" {
		params.Epoch, params.After = &at.Epoch, &at.After
	}
	if s.config.Acknowledged != nil {
		done := s.config.Acknowledged()
		params.Acknowledged = &done
	}
	call, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	reply, err := s.config.Client.PullPolicyWithResponse(call, params)
	switch {
	case err != nil:
		return nil, fmt.Errorf("pull policy: %w", err)
	case reply.StatusCode() == http.StatusNoContent && at.Epoch == "":
		// Even an empty policy is a page to whoever begins: this says nothing about what is enforced.
		return nil, errors.New("pull policy: nothing in reply to a pass from the beginning")
	case reply.StatusCode() == http.StatusNoContent:
		return reply, nil
	case reply.JSON200 == nil || reply.JSON200.Epoch == "" || reply.JSON200.Next == "":
		// An empty or half page must not pass for "nothing is allowed any more".
		return nil, fmt.Errorf("pull policy: unusable reply %s", reply.Status())
	default:
		return reply, nil
	}
}

// asking is the position that the next poll continues.
func (s *Syncer) asking() position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged != nil {
		return s.staged.at
	}
	return s.enforced
}

// restart begins a pass that is to replace what is enforced.
func (s *Syncer) restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.enforced.Pass + 1
	if s.staged != nil {
		next = s.staged.at.Pass + 1
	}
	if err := s.keep.clear(s.enforced.Pass + 1); err != nil {
		return err
	}
	s.staged = &staged{at: position{Pass: next}, table: policy.Empty()}
	return nil
}

// take enforces one page.
func (s *Syncer) take(ctx context.Context, page *api.PolicyPage) error {
	s.mu.Lock()
	at, table := s.enforced, s.table.Load()
	pass := s.staged
	s.mu.Unlock()
	if pass != nil {
		at, table = pass.at, pass.table
	}
	if at.Epoch != "" && at.Epoch != page.Epoch {
		return s.restart()
	}
	if err := check(page, at.After); err != nil {
		return fmt.Errorf("pull policy: %w", err)
	}
	next, rejected := policy.Apply(table, page.Documents)
	if len(rejected) > 0 && s.config.Rejected != nil {
		s.config.Rejected(ctx, rejected)
	}
	at.Epoch, at.After = page.Epoch, page.Next
	at.Complete = at.Complete || !page.More
	if err := s.persist(page, at, pass != nil); err != nil {
		return fmt.Errorf("keep policy: %w", err)
	}
	s.swap(at, next, pass != nil)
	if s.config.Changed != nil {
		s.config.Changed()
	}
	if !page.More {
		s.succeeded()
	}
	return nil
}

func (s *Syncer) persist(page *api.PolicyPage, at position, beside bool) error {
	if !beside {
		return s.keep.add(page.Documents, at)
	}
	if err := s.keep.stage(page.Documents, at.Pass); err != nil || !at.Complete {
		return err
	}
	return s.keep.adopt(at)
}

func (s *Syncer) swap(at position, table *policy.Table, beside bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if beside && !at.Complete {
		s.staged = &staged{at: at, table: table}
		return
	}
	s.staged = nil
	s.enforced = at
	s.table.Store(table)
	s.status.Complete, s.status.Epoch, s.status.After = at.Complete, at.Epoch, at.After
}

func (s *Syncer) succeeded() {
	s.note(func(st *Status) { st.LastSuccess, st.LastError = s.config.Now(), nil })
}

func (s *Syncer) note(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// pause waits after failures: 250 ms doubling to 5 s, spread over half to all of that. It stays short, since an edge that
// does not hear of a suspension goes on relaying.
func pause(ctx context.Context, failures int) {
	d := min(125*time.Millisecond<<min(failures, 6), 5*time.Second)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Package instruct carries out what the control plane tells one edge to do: numbered instructions that travel beside policy
// and are acknowledged by number.
//
// Each is carried out exactly once. Its effect and its number are one batch of the journal ('i' = the highest number done), so
// that a crash leaves both or neither, and an instruction that arrives again is known. One that changes more of the queue than
// fits into a batch says in each of them how far it is ('ip'), and in the last one its number. Numbers come in order; one that
// this version does not understand changes nothing, is reported as an event, and passed over lest it block what follows.
package instruct

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

var doneKey = []byte("i")

// Config wires a Runner. All fields but Patience are required.
type Config struct {
	Journal *journal.Journal
	Spool   *spool.Spool
	Outbox  *outbox.Outbox
	// Enqueue is given a message that is stored and due; nobody changes it after that.
	Enqueue func(*spool.Message)
	// Operate acts on the queue; see queue.Queue.Operate.
	Operate func(ctx context.Context, op queue.Operation, t queue.Tally, record func(*journal.Batch, queue.Tally, bool) error) error
	// Hostname is the domain of the Message-Ids of notices.
	Hostname string
	Log      *slog.Logger
	Now      func() time.Time
	Entropy  io.Reader
	// Patience is how long Carry waits for what it began; then the policy goes on. 0 means a second.
	Patience time.Duration
}

// Runner carries out instructions; its methods may be called from any goroutine.
type Runner struct {
	config  Config
	working sync.WaitGroup

	mu   sync.Mutex
	done int64
	// under is what is being carried out; nil for nothing.
	under *work
}

// work is one list of instructions on its way.
type work struct {
	ended chan struct{}
	err   error // once ended is closed
}

// New reads how far the last process had come.
func New(c Config) (*Runner, error) {
	if c.Patience == 0 {
		c.Patience = time.Second
	}
	r := &Runner{config: c}
	value, err := c.Journal.Get(doneKey)
	switch {
	case errors.Is(err, journal.ErrNotFound):
	case errors.Is(err, journal.ErrCorrupt):
		c.Log.Error("which instructions are carried out cannot be read: some may be carried out again", "err", err)
	case err != nil:
		return nil, fmt.Errorf("read instruction number: %w", err)
	case len(value) != 8:
		return nil, fmt.Errorf("read instruction number: %d bytes, want 8", len(value))
	default:
		r.done = int64(binary.BigEndian.Uint64(value))
	}
	return r, nil
}

// Acknowledged answers the highest number that is carried out, or passed over.
func (r *Runner) Acknowledged() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// Carry carries out what is new among the instructions, in their order. After an error the rest is left for the next call. An
// operation on a long queue can take a minute: then Carry returns while it goes on, because policy must not wait for it, and the
// calls that follow begin nothing before it has ended.
func (r *Runner) Carry(ctx context.Context, instructions []json.RawMessage) error {
	under := r.begin(ctx, instructions)
	patience := time.NewTimer(r.config.Patience)
	defer patience.Stop()
	select {
	case <-patience.C:
		return nil
	case <-under.ended:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under == under {
		r.under = nil
	}
	return under.err
}

// begin starts on the instructions, unless others are still under way.
func (r *Runner) begin(ctx context.Context, instructions []json.RawMessage) *work {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under == nil {
		under := &work{ended: make(chan struct{})}
		r.under = under
		r.working.Go(func() {
			defer close(under.ended)
			under.err = r.carryAll(ctx, instructions)
		})
	}
	return r.under
}

// Wait returns when nothing is under way any more; the context of the calls ends what is.
func (r *Runner) Wait() { r.working.Wait() }

func (r *Runner) carryAll(ctx context.Context, instructions []json.RawMessage) error {
	for _, text := range instructions {
		var instruction api.Instruction
		if err := json.Unmarshal(text, &instruction); err != nil {
			return fmt.Errorf("read instruction: %w", err)
		}
		if instruction.Number <= r.Acknowledged() {
			continue
		}
		if err := r.carryOne(ctx, instruction, misunderstood(instruction, text)); err != nil {
			return fmt.Errorf("instruction %d (%s): %w", instruction.Number, instruction.Kind, err)
		}
		r.mu.Lock()
		r.done = instruction.Number
		r.mu.Unlock()
	}
	return nil
}

// misunderstood is why this version cannot carry out an instruction, given also as it came; nil when it can. An operation on the
// queue must be understood to the last field, because one that is left out may be what kept it from the rest of the mail. A
// notice says what it says also without a field that came later, but not if its kind is another.
func misunderstood(instruction api.Instruction, text json.RawMessage) error {
	_, operates := actions()[instruction.Kind]
	switch {
	case operates && instruction.Queue != nil:
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		return strict.Decode(new(api.Instruction))
	case instruction.Kind == api.InstructionKindSendNotice && instruction.Notice != nil && instruction.Notice.Kind.Valid():
		return nil
	}
	return errors.New("kind or content not known to this version")
}

// carryOne carries out an instruction; why, if anything, says that this version does not understand it.
func (r *Runner) carryOne(ctx context.Context, instruction api.Instruction, why error) error {
	if action, operates := actions()[instruction.Kind]; operates && why == nil {
		return r.operate(ctx, instruction.Number, action, *instruction.Queue)
	}
	batch := r.config.Journal.NewBatch()
	defer batch.Discard()
	batch.Set(doneKey, numberValue(instruction.Number))
	if why == nil {
		return r.sendNotice(ctx, batch, *instruction.Notice)
	}
	r.config.Log.WarnContext(ctx, "instruction not carried out", "number", instruction.Number, "kind", string(instruction.Kind),
		"error", why)
	detail := fmt.Sprintf("instruction %d of kind %q not carried out: %v", instruction.Number, instruction.Kind, why)
	event := api.EdgeEvent{Time: r.config.Now().UTC(), Kind: api.EdgeEventKindInstructionUnknown, Detail: &detail}
	if instruction.Queue != nil {
		event.Ref = &instruction.Queue.OperationID
	}
	if err := r.config.Outbox.Append(batch, event); err != nil {
		return err
	}
	return r.config.Journal.Commit(batch)
}

// numberValue is the record of a number.
func numberValue(number int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(number)) }

package policysync

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
)

// Records:
//
//	'p' 'm'               state: which pass is enforced, its epoch and position
//	'p' 'd' pass key      one document: SHA-256 of the rest, then JSON
//
// A pass is numbered, so that the documents of a new one lie beside those that are enforced until it is whole.

var stateKey = []byte("pm")

// position is how far a pass has come.
type position struct {
	Pass     uint64 `json:"pass"`
	Epoch    string `json:"epoch"`
	After    string `json:"after"`
	Complete bool   `json:"complete"`
}

func passPrefix(pass uint64) []byte { return binary.BigEndian.AppendUint64([]byte("pd"), pass) }

func documentKey(pass uint64, key string) []byte { return append(passPrefix(pass), key...) }

// keeper puts policy on the disk and reads it back.
type keeper struct{ journal *journal.Journal }

// load answers what the last process enforced. A document that is damaged makes the whole untrustworthy: the edge then starts
// from nothing, which defers, rather than from a policy with a hole, which refuses.
func (k keeper) load() (position, []api.PolicyDocument, error) {
	var at position
	data, err := k.journal.Get(stateKey)
	if errors.Is(err, journal.ErrNotFound) {
		return position{}, nil, nil
	}
	if err != nil {
		return position{}, nil, unreadable(err)
	}
	if err := json.Unmarshal(data, &at); err != nil {
		return position{}, nil, fmt.Errorf("%w: state: %w", errDamaged, err)
	}
	var documents []api.PolicyDocument
	err = k.journal.Scan(passPrefix(at.Pass), func(_, value []byte) error {
		document, err := decode(value)
		documents = append(documents, document)
		return err
	})
	return at, documents, unreadable(err)
}

// unreadable is errDamaged for what the journal could not read.
func unreadable(err error) error {
	if errors.Is(err, journal.ErrCorrupt) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil && !errors.Is(err, errDamaged) {
		return fmt.Errorf("read policy: %w", err)
	}
	return err
}

var errDamaged = errors.New("policy on disk is damaged")

func encode(document api.PolicyDocument) ([]byte, error) {
	body, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", document.Key, err)
	}
	sum := sha256.Sum256(body)
	return append(sum[:], body...), nil
}

func decode(value []byte) (api.PolicyDocument, error) {
	var document api.PolicyDocument
	if len(value) < sha256.Size {
		return document, errDamaged
	}
	sum := sha256.Sum256(value[sha256.Size:])
	if !bytes.Equal(sum[:], value[:sha256.Size]) {
		return document, errDamaged
	}
	if err := json.Unmarshal(value[sha256.Size:], &document); err != nil {
		return document, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return document, nil
}

// add puts the documents of one page and the position behind it on the disk, as one.
func (k keeper) add(documents []api.PolicyDocument, at position) error {
	batch := k.journal.NewBatch()
	defer batch.Discard()
	if err := put(batch, documents, at.Pass); err != nil {
		return err
	}
	return k.commit(batch, at)
}

// put adds the documents of a page to a batch. One that an earlier page of the same pass brought may have been deleted since.
func put(batch *journal.Batch, documents []api.PolicyDocument, pass uint64) error {
	for _, document := range documents {
		if document.Deleted {
			batch.Delete(documentKey(pass, document.Key))
			continue
		}
		value, err := encode(document)
		if err != nil {
			return err
		}
		batch.Set(documentKey(pass, document.Key), value)
	}
	return nil
}

// stage is add for a pass that is not enforced yet: the state goes on naming the one that is.
func (k keeper) stage(documents []api.PolicyDocument, pass uint64) error {
	batch := k.journal.NewBatch()
	defer batch.Discard()
	if err := put(batch, documents, pass); err != nil {
		return err
	}
	return k.journal.CommitLazy(batch)
}

// adopt makes a staged pass the enforced one and drops all others.
func (k keeper) adopt(at position) error {
	batch := k.journal.NewBatch()
	defer batch.Discard()
	batch.DeleteRange([]byte("pd"), passPrefix(at.Pass))
	return k.commit(batch, at)
}

// clear drops what is left of a staged pass that was not finished.
func (k keeper) clear(pass uint64) error {
	batch := k.journal.NewBatch()
	defer batch.Discard()
	batch.DeleteRange(passPrefix(pass), []byte("pe"))
	return k.journal.CommitLazy(batch)
}

// reset drops everything, documents and position as one: a position without its documents would be an empty policy.
func (k keeper) reset() error {
	batch := k.journal.NewBatch()
	defer batch.Discard()
	batch.DeleteRange([]byte("pd"), []byte("pe"))
	batch.Delete(stateKey)
	return k.journal.Commit(batch)
}

func (k keeper) commit(batch *journal.Batch, at position) error {
	state, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("encode policy state: %w", err)
	}
	batch.Set(stateKey, state)
	return k.journal.Commit(batch)
}

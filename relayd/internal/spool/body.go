package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"activerelay/relayd/internal/journal"
)

// castagnoli is the checksum of texts: it catches every single flipped bit and
// costs a fraction of a microsecond for a usual message.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A body record is, big-endian: version, place, length and checksum of the
// prepended fields, length and checksum of the text; then the fields; then the
// text unless it is in a file.
const (
	bodyVersion   = 1
	bodyHeadBytes = 1 + 1 + 4 + 4 + 8 + 4
)

const (
	inJournal = 0
	inFile    = 1
)

// setBody adds the body record to b; the text is copied once, into its place.
func (w *Writer) setBody(b *journal.Batch, id string) {
	place, text := byte(inFile), []byte(nil)
	if w.file == nil {
		place, text = inJournal, w.text.bytes()
	}
	b.SetBuilt(bodyKey(id), bodyHeadBytes+len(w.header)+len(text), func(value []byte) {
		r := append(value[:0], bodyVersion, place)
		r = binary.BigEndian.AppendUint32(r, uint32(len(w.header)))
		r = binary.BigEndian.AppendUint32(r, crc32.Checksum(w.header, castagnoli))
		r = binary.BigEndian.AppendUint64(r, uint64(w.size))
		r = binary.BigEndian.AppendUint32(r, w.sum)
		r = append(r, w.header...)
		_ = append(r, text...)
	})
}

// bodyHead is the decoded front of a body record.
type bodyHead struct {
	place     byte
	headerLen int
	headerSum uint32
	textLen   int64
	textSum   uint32
}

func decodeBodyHead(r []byte) (bodyHead, error) {
	if len(r) < bodyHeadBytes || r[0] != bodyVersion || r[1] > inFile {
		return bodyHead{}, errors.New("body record cannot be read")
	}
	h := bodyHead{
		place:     r[1],
		headerLen: int(binary.BigEndian.Uint32(r[2:])),
		headerSum: binary.BigEndian.Uint32(r[6:]),
		textLen:   int64(binary.BigEndian.Uint64(r[10:])),
		textSum:   binary.BigEndian.Uint32(r[18:]),
	}
	rest := int64(len(r) - bodyHeadBytes)
	want := int64(h.headerLen)
	if h.place == inJournal {
		want += h.textLen
	}
	if h.textLen < 0 || rest != want {
		return bodyHead{}, fmt.Errorf("body record has %d bytes of content, says %d", rest, want)
	}
	return h, nil
}

// Body is the whole text of a message, prepended fields first: an
// io.ReadSeeker and io.ReaderAt with its Size.
type Body struct {
	io.SectionReader
	file   *os.File
	memory content
	lent   *text // that memory belongs to, if anything
}

func newBody(whole []byte, lent *text) *Body {
	b := &Body{memory: whole, lent: lent}
	b.SectionReader = *io.NewSectionReader(&b.memory, 0, int64(len(whole)))
	return b
}

// Bytes returns the whole text where it is in memory, and nil where it is in a
// file. Nobody may change it, nor look at it after Close: what is there then may
// be another message.
func (b *Body) Bytes() []byte { return b.memory }

// Close releases the body. It may be called more than once.
func (b *Body) Close() error {
	b.memory = nil
	if t := b.lent; t != nil {
		b.lent = nil
		t.release()
	}
	if b.file == nil {
		return nil
	}
	f := b.file
	b.file = nil
	return f.Close()
}

// content reads a text in memory; nil is one that was closed.
type content []byte

// ReadAt implements io.ReaderAt.
func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	if *c == nil {
		return 0, os.ErrClosed
	}
	if off < int64(len(*c)) {
		n = copy(p, (*c)[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Body opens the text of a message: as it came, if that was a moment ago, or from
// the disk after having checked all of it. A text that is missing or damaged there
// puts the message into quarantine and gives ErrCorrupt.
func (s *Spool) Body(id string) (*Body, error) {
	if t := s.handover.open(id); t != nil {
		return newBody(t.whole, t), nil
	}
	record, err := s.journal.Get(bodyKey(id))
	if errors.Is(err, journal.ErrCorrupt) {
		return nil, s.damaged(id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	head, err := decodeBodyHead(record)
	if err != nil {
		return nil, s.damaged(id, err)
	}
	content := record[bodyHeadBytes:]
	header := content[:head.headerLen]
	if crc32.Checksum(header, castagnoli) != head.headerSum {
		return nil, s.damaged(id, errors.New("checksum of the added header fields"))
	}
	if head.place == inFile {
		return s.fileBody(id, header, head)
	}
	if crc32.Checksum(content[head.headerLen:], castagnoli) != head.textSum {
		return nil, s.damaged(id, errors.New("checksum of the text"))
	}
	return newBody(content, nil), nil
}

func (s *Spool) fileBody(id string, header []byte, head bodyHead) (*Body, error) {
	f, err := os.Open(filepath.Join(s.dir, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, s.missing(id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("body of %s: %w", id, err), f.Close())
	}
	if n != head.textLen || sum.Sum32() != head.textSum {
		cause := fmt.Errorf("file has %d bytes and checksum %08x, not %d and %08x",
			n, sum.Sum32(), head.textLen, head.textSum)
		return nil, errors.Join(s.damaged(id, cause), f.Close())
	}
	both := &joined{head: header, tail: f}
	return &Body{SectionReader: *io.NewSectionReader(both, 0, int64(len(header))+n), file: f}, nil
}

// missing tells a file that was lost from one that went, since its record was
// read, together with its settled message.
func (s *Spool) missing(id string, cause error) error {
	there, err := s.journal.Has(bodyKey(id))
	if err != nil {
		return fmt.Errorf("body of %s: %w", id, err)
	}
	if !there {
		return fmt.Errorf("body of %s: %w", id, ErrNotFound)
	}
	return s.damaged(id, cause)
}

// joined reads head and then tail as one.
type joined struct {
	head []byte
	tail io.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (j *joined) ReadAt(p []byte, off int64) (n int, err error) {
	if off < int64(len(j.head)) {
		n = copy(p, j.head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	m, err := j.tail.ReadAt(p[n:], off+int64(n)-int64(len(j.head)))
	return n + m, err
}

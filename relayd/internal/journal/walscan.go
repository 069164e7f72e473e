package journal

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/bits"
)

// The engine's log is a sequence of blocks of 32 KiB; a block is a sequence of
// chunks, and zeros where no chunk fits any more; a record is one chunk or more.
// A chunk is, little-endian: checksum (4 bytes) over all behind the length,
// length of the content (2), kind (1), number of the log (4), offset up to which
// the log had been synced when it was written (8), content. Files are used again:
// behind the last chunk of a log may be what an older one left there, under its own
// number. That may begin in the middle of a chunk, so with the text of a message,
// which its sender chose. What is at the beginning of a block was written by the
// engine in any case.
const (
	blockBytes     = 32 << 10
	chunkHeadBytes = 19
	olderHeadBytes = 11
	chunkSumFrom   = 6 // the checksum covers what is from here on
	chunkFirstKind = 9
	olderFirstKind = 5
)

// The kinds of chunks, less the first kind: which part of a record it is.
const (
	partWhole = iota
	partFirst
	partMiddle
	partLast
)

var logTable = crc32.MakeTable(crc32.Castagnoli)

func chunkSum(text []byte) uint32 {
	c := crc32.Checksum(text, logTable)
	return (c>>15 | c<<17) + 0xa282ead8
}

// logScanner reads the records of one log file and, other than the engine's
// reader, goes on behind what cannot be read. It looks for the next chunk only
// where the length of the bad one leads to, or at the beginning of a block:
// elsewhere is the text of messages, which may look like anything.
type logScanner struct {
	in     io.Reader
	number uint32

	block [blockBytes]byte
	n, at int   // bytes in block; where the next chunk is
	base  int64 // offset of the block after this one

	record  []byte
	partial bool // record waits for its next part

	gap    int64 // offset of what could not be read since the last record; -1 if all could
	torn   bool  // what is at gap was written for this log
	synced int64 // the log had been synced up to here, say the chunks read so far
}

func newLogScanner(in io.Reader, number uint32) *logScanner {
	return &logScanner{in: in, number: number, gap: -1}
}

// next reads the next whole record into s.record; gap tells whether something is
// missing before it. At the end of the file it returns io.EOF.
func (s *logScanner) next() error {
	s.gap, s.torn = -1, false
	for {
		at := s.offset()
		part, content, err := s.nextChunk()
		if err != nil {
			s.giveUp(at)
			return err
		}
		if part <= partFirst {
			s.giveUp(at)
			s.record = s.record[:0]
		} else if !s.partial {
			s.lose(at, true) // its first part is lost
			continue
		}
		s.record = append(s.record, content...)
		s.partial = part == partFirst || part == partMiddle
		if !s.partial {
			return nil
		}
	}
}

func (s *logScanner) offset() int64 { return s.base - int64(s.n-s.at) }

func (s *logScanner) lose(at int64, torn bool) {
	if s.gap < 0 {
		s.gap = at
	}
	s.torn = s.torn || torn
}

// giveUp forgets a record whose last part does not come.
func (s *logScanner) giveUp(at int64) {
	if s.partial {
		s.lose(at, true)
		s.partial = false
	}
}

// nextChunk returns the next sound chunk of this log.
func (s *logScanner) nextChunk() (part int, content []byte, err error) {
	for {
		if s.n-s.at < olderHeadBytes || s.n-s.at < chunkHeadBytes && s.padding() {
			if err := s.readBlock(); err != nil {
				return 0, nil, err
			}
			continue
		}
		if c, ok := s.sound(s.at, -1); ok {
			s.synced = max(s.synced, c.synced)
			s.at = c.end
			return c.part, c.content, nil
		}
		s.lose(s.offset(), s.own(s.at))
		s.partial = false
		s.at = s.resume()
	}
}

func (s *logScanner) readBlock() error {
	n, err := io.ReadFull(s.in, s.block[:])
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	s.n, s.at = n, 0
	s.base += int64(n)
	return err
}

// padding reports whether only zeros are left in the block.
func (s *logScanner) padding() bool {
	for _, b := range s.block[s.at:s.n] {
		if b != 0 {
			return false
		}
	}
	return true
}

// own reports whether what is at i looks like the head of a chunk of this log.
func (s *logScanner) own(i int) bool {
	return s.n-i >= olderHeadBytes && binary.LittleEndian.Uint32(s.block[i+7:]) == s.number
}

// chunk is one that was read.
type chunk struct {
	part    int
	content []byte
	end     int // in the block
	synced  int64
}

// sound reads the chunk at i; with length not negative, as if it had that.
func (s *logScanner) sound(i, length int) (c chunk, ok bool) {
	if !s.own(i) {
		return c, false
	}
	if length < 0 {
		length = int(binary.LittleEndian.Uint16(s.block[i+4:]))
	}
	head := s.headBytes(i)
	c.end = i + head + length
	if head == 0 || c.end > s.n || chunkSum(s.block[i+chunkSumFrom:c.end]) != binary.LittleEndian.Uint32(s.block[i:]) {
		return c, false
	}
	c.content = s.block[i+head : c.end]
	c.part = (int(s.block[i+6]) - olderFirstKind) % 4
	if head == chunkHeadBytes {
		c.synced = int64(binary.LittleEndian.Uint64(s.block[i+olderHeadBytes:]))
	}
	return c, c.synced <= s.base-int64(s.n-i) // of itself and what comes later nothing was synced
}

// headBytes is the size of the head of the chunk at i by its kind, 0 if there is
// no such kind.
func (s *logScanner) headBytes(i int) int {
	switch kind := s.block[i+6]; {
	case kind >= olderFirstKind && kind < chunkFirstKind:
		return olderHeadBytes
	case kind >= chunkFirstKind && kind < chunkFirstKind+4:
		return chunkHeadBytes
	}
	return 0
}

// resume is where to go on after a bad chunk in this block. The length leads on
// only if the number, but for a flipped bit, says that this is a head, and not text
// behind the end of the log.
func (s *logScanner) resume() int {
	if bits.OnesCount32(binary.LittleEndian.Uint32(s.block[s.at+7:])^s.number) > 1 {
		return s.n
	}
	length := int(binary.LittleEndian.Uint16(s.block[s.at+4:]))
	for bit := range 16 { // the length itself may be what is flipped
		if c, ok := s.sound(s.at, length^1<<bit); ok {
			return c.end
		}
	}
	for _, head := range []int{chunkHeadBytes, olderHeadBytes} {
		if next := s.at + head + length; next < s.n {
			if _, ok := s.sound(next, -1); ok {
				return next
			}
		}
	}
	return s.n
}

// logChunks writes records as a log has them.
type logChunks struct {
	out    io.Writer
	number uint32
	at     int // in the block
}

func (w *logChunks) write(record []byte) error {
	for first := true; ; first = false {
		if blockBytes-w.at < chunkHeadBytes {
			if _, err := w.out.Write(make([]byte, blockBytes-w.at)); err != nil {
				return err
			}
			w.at = 0
		}
		n := min(len(record), blockBytes-w.at-chunkHeadBytes)
		part := partMiddle
		switch last := n == len(record); {
		case first && last:
			part = partWhole
		case first:
			part = partFirst
		case last:
			part = partLast
		}
		if err := w.chunk(part, record[:n]); err != nil {
			return err
		}
		if record = record[n:]; len(record) == 0 {
			return nil
		}
	}
}

func (w *logChunks) chunk(part int, content []byte) error {
	b := make([]byte, chunkHeadBytes, chunkHeadBytes+len(content))
	binary.LittleEndian.PutUint16(b[4:], uint16(len(content)))
	b[6] = byte(chunkFirstKind + part)
	binary.LittleEndian.PutUint32(b[7:], w.number)
	b = append(b, content...)
	binary.LittleEndian.PutUint32(b, chunkSum(b[chunkSumFrom:]))
	w.at += len(b)
	_, err := w.out.Write(b)
	return err
}

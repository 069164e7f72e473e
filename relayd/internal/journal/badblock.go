package journal

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Whenever the engine reads a damaged block it searches for the bit that is flipped,
// and takes a second for a block of 64 KiB. Reading around one place looks some thirty
// times. So of a block that was told to be damaged the checksum is held against its
// content here, before the engine does; what can be read again is passed on.
type badBlocks struct {
	any   atomic.Bool
	sizes sync.Map // of blockPlace, without what is behind a block
}

type blockPlace struct {
	path   string
	offset int64
}

// blockEndBytes are behind each block of a table: how it is compressed, which the
// checksum covers too, and the checksum.
const blockEndBytes = 1 + 4

// note learns from the engine's text which block is damaged. Another text, of a later
// engine, would only make reading slow.
func (b *badBlocks) note(path string, cause error) {
	var offset, size int64
	text := cause.Error()
	if i := strings.Index(text, "block "); i >= 0 {
		if n, _ := fmt.Sscanf(text[i:], "block %d/%d:", &offset, &size); n == 2 {
			b.sizes.Store(blockPlace{path, offset}, size)
			b.any.Store(true)
		}
	}
}

// stillBad reports whether p, read from a table, is a block that was noted, and damaged.
func (b *badBlocks) stillBad(path string, p []byte, offset int64) bool {
	if !b.any.Load() {
		return false
	}
	size, noted := b.sizes.Load(blockPlace{path, offset})
	if !noted || int64(len(p)) != size.(int64)+blockEndBytes {
		return false
	}
	sum := len(p) - 4
	return chunkSum(p[:sum]) != binary.LittleEndian.Uint32(p[sum:])
}

// tableFile is a file that the engine reads.
type tableFile struct {
	vfs.File
	path string
	bad  *badBlocks
}

// ReadAt implements vfs.File.
func (f tableFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.File.ReadAt(p, offset)
	if err == nil && f.bad.stillBad(f.path, p, offset) {
		return 0, fmt.Errorf("%s: %w: the block at %d has not become better", f.path, pebble.ErrCorruption, offset)
	}
	return n, err
}

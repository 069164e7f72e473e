package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The engine's manifest says which tables belong to the store. What cannot be
// read of it the engine takes for the unfinished end of a crash: it then removes
// the tables that it has not heard of, while the logs they were made from are
// gone. So before a log goes, books notes how far the manifest was synced, and at
// the next Open everything up to there must be sound.
//
// The note is a file of its own: name and length, and their checksum, written in
// place. If the note itself is damaged, or a crash tears it, nothing is checked. A
// sound manifest is never refused, whatever step a crash comes after: the note tells
// less than was synced, and of a manifest whose number is not used again, because
// each start writes one with a number above all that it finds, before it removes any.
type books struct {
	mu       sync.Mutex
	manifest string // name of the one that was synced last
	synced   int64  // bytes
	noted    int64
}

const booksFile = "manifest-synced"

func isManifest(name string) bool { return strings.HasPrefix(filepath.Base(name), "MANIFEST-") }

// grown is told of every sync of a manifest.
func (b *books) grown(path string, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name := filepath.Base(path); name != b.manifest {
		b.manifest, b.noted = name, -1
	}
	b.synced = size
}

// note makes what is known durable, before a log in dir goes.
func (b *books) note(fs vfs.FS, dir string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.manifest == "" || b.noted == b.synced {
		return nil
	}
	text := fmt.Appendf(nil, "%-32s %20d ", b.manifest, b.synced)
	text = fmt.Appendf(text, "%08x\n", crc32.Checksum(text, logTable))
	f, err := fs.OpenReadWrite(filepath.Join(dir, booksFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		b.noted = b.synced
	}
	return err
}

// checkBooks refuses a manifest that is not sound up to where it was synced.
func checkBooks(fs vfs.FS, dir string) error {
	text, err := readAll(fs, filepath.Join(dir, booksFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var name string
	var size int64
	var sum uint32
	if n, err := fmt.Sscanf(string(text), "%s %d %x", &name, &size, &sum); n != 3 || err != nil || len(text) < 54 ||
		crc32.Checksum(text[:54], logTable) != sum {
		return nil
	}
	manifest, err := readAll(fs, filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil // there is a later one, which was synced whole before this one went
	}
	if err != nil {
		return err
	}
	if sound := soundBytes(manifest); sound < size {
		return fmt.Errorf("%s is damaged at byte %d of %d: %w: the engine would forget tables",
			filepath.Join(dir, name), sound, size, ErrCorrupt)
	}
	return nil
}

func readAll(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// oldestLog is the number of the first log that the tables do not have all of, by
// the manifest that the engine will read; 0 if that cannot be told. The engine does
// not look at earlier logs: one whose torn end was read, and flushed, before a crash
// came between that and its removal is no damage.
func oldestLog(fs vfs.FS, dir string) (number uint64) {
	about, err := pebble.Peek(dir, fs)
	if err != nil || !about.Exists {
		return 0
	}
	f, err := fs.Open(about.ManifestFilename)
	if err != nil {
		return 0
	}
	defer f.Close()
	for edits := record.NewReader(f, 0); ; {
		edit, err := edits.Next()
		if err != nil {
			return number
		}
		text, err := io.ReadAll(edit)
		if err != nil {
			return number
		}
		number = max(number, oldestLogIn(text))
	}
}

// oldestLogIn is what an edit of the manifest says of it, or 0. Each begins with the
// name of the order of keys, if it has one, and this number, if it has it.
func oldestLogIn(edit []byte) uint64 {
	const tagOrder, tagOldestLog = 1, 2
	uvarint := func() uint64 {
		v, n := binary.Uvarint(edit)
		edit = edit[max(n, 0):]
		return v
	}
	tag := uvarint()
	if tag == tagOrder {
		length := uvarint()
		edit = edit[min(length, uint64(len(edit))):]
		tag = uvarint()
	}
	if tag != tagOldestLog {
		return 0
	}
	return uvarint()
}

// soundBytes is how much of a manifest is sound from the beginning on. Its chunks
// are those of a log (walscan.go), but without number and offset.
func soundBytes(manifest []byte) int64 {
	const head = 7
	at := 0
	for at < len(manifest) {
		if left := blockBytes - at%blockBytes; left < head {
			at += left
			continue
		}
		if len(manifest)-at < head {
			break
		}
		end := at + head + int(binary.LittleEndian.Uint16(manifest[at+4:]))
		if end > len(manifest) || chunkSum(manifest[at+chunkSumFrom:end]) != binary.LittleEndian.Uint32(manifest[at:]) {
			break
		}
		at = end
	}
	return int64(min(at, len(manifest)))
}

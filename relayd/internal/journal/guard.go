package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The engine treats a failed log or manifest as the end of the process: it
// calls Logger.Fatalf, or panics with its locks held. A relay must do better:
// answer 451, keep reading, be looked at, be restarted. guard stands between
// the engine and the files and keeps these rules:
//
//  1. The first failed sync of anything, and the first failed write or
//     creation of a log, fails the journal (Journal.Fail) before the engine
//     hears of it. No sync is ever repeated.
//  2. From then on no file changes any more: no write, no removal, no rename.
//     What a new process finds is what was on the disk at the failure.
//  3. Of logs and directories the engine is told that all went well, because it
//     has no orderly way to hear otherwise. That is safe since no committer
//     believes the engine: Journal.await looks at the failure flag, which was
//     set first.
//  4. All other failures (no space for a table, say) are passed on; the engine
//     then tries again with a new file, here held to one try a second.
type guard struct {
	vfs.FS
	journal   *Journal
	faults    func(op, path string) error
	lastFault atomic.Int64 // nanoseconds since start, for rule 4; 0 is never
	start     time.Time
	books     books
}

// retryPause is the least time between two tries to write a table, and how long the
// engine has to end by itself after a failure.
const retryPause = time.Second

func newGuard(j *Journal, c Config) *guard {
	g := &guard{FS: c.fs, journal: j, faults: c.Faults, start: time.Now()}
	if g.FS == nil {
		g.FS = vfs.Default
	}
	if g.faults == nil {
		g.faults = func(string, string) error { return nil }
	}
	return g
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func (g *guard) failed() bool { return g.journal.failure.Load() != nil }

// Create implements vfs.FS.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	g.pause(name)
	return g.openLogOr(name, func() (vfs.File, error) { return g.FS.Create(name, category) })
}

// Open implements vfs.FS. The engine may try again and again to open a table that
// it cannot read, without a pause.
func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if _, damaged := g.journal.damaged.Load(name); damaged {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-g.journal.closing:
		}
	}
	f, err := g.FS.Open(name, opts...)
	if err == nil && strings.HasSuffix(name, ".sst") {
		f = tableFile{File: f, path: name, bad: &g.journal.bad}
	}
	return f, err
}

// OpenReadWrite implements vfs.FS.
func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.openLogOr(name, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, category, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.openLogOr(newname, func() (vfs.File, error) {
		if err := g.books.note(g, filepath.Dir(oldname)); err != nil {
			return nil, err
		}
		return g.FS.ReuseForWrite(oldname, newname, category)
	})
}

// openLogOr opens a file for writing under rules 1 to 4.
func (g *guard) openLogOr(name string, open func() (vfs.File, error)) (vfs.File, error) {
	f, err := vfs.File(nil), g.journal.Err()
	if err == nil {
		if err = g.faults("create", name); err == nil {
			f, err = open()
		}
	}
	if err == nil {
		file := &guardedFile{File: f, guard: g, name: name, silent: isLog(name)}
		if file.silent {
			file.measure()
		}
		return file, nil
	}
	if isLog(name) {
		g.journal.Fail(err)
		return nullFile{}, nil
	}
	g.noteFault()
	return nil, err
}

// OpenDir implements vfs.FS.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: f, guard: g, name: name, silent: true, dir: true}, nil
}

// Remove implements vfs.FS.
func (g *guard) Remove(name string) error {
	return g.change("remove", name, func() error {
		if isLog(name) {
			if err := g.books.note(g, filepath.Dir(name)); err != nil {
				return err
			}
		}
		return g.FS.Remove(name)
	})
}

// RemoveAll implements vfs.FS.
func (g *guard) RemoveAll(name string) error {
	return g.change("remove", name, func() error { return g.FS.RemoveAll(name) })
}

// MkdirAll implements vfs.FS.
func (g *guard) MkdirAll(name string, mode fs.FileMode) error {
	if err := g.journal.Err(); err != nil {
		return err
	}
	return g.FS.MkdirAll(name, mode)
}

// Rename implements vfs.FS.
func (g *guard) Rename(oldname, newname string) error {
	return g.change("rename", newname, func() error { return g.FS.Rename(oldname, newname) })
}

// Link implements vfs.FS.
func (g *guard) Link(oldname, newname string) error {
	return g.change("create", newname, func() error { return g.FS.Link(oldname, newname) })
}

// Unwrap implements vfs.FS.
func (g *guard) Unwrap() vfs.FS { return g.FS }

func (g *guard) change(op, name string, do func() error) error {
	if err := g.journal.Err(); err != nil {
		return err
	}
	if err := g.faults(op, name); err != nil {
		return err
	}
	return do()
}

// pause holds a table's creation back for a second after the last failure;
// the engine itself would try again at once, for ever.
func (g *guard) pause(name string) {
	last := g.lastFault.Load()
	if last == 0 || isLog(name) {
		return
	}
	if wait := g.journal.retry - (time.Since(g.start) - time.Duration(last)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-g.journal.closing:
		}
	}
}

func (g *guard) noteFault() { g.lastFault.Store(int64(time.Since(g.start)) + 1) }

// guardedFile is one file open for writing, or a directory.
type guardedFile struct {
	vfs.File
	guard  *guard
	name   string
	silent bool // rule 3
	dir    bool
	size   int64 // written
	ready  int64 // of a log: up to where it needs no new blocks, see ahead.go
}

// Write implements io.Writer.
func (f *guardedFile) Write(p []byte) (int, error) {
	err := f.guard.journal.Err()
	if err == nil {
		if err = f.guard.faults("write", f.name); err == nil {
			var n int
			if n, err = f.File.Write(p); err == nil {
				f.size += int64(n)
				f.layOut()
				return n, nil
			}
		}
	}
	if f.silent {
		f.guard.journal.Fail(err)
		return len(p), nil
	}
	f.guard.noteFault()
	return 0, err
}

// Sync implements vfs.File.
func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *guardedFile) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *guardedFile) SyncTo(length int64) (fullSync bool, err error) {
	err = f.sync(func() error {
		fullSync, err = f.File.SyncTo(length)
		return err
	})
	return fullSync, err
}

func (f *guardedFile) sync(do func() error) error {
	op := "sync"
	if f.dir {
		op = "syncdir"
	}
	err := f.guard.journal.Err()
	if err == nil {
		if isLog(f.name) {
			f.guard.journal.metrics.syncs.Inc()
		}
		if err = f.guard.faults(op, f.name); err == nil {
			err = do()
		}
		if err != nil {
			f.guard.journal.Fail(err)
		} else if isManifest(f.name) {
			f.guard.books.grown(f.name, f.size)
		}
	}
	if f.silent {
		return nil
	}
	return err
}

// Preallocate implements vfs.File. It is advice; the write will tell.
func (f *guardedFile) Preallocate(offset, length int64) error {
	if f.guard.failed() {
		return nil
	}
	if err := f.File.Preallocate(offset, length); err != nil && !f.silent {
		return err
	}
	return nil
}

// Close implements io.Closer.
func (f *guardedFile) Close() error {
	if err := f.File.Close(); err != nil && !f.silent {
		return err
	}
	return nil
}

// nullFile stands for a log that could not be made, after the failure.
type nullFile struct{ vfs.File }

func (nullFile) Write(p []byte) (int, error)            { return len(p), nil }
func (nullFile) Sync() error                            { return nil }
func (nullFile) SyncData() error                        { return nil }
func (nullFile) SyncTo(int64) (bool, error)             { return false, nil }
func (nullFile) Preallocate(int64, int64) error         { return nil }
func (nullFile) Close() error                           { return nil }
func (nullFile) Fd() uintptr                            { return vfs.InvalidFd }
func (nullFile) Stat() (vfs.FileInfo, error)            { return nullInfo{}, nil }
func (nullFile) Prefetch(int64, int64) error            { return nil }
func (nullFile) Read([]byte) (int, error)               { return 0, errNullFile }
func (nullFile) ReadAt([]byte, int64) (int, error)      { return 0, errNullFile }
func (nullFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

var errNullFile = errors.New("read of a log that was never made")

type nullInfo struct{}

func (nullInfo) Name() string           { return "" }
func (nullInfo) Size() int64            { return 0 }
func (nullInfo) Mode() fs.FileMode      { return 0 }
func (nullInfo) ModTime() time.Time     { return time.Time{} }
func (nullInfo) IsDir() bool            { return false }
func (nullInfo) Sys() any               { return nil }
func (nullInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

var _ os.FileInfo = nullInfo{}

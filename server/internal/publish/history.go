package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"activerelay/server/internal/store"
)

// mark is kept in a file beside an SQLite database: which history it held, how far that had come, and which files these
// two are. A backup that takes the database's place is behind the mark; one that comes together with its own mark is
// another file than the one that the mark names.
type mark struct {
	Epoch    string `json:"epoch"`
	Position int64  `json:"position"`
	// Path is where the database was.
	Path string `json:"path"`
	// Database and Self identify the two files: a copy is a new file; and where a copy was written over the contents of
	// the database, it also was over those of the mark, which is a new file each time that it is saved.
	Database fileID `json:"database"`
	Self     fileID `json:"self"`
}

// fileID tells a file from its copies, and from another that was given its inode later.
type fileID struct {
	Inode uint64 `json:"inode"`
	// Born is in nanoseconds since 1970; 0 where the file system does not say.
	Born int64 `json:"born"`
}

// OpenHistory finds out, before anything is served, whether an SQLite database was restored, and begins a new epoch if
// so. A database that has a history but no mark of its own was copied or moved here, which a restore does too. Nothing
// tells a disk that was set back as a whole; who does that removes the mark.
func OpenHistory(ctx context.Context, s *store.Store) (restored bool, err error) {
	path := s.MarkPath()
	if path == "" {
		return false, nil
	}
	last, err := loadMark(s)
	if err != nil {
		return false, err
	}
	var now mark
	err = s.Write(ctx, store.System(), func(tx *store.Tx) error {
		if now.Position, err = tx.Position(); err != nil {
			return err
		}
		if now.Epoch, err = tx.Epoch(); err != nil {
			return err
		}
		restored = last == nil && now.Position > 0 ||
			last != nil && (last.Epoch != now.Epoch || last.Position > now.Position)
		if !restored {
			return nil
		}
		if err := tx.NewEpoch(); err != nil {
			return err
		}
		now.Epoch, err = tx.Epoch()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("open history: %w", err)
	}
	return restored, saveMark(s, now)
}

// loadMark returns nil when there is no mark, none that can be read, or one of other files: none of them is proof that
// nothing was restored.
func loadMark(s *store.Store) (*mark, error) {
	text, err := os.ReadFile(s.MarkPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read mark of the database: %w", err)
	}
	var m mark
	if json.Unmarshal(text, &m) != nil {
		return nil, nil
	}
	here := mark{Epoch: m.Epoch, Position: m.Position}
	if err := here.locate(s); err != nil {
		return nil, fmt.Errorf("read mark of the database: %w", err)
	}
	if here.Self, err = identify(s.MarkPath()); err != nil {
		return nil, fmt.Errorf("read mark of the database: %w", err)
	}
	if here != m {
		return nil, nil
	}
	return &m, nil
}

// locate notes which file the database is, and where.
func (m *mark) locate(s *store.Store) (err error) {
	if m.Database, err = identify(s.FilePath()); err != nil {
		return err
	}
	if m.Path, err = filepath.EvalSymlinks(s.FilePath()); err != nil {
		return err
	}
	m.Path, err = filepath.Abs(m.Path)
	return err
}

// saveMark replaces the file by a new one, so that a crash leaves the old mark or the new one.
func saveMark(s *store.Store, m mark) error {
	path := s.MarkPath()
	if path == "" {
		return nil
	}
	err := m.locate(s)
	if err == nil {
		err = m.write(path + ".new")
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write mark of the database: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write mark of the database: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// write makes the file, which knows itself.
func (m *mark) write(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var text []byte
	if m.Self, err = identify(path); err == nil {
		text, err = json.Marshal(m)
	}
	if err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

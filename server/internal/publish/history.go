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

// mark is kept in a file beside an SQLite database: which history it held and how far that had come. A backup that takes
// the database's place is behind it.
type mark struct {
	Epoch    string `json:"epoch"`
	Position int64  `json:"position"`
}

// OpenHistory finds out, before anything is served, whether an SQLite database was restored, and begins a new epoch if
// so. A database that has a history but no mark was moved here without it, which a restore does too.
func OpenHistory(ctx context.Context, s *store.Store) (restored bool, err error) {
	path := s.MarkPath()
	if path == "" {
		return false, nil
	}
	last, err := loadMark(path)
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
	return restored, saveMark(path, now)
}

// loadMark returns nil when there is no mark, or none that can be read: both are no proof that nothing was restored.
func loadMark(path string) (*mark, error) {
	text, err := os.ReadFile(path)
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
	return &m, nil
}

// saveMark replaces the file, so that a crash leaves the old mark or the new one.
func saveMark(path string, m mark) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := writeSynced(path+".new", text); err != nil {
		return fmt.Errorf("write mark of the database: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write mark of the database: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write mark of the database: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

//go:build !linux

package publish

import (
	"fmt"
	"os"
	"syscall"
)

// identify looks at a file.
func identify(path string) (fileID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{}, fmt.Errorf("identify: %w", err)
	}
	id := fileID{}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Inode = s.Ino
	}
	return id, nil
}

package publish

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// identify looks at a file. The device is left out: some get another number at each boot.
func identify(path string) (fileID, error) {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &s); err != nil {
		return fileID{}, fmt.Errorf("identify %s: %w", path, err)
	}
	id := fileID{Inode: s.Ino}
	if s.Mask&unix.STATX_BTIME != 0 {
		id.Born = s.Btime.Sec*1e9 + int64(s.Btime.Nsec)
	}
	return id, nil
}

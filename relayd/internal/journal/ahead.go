package journal

// aheadBytes is how far a log is filled with zeros before it is written. A sync of
// a file that grows writes metadata of the file system too, and takes about twice
// as long as one of a file that is written over. The engine uses its logs again,
// but a program that has just started, or has little to do, would write on new
// ground for its first 50 MB. Who reads a log takes zeros for its end.
const aheadBytes = 512 << 10

// measure finds out what of a log has been written in an earlier life.
func (f *guardedFile) measure() {
	if info, err := f.Stat(); err == nil {
		f.ready = info.Size()
	}
}

// prepare makes sure that the next n bytes of a log fall on what was written
// before, but for one time in a hundred, when it lays out more. Where that fails
// the write itself will tell.
func (f *guardedFile) prepare(n int) {
	end := f.size + int64(n)
	if !f.silent || end <= f.ready {
		return
	}
	if _, err := f.WriteAt(make([]byte, aheadBytes), end); err == nil {
		f.ready = end + aheadBytes
	}
}

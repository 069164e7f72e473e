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

// layOut fills a log that was written to its end with zeros behind it, one time in a
// hundred. It comes after the write, from which it must not take the last room on the
// disk; what it then takes is the next writes' own. If it fails, they will tell.
func (f *guardedFile) layOut() {
	if !f.silent || f.size <= f.ready {
		return
	}
	n, _ := f.WriteAt(make([]byte, aheadBytes), f.size)
	f.ready = f.size + int64(n)
}

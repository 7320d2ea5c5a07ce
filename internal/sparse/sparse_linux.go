package sparse

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// extents lists the data of a file (lseek(2), SEEK_DATA). A file system without
// that knowledge calls the whole file data.
func extents(f *os.File, size int64) ([]extent, error) {
	var out []extent
	for at := int64(0); at < size; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole until the end
			break
		}
		if err != nil {
			return nil, err
		}
		hole, err := f.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		out = append(out, extent{data, min(hole, size) - data})
		at = hole
	}
	return out, nil
}

// allow does nothing: a file may have holes.
func allow(*os.File) {}

// Punch makes a hole of a part of an open file, if its file system can.
func Punch(fd uintptr, from, to int64) bool {
	return unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from) == nil
}

// reflink makes dst share the blocks of src, if the file system can.
func reflink(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// startWriting lets the kernel begin to write a part of f to the disk. It is a
// hint: the fsync that follows is what reports errors.
func startWriting(f *os.File, at, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), at, n, unix.SYNC_FILE_RANGE_WRITE)
}

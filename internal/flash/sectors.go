package flash

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"
)

// rawDisk is a disk that takes and gives nothing but whole sectors: offsets and lengths
// are multiples of their size, and the memory begins at a multiple of memoryAlign. It
// has no cache.
type rawDisk interface {
	readSectors(b []byte, at int64) error
	writeSectors(b []byte, at int64) error
	Sync() error
	reread()
	Close() error
}

// memoryAlign is what the memory has to be aligned to: at least the size of a sector,
// which is 512 or 4096, and what controllers ask for besides.
const memoryAlign = 4096

// sectorDevice reads and writes any bytes of a disk that has sectors alone. It is a
// device, and as such a disk.File.
type sectorDevice struct {
	rawDisk
	path         string
	size, sector int64

	mu    sync.Mutex
	spare []byte // aligned memory, for what is not
	pos   int64  // of Read
}

func newSectorDevice(d rawDisk, path string, size, sector int64) (*sectorDevice, error) {
	if sector < 512 || sector > memoryAlign || sector&(sector-1) != 0 || size <= 0 || size%sector != 0 {
		return nil, fmt.Errorf("%s says that it has %d bytes in sectors of %d", path, size, sector)
	}
	return &sectorDevice{rawDisk: d, path: path, size: size, sector: sector, spare: alignedMemory(block)}, nil
}

// alignedMemory returns n bytes at a multiple of memoryAlign. Go does not move them.
func alignedMemory(n int) []byte {
	b := make([]byte, n+memoryAlign)
	past := int(uintptr(unsafe.Pointer(&b[0])) % memoryAlign)
	from := (memoryAlign - past) % memoryAlign
	return b[from : from+n : from+n]
}

func isAligned(b []byte) bool { return uintptr(unsafe.Pointer(&b[0]))%memoryAlign == 0 }

// whole says whether the disk takes the bytes as they are.
func (d *sectorDevice) whole(p []byte, at int64) bool {
	return at%d.sector == 0 && int64(len(p))%d.sector == 0 && isAligned(p)
}

// around returns the sectors that n bytes at an offset lie in, as many as there is
// spare memory for, and how many of the bytes those have.
func (d *sectorDevice) around(n int, at int64) (sectors []byte, from int64, have int) {
	from = at / d.sector * d.sector
	to := min((at+int64(n)+d.sector-1)/d.sector*d.sector, from+int64(len(d.spare)))
	return d.spare[:to-from], from, int(min(int64(n), to-at))
}

// ReadAt implements io.ReaderAt.
func (d *sectorDevice) ReadAt(p []byte, at int64) (done int, err error) {
	if at < 0 {
		return 0, &fs.PathError{Op: "read", Path: d.path, Err: fs.ErrInvalid}
	}
	if at >= d.size {
		return 0, io.EOF
	}
	if left := d.size - at; int64(len(p)) > left {
		p, err = p[:left], io.EOF
	}
	if len(p) == 0 {
		return 0, err
	}
	if d.whole(p, at) {
		if err := d.readSectors(p, at); err != nil {
			return 0, err
		}
		return len(p), err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for done < len(p) {
		sectors, from, n := d.around(len(p)-done, at+int64(done))
		if err := d.readSectors(sectors, from); err != nil {
			return done, err
		}
		done += copy(p[done:done+n], sectors[at+int64(done)-from:])
	}
	return done, err
}

// WriteAt implements io.WriterAt. If a sector is written in part, the rest of it is read
// first.
func (d *sectorDevice) WriteAt(p []byte, at int64) (done int, err error) {
	if at < 0 || at > d.size || int64(len(p)) > d.size-at {
		return 0, &fs.PathError{Op: "write", Path: d.path, Err: fmt.Errorf("%d bytes at byte %d of %d: %w", len(p), at, d.size, fs.ErrInvalid)}
	}
	if len(p) == 0 {
		return 0, nil
	}
	if d.whole(p, at) {
		if err := d.writeSectors(p, at); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for done < len(p) {
		start := at + int64(done)
		sectors, from, n := d.around(len(p)-done, start)
		if start != from || (start+int64(n))%d.sector != 0 {
			if err := d.readSectors(sectors, from); err != nil {
				return done, err
			}
		}
		copy(sectors[start-from:], p[done:done+n])
		if err := d.writeSectors(sectors, from); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Read implements io.Reader.
func (d *sectorDevice) Read(p []byte) (int, error) {
	n, err := d.ReadAt(p, d.pos)
	d.pos += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}

// Seek implements io.Seeker.
func (d *sectorDevice) Seek(to int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		to += d.pos
	case io.SeekEnd:
		to += d.size
	}
	if to < 0 {
		return 0, &fs.PathError{Op: "seek", Path: d.path, Err: fs.ErrInvalid}
	}
	d.pos = to
	return to, nil
}

// Stat implements fs.File.
func (d *sectorDevice) Stat() (fs.FileInfo, error) { return diskInfo{d}, nil }

// written is nothing to do: a write returns when the disk has what was written.
func (d *sectorDevice) written(int64, int64, int64, int64) {}

// dropCache is nothing to do: there is none.
func (d *sectorDevice) dropCache() error { return nil }

// diskInfo is what os.Stat would say about the disk.
type diskInfo struct{ d *sectorDevice }

func (i diskInfo) Name() string       { return filepath.Base(i.d.path) }
func (i diskInfo) Size() int64        { return i.d.size }
func (i diskInfo) Mode() fs.FileMode  { return os.ModeDevice | 0o600 }
func (i diskInfo) ModTime() time.Time { return time.Time{} }
func (i diskInfo) IsDir() bool        { return false }
func (i diskInfo) Sys() any           { return nil }

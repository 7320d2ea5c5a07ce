package flash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/profiles"
)

// block is the unit in which an image is read and zeros are looked for.
const block = 1 << 20

var zeros [block]byte

// Image is an image that can be written to a disk: raw, or that compressed by zstd or
// xz.
type Image struct {
	Path    string
	Profile profiles.Profile
	// Node is whose it is; "" if it is a base image, or not known before it is
	// unpacked.
	Node string
	Size int64 // of the disk in it

	file  *os.File    // nil if there is none
	raw   io.ReaderAt // a raw image
	kind  string
	table *disk.Table
	used  map[int64]bool // blocks of a raw image that are not in holes
}

// FromReader returns an image that is in no file: the size bytes of a disk that r
// reads. used says whether there may be anything but zeros in a part of it.
func FromReader(name string, r io.ReaderAt, size int64, used func(at, n int64) bool) (*Image, error) {
	i := &Image{Path: name, raw: r, kind: format.Raw, used: map[int64]bool{}}
	err := func() (err error) {
		head := make([]byte, block)
		if _, err := r.ReadAt(head, 0); err != nil {
			return err
		}
		if i.table, err = tableOf(head); err != nil {
			return err
		}
		if i.table.Size != size {
			return fmt.Errorf("its partition table is of a disk of %d bytes, and it has %d", i.table.Size, size)
		}
		return i.identify()
	}()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for at := int64(0); at < size; at += block {
		if used(at, min(block, size-at)) {
			i.used[at/block] = true
		}
	}
	return i, nil
}

// Open opens an image and reads its partition table. Close must be called.
func Open(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	i := &Image{Path: path, file: f}
	if err := i.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return i, nil
}

// Close closes the image.
func (i *Image) Close() error {
	if i.file == nil {
		return nil
	}
	return i.file.Close()
}

func (i *Image) open() error {
	st, err := i.file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("this is no file, and so no image")
	}
	if i.kind, err = format.Detect(i.file); err != nil {
		return err
	}
	switch i.kind {
	case format.Raw:
		i.raw = i.file
		i.table, err = disk.Read(i.file)
	case format.Zstd, format.XZ:
		i.table, err = i.packedTable()
	default:
		return fmt.Errorf("%w; imagegen flash also reads what zstd and xz made of a raw one", &format.NotRawError{Kind: i.kind})
	}
	if err != nil {
		return fmt.Errorf("this is no Kiln image: %w", err)
	}
	if err := i.identify(); err != nil {
		return err
	}
	if i.kind != format.Raw {
		return nil
	}
	if _, i.Node, err = nodeimage.NodeOf(i.file); err != nil {
		return err
	}
	numbers, err := sparse.Blocks(i.file, block)
	i.used = make(map[int64]bool, len(numbers))
	for _, n := range numbers {
		i.used[n] = true
	}
	return err
}

// identify finds the image's profile by its partition table.
func (i *Image) identify() error {
	name, _, err := nodeimage.ProfileOf(i.table)
	if err != nil {
		return err
	}
	if i.Profile, err = profiles.Load(name); err != nil {
		return err
	}
	i.Size = i.table.Size
	return nodeimage.CheckArch(i.table, name)
}

// maxDisk bounds what a header may say about the disk's size.
const maxDisk = 64 << 40

// packedTable reads the partition table of a compressed image.
func (i *Image) packedTable() (*disk.Table, error) {
	r, done, err := i.reader()
	if err != nil {
		return nil, err
	}
	defer done()
	head := make([]byte, block)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return tableOf(head)
}

// tableOf reads the partition table in the first block of an image. It also says how
// large the disk is: the backup of the table is its last sector.
func tableOf(head []byte) (t *disk.Table, err error) {
	last := binary.LittleEndian.Uint64(head[512+32:])
	if string(head[512:520]) != "EFI PART" || last >= maxDisk/512 {
		return nil, disk.ErrNoTable
	}
	// As a file with a hole, for the one function that reads partition tables.
	f, err := os.CreateTemp("", "kiln-table-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := f.Write(head); err != nil {
		return nil, err
	}
	if err := sparse.Extend(f, int64(last+1)*512); err != nil {
		return nil, err
	}
	return disk.Read(f)
}

// reader unpacks the image from its beginning.
func (i *Image) reader() (r io.Reader, done func(), err error) {
	if _, err := i.file.Seek(0, io.SeekStart); err != nil {
		return nil, nil, err
	}
	if i.kind == format.Zstd {
		z, err := zstd.NewReader(i.file, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	x, err := xz.NewReader(i.file, 128<<20)
	return x, func() {}, err
}

// blocks calls f with each block of the image, in order; data is nil if it is zeros.
// The memory for it, of the length block, comes from buffer and is f's from then on.
func (i *Image) blocks(buffer func() ([]byte, error), f func(at int64, data []byte) error) error {
	var buf []byte // not given to f
	next := func() (err error) {
		if buf == nil {
			buf, err = buffer()
		}
		return err
	}
	give := func(at int64, b []byte) error {
		if bytes.Equal(b, zeros[:len(b)]) {
			return f(at, nil)
		}
		buf = nil
		return f(at, b)
	}
	if i.kind == format.Raw {
		for at := int64(0); at < i.Size; at += block {
			if !i.used[at/block] {
				if err := f(at, nil); err != nil {
					return err
				}
				continue
			}
			if err := next(); err != nil {
				return err
			}
			b := buf[:min(block, i.Size-at)]
			if _, err := i.raw.ReadAt(b, at); err != nil {
				return fmt.Errorf("read %s: %w", i.Path, err)
			}
			if err := give(at, b); err != nil {
				return err
			}
		}
		return nil
	}
	r, done, err := i.reader()
	if err != nil {
		return err
	}
	defer done()
	at := int64(0)
	for {
		if err := next(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := give(at, buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if at != i.Size {
				return fmt.Errorf("%s unpacks to %d bytes, and its partition table is of a disk of %d: it is damaged", i.Path, at, i.Size)
			}
			return nil
		case err != nil:
			return fmt.Errorf("unpack %s: %w: it is damaged", i.Path, err)
		}
	}
}

// expected is about how many bytes blocks will find that are not zeros.
func (i *Image) expected() int64 {
	if i.kind == format.Raw {
		return int64(len(i.used)) * block
	}
	return i.Size
}

// meaningful calls f with each block that has to be on the disk, in order; data is
// nil for one of zeros. Blocks of zeros are skipped where nothing reads them: behind
// the last data of a partition, and between partitions. A FAT, whose zeros say that
// clusters are free, lies before the data that it leads to; nothing else in an image
// has meaning in zeros at its end. The memory for data is as in blocks.
func (i *Image) meaningful(buffer func() ([]byte, error), f func(at int64, data []byte) error) error {
	var pending []int64 // blocks of zeros in area
	area := -2
	return i.blocks(buffer, func(at int64, data []byte) error {
		first, last := i.area(at), i.area(min(at+block, i.Size)-1)
		if first != area {
			area, pending = first, pending[:0]
		}
		if data == nil && first == last && first >= 0 {
			pending = append(pending, at)
			return nil
		}
		if data == nil && first == last {
			return nil // between partitions
		}
		for _, at := range pending {
			if err := f(at, nil); err != nil {
				return err
			}
		}
		pending, area = pending[:0], last
		return f(at, data)
	})
}

// area is the number of the partition that a byte lies in, or -1.
func (i *Image) area(at int64) int {
	for n, p := range i.table.Partitions {
		if at >= p.Offset && at < p.Offset+p.Size {
			return n
		}
	}
	return -1
}

package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"
)

// ErrNoTable says that a file has no valid GUID partition table.
var ErrNoTable = errors.New("no GUID partition table")

// Table is the partition table of an image or disk.
type Table struct {
	GUID       uuid.UUID
	Size       int64 // of the disk, in bytes
	Partitions []Placed
	// Damaged says that only the backup at the disk's end is valid.
	Damaged bool
	table   *gpt.Table
}

// Placed is a partition at its place.
type Placed struct {
	Name         string
	Type, UUID   uuid.UUID
	Offset, Size int64 // bytes
}

// File is an image or a disk that is open: an *os.File, or what stands for one where
// disks are not read and written as files are.
type File interface {
	fs.File
	io.ReaderAt
	io.WriterAt
	io.Seeker
	// Sync returns when everything that was written before is durable.
	Sync() error
}

// Read reads the partition table of a disk with sectors of 512 bytes.
func Read(f File) (*Table, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if err := plausible(f, size); err != nil {
		return nil, err
	}
	t, err := gpt.Read(file.New(f, true), sector, sector)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTable, err)
	}
	guid, err := uuid.Parse(t.GUID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTable, err)
	}
	out := &Table{GUID: guid, Size: size, Damaged: t.RecoveredFromBackup, table: t}
	for _, p := range t.Partitions {
		if p.Start > p.End || p.End >= uint64(size/sector) {
			return nil, fmt.Errorf("%w: partition %q ends behind the disk", ErrNoTable, p.Name)
		}
		typ, err1 := uuid.Parse(string(p.Type))
		id, err2 := uuid.Parse(p.GUID)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoTable, err)
		}
		out.Partitions = append(out.Partitions, Placed{p.Name, typ, id, int64(p.Start) * sector, int64(p.End-p.Start+1) * sector})
	}
	return out, nil
}

// plausible looks at the two headers before the library does, which believes what
// they say about the size of the table.
func plausible(f io.ReaderAt, size int64) error {
	if size < 2*align {
		return fmt.Errorf("%w: the file has %d bytes", ErrNoTable, size)
	}
	found := false
	for _, at := range []int64{sector, size/sector*sector - sector} {
		b := make([]byte, sector)
		if _, err := f.ReadAt(b, at); err != nil {
			return err
		}
		if string(b[:8]) != "EFI PART" {
			continue
		}
		le := binary.LittleEndian
		if n, one, lba := le.Uint32(b[80:]), le.Uint32(b[84:]), le.Uint64(b[72:]); n > 1024 || one != 128 || lba > uint64(size/sector) {
			return fmt.Errorf("%w: %d entries of %d bytes at sector %d", ErrNoTable, n, one, lba)
		}
		found = true
	}
	if !found {
		return ErrNoTable
	}
	return nil
}

// Find returns the partition with the given UUID.
func (t *Table) Find(id uuid.UUID) (Placed, bool) {
	for _, p := range t.Partitions {
		if p.UUID == id {
			return p, true
		}
	}
	return Placed{}, false
}

// End is where the last partition ends.
func (t *Table) End() int64 {
	end := int64(align)
	for _, p := range t.Partitions {
		end = max(end, p.Offset+p.Size)
	}
	return end
}

// heard knows the first error of what is written to it: the library for partition
// tables keeps of errors the text alone, and a disk that was pulled out is known by them.
type heard struct {
	File
	err error
}

// WriteAt implements io.WriterAt.
func (h *heard) WriteAt(p []byte, at int64) (int, error) {
	n, err := h.File.WriteAt(p, at)
	h.err = cmp.Or(h.err, err)
	return n, err
}

// Sync is File's.
func (h *heard) Sync() error {
	err := h.File.Sync()
	h.err = cmp.Or(h.err, err)
	return err
}

// Remove takes the partition with the given UUID out of the table and writes both
// copies of it, the backup first: one of them is valid at every instant. A UUID
// that is not there leaves the partitions, and repairs a damaged table.
func (t *Table) Remove(f File, id uuid.UUID) error {
	var keep []*gpt.Partition
	var placed []Placed
	for i, p := range t.table.Partitions {
		if t.Partitions[i].UUID != id {
			keep, placed = append(keep, p), append(placed, t.Partitions[i])
		}
	}
	h := &heard{File: f}
	w, err := file.New(h, false).Writable()
	if err != nil {
		return err
	}
	t.table.Partitions = keep
	if err := t.table.Write(w, t.Size); err != nil {
		return fmt.Errorf("partition table: %w", cmp.Or(h.err, err))
	}
	t.Partitions, t.Damaged = placed, false
	return nil
}

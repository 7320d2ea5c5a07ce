// Package disk writes raw disk images with a GUID partition table (UEFI
// Specification, chapter 5) and partitions aligned to 1 MiB. Free space is left
// as holes.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/sparse"
)

// Attributes of partitions (Discoverable Partitions Specification).
const (
	ReadOnly = 1 << 60
	NoAuto   = 1 << 63
	GrowFS   = 1 << 59
)

const (
	sector = 512
	align  = 1 << 20
)

// namespace is the name space of all derived UUIDs.
var namespace = uuid.MustParse("0e8f6a51-2f0b-4a57-9d1c-6b696c6e0001")

// ESPType is the type of EFI system partitions (UEFI Specification, table 5-7).
var ESPType = uuid.MustParse("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")

// PRePType is the type of partitions that Open Firmware on PowerPC loads a program from
// (Power.org Platform Requirements; as GRUB and parted have it).
var PRePType = uuid.MustParse("9e1a2d38-c612-4316-aa26-8b49521e5a8b")

// DerivedUUID returns the version 5 UUID (RFC 9562) of the parts: the same parts
// give the same UUID on every host.
func DerivedUUID(parts ...string) uuid.UUID {
	return uuid.NewSHA1(namespace, []byte(strings.Join(parts, "\x00")))
}

// Disk describes an image.
type Disk struct {
	GUID       uuid.UUID
	Partitions []Partition
	// HybridMBR lists the first partition in the master boot record too, for firmware
	// that reads no GUID partition table; it is a FAT32 file system then.
	HybridMBR bool
}

// Partition is one partition, in the order on the disk.
type Partition struct {
	Name string // up to 36 UTF-16 characters
	Type uuid.UUID
	UUID uuid.UUID
	Size int64 // bytes; rounded up to 1 MiB
	// Attributes are the partition's flags, see the constants.
	Attributes uint64
	// Fill writes the partition's content, which starts at offset of w and reads as
	// zeros before. Nil leaves it empty.
	Fill func(ctx context.Context, w io.WriterAt, offset int64) error
}

// FromFile returns a Fill that copies a file, leaving its zeros as holes. size is
// that of the partition.
func FromFile(name string, size int64) func(context.Context, io.WriterAt, int64) error {
	return func(ctx context.Context, w io.WriterAt, offset int64) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		buf, zeros := make([]byte, align), make([]byte, align)
		for at := int64(0); ; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := io.ReadFull(f, buf)
			if at+int64(n) > size {
				return fmt.Errorf("%s does not fit the partition's %d bytes", name, size)
			}
			if n > 0 && !slices.Equal(buf[:n], zeros[:n]) {
				if _, err := w.WriteAt(buf[:n], offset+at); err != nil {
					return err
				}
			}
			at += int64(n)
			switch {
			case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
				return nil
			case err != nil:
				return err
			}
		}
	}
}

// Create writes the image to path, whole or not at all, with mode perm. Its size
// is what the partitions and the tables at both ends take.
func Create(ctx context.Context, path string, d Disk, perm os.FileMode) error {
	return atomicfile.Write(path, perm, func(f *os.File) error { return Write(ctx, f, d) })
}

// Write is Create into the empty file f.
func Write(ctx context.Context, f *os.File, d Disk) error {
	if d.HybridMBR && len(d.Partitions) == 0 {
		return errors.New("hybrid MBR: there is no partition to list in it")
	}
	t := gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: !d.HybridMBR, GUID: upper(d.GUID)}
	at := int64(align)
	var starts []int64
	for i, p := range d.Partitions {
		if p.Size <= 0 {
			return fmt.Errorf("partition %d (%s): size %d", i+1, p.Name, p.Size)
		}
		size := (p.Size + align - 1) / align * align
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1, Start: uint64(at / sector), End: uint64((at+size)/sector) - 1, Size: uint64(size),
			Type: gpt.Type(upper(p.Type)), GUID: upper(p.UUID), Name: p.Name, Attributes: p.Attributes,
		})
		starts = append(starts, at)
		at += size
	}
	size := at + align // the backup table
	if err := sparse.Extend(f, size); err != nil {
		return err
	}
	w, err := file.New(f, false).Writable()
	if err != nil {
		return err
	}
	if err := t.Write(w, size); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	if d.HybridMBR {
		if _, err := f.WriteAt(hybridMBR(t.Partitions[0], size), 0); err != nil {
			return fmt.Errorf("hybrid MBR: %w", err)
		}
	}
	for i, p := range d.Partitions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p.Fill == nil {
			continue
		}
		if err := p.Fill(ctx, f, starts[i]); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
	}
	return ctx.Err()
}

func upper(id uuid.UUID) string { return strings.ToUpper(id.String()) }

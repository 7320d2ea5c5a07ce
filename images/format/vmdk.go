package format

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zlib"

	"github.com/kiln-os/kiln/images/disk"
)

// A streamOptimized VMDK ("Virtual Disk Format 5.0", VMware) is a stream: a header,
// grains that are each compressed by zlib, a table after every 512 grains, the
// directory of tables, and a footer that says where that is.
const (
	grainSectors = unitSize / sector
	tableGrains  = 512
	vmdkOverhead = 128 // sectors of header and descriptor
	maxVMDK      = 2048*gib - unitSize

	markerTable     = 1
	markerDirectory = 2
	markerFooter    = 3
)

func writeVMDK(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	out := bufio.NewWriterSize(dst, mib)
	if _, err := streamVMDK(ctx, out, src, size, o); err != nil {
		return err
	}
	return out.Flush()
}

// vmdkWriter counts the sectors of the stream.
type vmdkWriter struct {
	w      io.Writer
	at     int64 // sectors
	grains [tableGrains]uint32
	tables []uint32 // the directory
	table  int      // number of the table that grains will be
	dirty  bool
	stored int64 // bytes of the disk in grains
	buf    []byte
}

// streamVMDK writes the disk to w and returns how many of its bytes are not zeros.
func streamVMDK(ctx context.Context, w io.Writer, src *os.File, size int64, o Options) (stored int64, err error) {
	if size > maxVMDK {
		return 0, fmt.Errorf("%s has %d GiB, and a VMDK of one file holds less than %d", src.Name(), size/gib, 2048)
	}
	size = divUp(size, unitSize) * unitSize
	v := &vmdkWriter{w: w, tables: make([]uint32, divUp(size, tableGrains*unitSize))}
	head := make([]byte, vmdkOverhead*sector)
	copy(head, vmdkHeader(size, 1<<64-1)) // the directory: see the footer
	copy(head[sector:], vmdkDescriptor(size, o))
	if err := v.write(head); err != nil {
		return 0, err
	}
	if err := (pipeline{src: src, size: mib, worker: vmdkWorker, emit: v.emit, progress: o.Progress}).run(ctx); err != nil {
		return 0, err
	}
	if err := v.flush(); err != nil {
		return 0, err
	}
	directory, err := v.section(markerDirectory, v.tables)
	if err != nil {
		return 0, err
	}
	end := append(marker(1, markerFooter), vmdkHeader(size, uint64(directory))...)
	return v.stored, v.write(append(end, marker(0, 0)...)) // of type 0: the end
}

func vmdkWorker() (func(*piece) error, error) {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	return func(p *piece) error {
		p.split()
		if need := len(p.data) + len(p.data)/8 + unitSize; cap(p.packed) < need {
			p.packed = make([]byte, 0, need)
		}
		for i, u := range p.units {
			if u.data == nil {
				continue
			}
			out.Reset()
			z.Reset(&out)
			if _, err := z.Write(padded(u.data)); err != nil {
				return err
			}
			if err := z.Close(); err != nil {
				return err
			}
			at := len(p.packed)
			p.packed = append(p.packed, out.Bytes()...)
			p.units[i] = unit{p.packed[at:], true}
		}
		return nil
	}, nil
}

// write writes b and zeros up to the next sector.
func (v *vmdkWriter) write(b []byte) error {
	n := divUp(int64(len(b)), sector)
	if v.at+n >= 1<<32 {
		return fmt.Errorf("the VMDK would be larger than 2 TiB")
	}
	if _, err := v.w.Write(b); err != nil {
		return err
	}
	v.at += n
	_, err := v.w.Write(zeros[:n*sector-int64(len(b))])
	return err
}

func (v *vmdkWriter) emit(p *piece) error {
	for i, u := range p.units {
		if u.data == nil {
			continue
		}
		number := p.at/unitSize + int64(i)
		if t := int(number / tableGrains); t != v.table {
			if err := v.flush(); err != nil {
				return err
			}
			v.table = t
		}
		v.grains[number%tableGrains] = uint32(v.at)
		v.dirty = true
		v.stored += int64(min(unitSize, len(p.data)-i*unitSize))
		v.buf = binary.LittleEndian.AppendUint64(v.buf[:0], uint64(number*grainSectors))
		v.buf = binary.LittleEndian.AppendUint32(v.buf, uint32(len(u.data)))
		v.buf = append(v.buf, u.data...)
		if err := v.write(v.buf); err != nil {
			return err
		}
	}
	return nil
}

// flush writes the table of grains, unless nothing is in it.
func (v *vmdkWriter) flush() (err error) {
	if v.dirty {
		v.tables[v.table], err = v.section(markerTable, v.grains[:])
		clear(v.grains[:])
		v.dirty = false
	}
	return err
}

// section writes a marker and the numbers behind it, and returns the sector of those.
func (v *vmdkWriter) section(kind uint32, numbers []uint32) (at uint32, err error) {
	b := make([]byte, 0, 4*len(numbers))
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if err := v.write(marker(divUp(int64(len(b)), sector), kind)); err != nil {
		return 0, err
	}
	at = uint32(v.at)
	return at, v.write(b)
}

// marker stands before what is no grain, of the given number of sectors.
func marker(sectors int64, kind uint32) []byte {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, uint64(sectors))
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}

func vmdkHeader(size int64, directory uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, sector)
	copy(b, "KDMV")
	le.PutUint32(b[4:], 3)
	le.PutUint32(b[8:], 1|1<<16|1<<17) // line ends can be checked; compressed; with markers
	le.PutUint64(b[12:], uint64(size/sector))
	le.PutUint64(b[20:], grainSectors)
	le.PutUint64(b[28:], 1) // the descriptor's place and sectors
	le.PutUint64(b[36:], vmdkOverhead-1)
	le.PutUint32(b[44:], tableGrains)
	le.PutUint64(b[56:], directory)
	le.PutUint64(b[64:], vmdkOverhead)
	copy(b[73:], "\n \r\n")
	le.PutUint16(b[77:], 1) // deflate
	return b
}

func vmdkDescriptor(size int64, o Options) string {
	id := disk.DerivedUUID("vmdk", o.Name)
	cid := binary.BigEndian.Uint32(id[:])
	if cid >= 0xfffffffe {
		cid = 1 // those mean that there is none
	}
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE "%s.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%x"
ddb.virtualHWVersion = "17"
`, cid, size/sector, o.Name, min(size/sector/(255*63), 65535), id[:])
}

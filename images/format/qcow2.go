package format

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/klauspost/compress/flate"
)

// A qcow2 file, version 3 (QEMU's docs/interop/qcow2.rst), is written from front to
// back: the header's cluster, data with each second-level table behind what it
// points to, the first-level table, and the reference counts. The header is filled
// in last.
const (
	qcowBits    = 16 // of an offset in a cluster, which is a unit
	qcowEntries = unitSize / 8
	qcowRefs    = unitSize / 2 // reference counts, of 16 bits, in a cluster
	qcowCopied  = 1 << 63      // the cluster has one reference
	qcowPacked  = 1 << 62      // the cluster is compressed
	// The number of 512-byte sectors that a compressed cluster touches, less one,
	// stands in the entry above its offset.
	qcowSectors = 62 - (qcowBits - 8)
)

type qcow2 struct {
	f    *os.File
	next int64 // where the next cluster goes
	// part is where the next compressed cluster goes: inside of a cluster that has
	// others, or at its end.
	part int64
	// refs counts the references to clusters; those that it does not reach, or counts
	// none for, have one.
	refs  []uint16
	l1    []uint64
	l2    []uint64
	table int // number of l2
	dirty bool
	buf   []byte
}

func writeQcow2(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	return writeQcow(ctx, dst, src, size, o, splitter)
}

func writeQcow2Compressed(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	return writeQcow(ctx, dst, src, size, o, func() (func(*piece) error, error) {
		var out bytes.Buffer
		// QEMU's own compressed clusters have this window, and its reader asks for it.
		z, err := flate.NewWriterWindow(&out, 4096)
		if err != nil {
			return nil, err
		}
		return func(p *piece) error {
			p.split()
			return p.pack(func(b []byte) ([]byte, error) {
				out.Reset()
				z.Reset(&out)
				if _, err := z.Write(padded(b)); err != nil {
					return nil, err
				}
				err := z.Close()
				return out.Bytes(), err
			})
		}, nil
	})
}

// padded is a unit in full length: the disk's last one may be short.
func padded(b []byte) []byte {
	if len(b) == unitSize {
		return b
	}
	return append(append(make([]byte, 0, unitSize), b...), zeros[len(b):]...)
}

// pack replaces the units that become smaller by what f makes of them.
func (p *piece) pack(f func([]byte) ([]byte, error)) error {
	if cap(p.packed) < len(p.data) {
		p.packed = make([]byte, 0, len(p.data)) // never moves: the units point into it
	}
	for i, u := range p.units {
		if u.data == nil {
			continue
		}
		b, err := f(u.data)
		if err != nil {
			return err
		}
		if len(b) >= len(u.data) {
			continue
		}
		at := len(p.packed)
		p.packed = append(p.packed, b...)
		p.units[i] = unit{p.packed[at:], true}
	}
	return nil
}

func writeQcow(ctx context.Context, dst, src *os.File, size int64, o Options, worker func() (func(*piece) error, error)) error {
	clusters := divUp(size, unitSize)
	tables := divUp(clusters, qcowEntries)
	if tables > 32<<20/8 {
		return fmt.Errorf("%s has %d bytes: qcow2 with clusters of 64 KiB holds at most 2 PiB", src.Name(), size)
	}
	q := &qcow2{f: dst, next: unitSize, l1: make([]uint64, tables), l2: make([]uint64, qcowEntries)}
	if err := (pipeline{src: src, size: mib, worker: worker, emit: q.emit, progress: o.Progress}).run(ctx); err != nil {
		return err
	}
	if err := q.flush(); err != nil {
		return err
	}
	return q.finish(size)
}

func divUp(n, by int64) int64 { return (n + by - 1) / by }

// emit writes the units of a piece. A run of units that are stored as they are is
// one write.
func (q *qcow2) emit(p *piece) error {
	for i := 0; i < len(p.units); {
		u, number := p.units[i], p.at/unitSize+int64(i)
		if t := int(number / qcowEntries); t != q.table {
			if err := q.flush(); err != nil {
				return err
			}
			q.table = t
		}
		entry := &q.l2[number%qcowEntries]
		switch {
		case u.data == nil:
			i++
		case u.packed:
			if err := q.putPacked(u.data, entry); err != nil {
				return err
			}
			i++
		default:
			// A piece lies in one table: both are powers of two.
			n := i
			for ; n < len(p.units) && p.units[n].data != nil && !p.units[n].packed; n++ {
				q.l2[p.at/unitSize%qcowEntries+int64(n)] = uint64(q.next) + uint64(n-i)*unitSize | qcowCopied
			}
			run := p.data[i*unitSize : min(n*unitSize, len(p.data))]
			if _, err := q.f.WriteAt(run, q.next); err != nil {
				return err
			}
			q.next, q.dirty, i = q.next+int64(n-i)*unitSize, true, n
		}
	}
	return nil
}

// putPacked puts a compressed cluster behind the one before it, where that leads
// into the cluster that would be the next anyway, else at the beginning of that.
func (q *qcow2) putPacked(b []byte, entry *uint64) error {
	n := int64(len(b))
	if room := -q.part & (unitSize - 1); n > room {
		if q.part+room != q.next || room == 0 {
			q.part = q.next
		}
		q.next += unitSize
	}
	at, end := q.part, q.part+n
	if _, err := q.f.WriteAt(b, at); err != nil {
		return err
	}
	if missing := q.next/unitSize - int64(len(q.refs)); missing > 0 {
		q.refs = append(q.refs, make([]uint16, missing)...)
	}
	for c := at / unitSize; c <= (end-1)/unitSize; c++ {
		q.refs[c]++
	}
	sectors := (end-1)/sector - at/sector
	*entry = uint64(at) | uint64(sectors)<<qcowSectors | qcowPacked
	q.part, q.dirty = end, true
	return nil
}

// append writes a table of the file to the next clusters.
func (q *qcow2) append(entries []uint64) (at int64, err error) {
	at = q.next
	q.buf = q.buf[:0]
	for _, e := range entries {
		q.buf = binary.BigEndian.AppendUint64(q.buf, e)
	}
	_, err = q.f.WriteAt(q.buf, at)
	q.next += divUp(int64(len(q.buf)), unitSize) * unitSize
	return at, err
}

// flush writes the second-level table, unless nothing is in it.
func (q *qcow2) flush() error {
	if !q.dirty {
		return nil
	}
	at, err := q.append(q.l2)
	q.l1[q.table] = uint64(at) | qcowCopied
	clear(q.l2)
	q.dirty = false
	return err
}

// finish writes the first-level table, the reference counts and the header.
func (q *qcow2) finish(size int64) error {
	l1, err := q.append(q.l1)
	if err != nil {
		return err
	}
	// The counts count their own clusters, too.
	used := q.next / unitSize
	blocks, tables, all := int64(0), int64(0), used
	for n := divUp(all, qcowRefs); n != blocks; n = divUp(all, qcowRefs) {
		blocks, tables = n, divUp(n*8, unitSize)
		all = used + blocks + tables
	}
	table := make([]uint64, blocks)
	for i := range table {
		b := make([]byte, unitSize)
		for k := range int64(qcowRefs) {
			c := int64(i)*qcowRefs + k
			if c >= all {
				break
			}
			n := uint16(1)
			if c < int64(len(q.refs)) {
				n = max(q.refs[c], 1)
			}
			binary.BigEndian.PutUint16(b[2*k:], n)
		}
		if _, err := q.f.WriteAt(b, q.next); err != nil {
			return err
		}
		table[i] = uint64(q.next)
		q.next += unitSize
	}
	refs, err := q.append(table)
	if err != nil {
		return err
	}
	if err := q.f.Truncate(q.next); err != nil {
		return err
	}
	be := binary.BigEndian
	h := make([]byte, 112) // with the end of header extensions, eight zeros
	copy(h, "QFI\xfb")
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], qcowBits)
	be.PutUint64(h[24:], uint64(size))
	be.PutUint32(h[36:], uint32(len(q.l1)))
	be.PutUint64(h[40:], uint64(l1))
	be.PutUint64(h[48:], uint64(refs))
	be.PutUint32(h[56:], uint32(tables))
	be.PutUint32(h[96:], 4)    // 2^4 bits in a reference count
	be.PutUint32(h[100:], 104) // the header's length
	_, err = q.f.WriteAt(h, 0)
	return err
}

package squashfs

import "github.com/klauspost/compress/zstd"

// ref is where something lies in a table of metadata blocks: the offset of its
// compressed block in the table, and in the lower 16 bits that in the
// uncompressed block.
type ref uint64

func (r ref) block() uint32  { return uint32(r >> 16) }
func (r ref) offset() uint16 { return uint16(r) }

// metadata is a table that is cut into blocks of metadataSize bytes, each of which
// is compressed and preceded by its length.
type metadata struct {
	enc    *zstd.Encoder
	out    []byte // finished blocks
	block  []byte // the one that is being filled; never full
	starts []uint32
}

// write appends p to the table.
func (m *metadata) write(p []byte) {
	for len(p) > 0 {
		n := min(len(p), metadataSize-len(m.block))
		m.block = append(m.block, p[:n]...)
		p = p[n:]
		if len(m.block) == metadataSize {
			m.flush()
		}
	}
}

func (m *metadata) flush() {
	m.starts = append(m.starts, uint32(len(m.out)))
	packed := m.enc.EncodeAll(m.block, nil)
	size := uint16(len(packed))
	if len(packed) >= len(m.block) {
		packed, size = m.block, uint16(len(m.block))|uncompressedMetadata
	}
	m.out = append(appendTo(m.out, size), packed...)
	m.block = m.block[:0]
}

// ref returns where the next byte will lie.
func (m *metadata) ref() ref { return ref(len(m.out))<<16 | ref(len(m.block)) }

// size returns the number of uncompressed bytes.
func (m *metadata) size() int { return len(m.starts)*metadataSize + len(m.block) }

// finish returns the whole table.
func (m *metadata) finish() []byte {
	if len(m.block) > 0 {
		m.flush()
	}
	return m.out
}

// writeLookupTable writes entries as metadata blocks, then head and the list of
// where each block begins in the image, from which readers find an entry by its
// number. It returns where head lies. Readers check that nothing lies between a
// table and the next one.
func writeLookupTable(w *output, enc *zstd.Encoder, entries, head []byte) (uint64, error) {
	m := metadata{enc: enc}
	m.write(entries)
	blocks := m.finish()
	list := head
	for _, s := range m.starts {
		list = appendTo(list, w.pos+uint64(s))
	}
	if err := w.write(blocks); err != nil {
		return 0, err
	}
	start := w.pos
	return start, w.write(list)
}

package format

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// An xz stream ("The .xz File Format", 1.2.1) of blocks that are packed alone, with
// their sizes in their headers: xz -T unpacks them in parallel, too. The library
// writes streams of one block by one thread, so only its LZMA2 encoder is used.
const (
	blockPiece = 4 * mib // also the dictionary's size
	blockDict  = 20      // that size in LZMA2's property: 2<<(20/2+11)
	checkCRC64 = 4
)

var crcTable = crc64.MakeTable(crc64.ECMA)

// blockRecord is a block's entry in the index.
type blockRecord struct{ unpadded, length int64 }

func writeXZ(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	out := bufio.NewWriterSize(dst, mib)
	flags := []byte{0, checkCRC64}
	head := append([]byte("\xfd7zXZ\x00"), flags...)
	if _, err := out.Write(binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(flags))); err != nil {
		return err
	}
	var index []blockRecord
	gaps := gaps{piece: blockPiece, size: size, out: out, pack: xzBlock, wrote: func(packed []byte, length int64) {
		index = append(index, blockRecord{unpaddedSize(packed), length})
	}}
	err := pipeline{src: src, size: blockPiece, progress: o.Progress, emit: gaps.emit, worker: xzWorker}.run(ctx)
	if err != nil {
		return err
	}
	if err := gaps.fill(ctx, size); err != nil {
		return err
	}
	end := xzIndex(index)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(end)/4-1))
	footer = append(footer, flags...)
	end = binary.LittleEndian.AppendUint32(end, crc32.ChecksumIEEE(footer))
	end = append(append(end, footer...), "YZ"...)
	if _, err := out.Write(end); err != nil {
		return err
	}
	return out.Flush()
}

// xzWorker packs what becomes smaller. Most of a node's image is compressed already,
// and LZMA takes seconds a block to find that out.
func xzWorker() (func(*piece) error, error) {
	trial, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	var tried []byte
	return func(p *piece) (err error) {
		if p.split(); p.isZero() {
			return nil
		}
		tried = trial.EncodeAll(p.data, tried[:0])
		if len(tried) > len(p.data)/100*98 {
			p.packed = xzFrame(p.data, storedChunks(p.data))
			return nil
		}
		p.packed, err = xzBlock(p.data)
		return err
	}, nil
}

// storedChunks is LZMA2's form of data that is not compressed.
func storedChunks(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(data)/(16<<10)+1)
	control := byte(1) // forget what was before
	for len(data) > 0 {
		n := min(len(data), 64<<10)
		out = append(out, control, byte((n-1)>>8), byte(n-1))
		out = append(out, data[:n]...)
		data, control = data[n:], 2
	}
	return append(out, 0)
}

// xzBlock packs one block.
func xzBlock(data []byte) ([]byte, error) {
	var packed bytes.Buffer
	w, err := lzma.Writer2Config{DictCap: blockPiece}.NewWriter2(&packed)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return xzFrame(data, packed.Bytes()), nil
}

// xzFrame makes a block of data in LZMA2's form: header, data, padding, check.
func xzFrame(data, packed []byte) []byte {
	head := []byte{0, 0x40 | 0x80} // its size comes here; one filter, with both sizes
	head = appendNumber(head, int64(len(packed)))
	head = appendNumber(head, int64(len(data)))
	head = append(head, 0x21, 1, blockDict) // LZMA2, one byte of properties
	head = pad4(head)
	head[0] = byte(len(head) / 4)
	block := binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(head))
	block = pad4(append(block, packed...))
	return binary.LittleEndian.AppendUint64(block, crc64.Checksum(data, crcTable))
}

// unpaddedSize is the size of a block of xzBlock without its padding.
func unpaddedSize(block []byte) int64 {
	head := (int64(block[0]) + 1) * 4
	packed, _ := binary.Uvarint(block[2:])
	return head + int64(packed) + 8
}

func xzIndex(records []blockRecord) []byte {
	b := appendNumber([]byte{0}, int64(len(records)))
	for _, r := range records {
		b = appendNumber(appendNumber(b, r.unpadded), r.length)
	}
	b = pad4(b)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// appendNumber writes a number as xz does: seven bits a byte, the lowest first.
func appendNumber(b []byte, n int64) []byte { return binary.AppendUvarint(b, uint64(n)) }

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

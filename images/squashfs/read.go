package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Limits of what is read: far above what an image of Kiln has, and low enough that
// bytes of unknown origin do not decide how much memory and time is used.
const (
	maxFile    = 16 << 20 // bytes of a file
	maxListing = 16 << 20 // bytes of a folder's listing
	maxBlock   = 1 << 20  // the format's own limit of a data block
)

// Reader reads single files out of an image that is compressed with zstd, by Write
// or by mksquashfs(1). What is damaged is an error, whatever the bytes are.
type Reader struct {
	r   io.ReaderAt
	sb  superblock
	dec *zstd.Decoder
}

// Open reads the superblock of the image in the first size bytes of r. Close must
// be called.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	in := &Reader{r: io.NewSectionReader(r, 0, size)}
	if err := in.decode(io.NewSectionReader(r, 0, size), &in.sb); err != nil {
		return nil, fmt.Errorf("squashfs: superblock: %w", err)
	}
	switch s := in.sb; {
	case s.Magic != magic || s.Major != 4 || s.Minor != 0:
		return nil, errors.New("squashfs: no superblock of version 4.0")
	case s.Compression != compression:
		return nil, fmt.Errorf("squashfs: compression %d is not read, only zstd (%d)", s.Compression, compression)
	case s.BlockLog < 12 || s.BlockLog > 20 || s.BlockSize != 1<<s.BlockLog:
		return nil, fmt.Errorf("squashfs: blocks of %d bytes: want a power of 2 from 4096 to 1048576", s.BlockSize)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock))
	if err != nil {
		return nil, err
	}
	in.dec = dec
	return in, nil
}

// Close ends the decompressor.
func (in *Reader) Close() { in.dec.Close() }

// ReadFile returns the content of the regular file at a path, which has slashes and
// none at its beginning. Links are not followed. The error is fs.ErrNotExist if
// there is nothing.
func (in *Reader) ReadFile(path string) ([]byte, error) {
	b, err := in.readFile(path)
	if err != nil {
		return nil, fmt.Errorf("squashfs: /%s: %w", path, err)
	}
	return b, nil
}

func (in *Reader) readFile(path string) ([]byte, error) {
	at := ref(in.sb.RootInode)
	for _, name := range strings.Split(path, "/") {
		next, err := in.lookUp(at, name)
		if err != nil {
			return nil, err
		}
		at = next
	}
	var b baseInode
	if err := in.decodeAt(in.sb.InodeTableStart, at, &b); err != nil {
		return nil, err
	}
	c, err := in.cursor(in.sb.InodeTableStart, at)
	if err != nil {
		return nil, err
	}
	var f extendedFileInode
	switch b.Type {
	case typeFile:
		var s fileInode
		err = in.decode(c, &s)
		f.StartBlock, f.FileSize, f.Fragment, f.Offset = uint64(s.StartBlock), uint64(s.FileSize), s.Fragment, s.Offset
	case typeFile + extended:
		err = in.decode(c, &f)
	default:
		err = errors.New("is not a regular file")
	}
	if err != nil {
		return nil, err
	}
	if f.FileSize > maxFile {
		return nil, fmt.Errorf("has %d bytes; at most %d are read", f.FileSize, maxFile)
	}
	return in.content(c, f)
}

// content reads a file's blocks, whose sizes follow its inode, and its tail.
func (in *Reader) content(sizes io.Reader, f extendedFileInode) ([]byte, error) {
	block := uint64(in.sb.BlockSize)
	n := f.FileSize / block
	if f.Fragment == invalidFragment && f.FileSize%block > 0 {
		n++
	}
	list := make([]uint32, n)
	if err := in.decode(sizes, list); err != nil {
		return nil, err
	}
	var out []byte
	at := f.StartBlock
	for _, size := range list {
		want := min(block, f.FileSize-uint64(len(out)))
		if size == 0 { // a hole
			out = append(out, make([]byte, want)...)
			continue
		}
		b, err := in.block(at, size)
		if err != nil {
			return nil, err
		}
		if uint64(len(b)) != want {
			return nil, fmt.Errorf("the block at byte %d has %d bytes, expected %d", at, len(b), want)
		}
		out = append(out, b...)
		at += uint64(size &^ uncompressedData)
	}
	rest := f.FileSize - uint64(len(out))
	if rest == 0 {
		return out, nil
	}
	tails, err := in.fragment(f.Fragment)
	if err != nil {
		return nil, err
	}
	if end := uint64(f.Offset) + rest; end > uint64(len(tails)) {
		return nil, fmt.Errorf("its tail ends at byte %d of a fragment block of %d", end, len(tails))
	}
	return append(out, tails[f.Offset:][:rest]...), nil
}

// fragment reads a fragment block by its number.
func (in *Reader) fragment(number uint32) ([]byte, error) {
	if number >= in.sb.Fragments {
		return nil, fmt.Errorf("fragment block %d does not exist", number)
	}
	const entrySize = 16
	var start [8]byte
	at := in.sb.FragmentTableStart + uint64(number)/(metadataSize/entrySize)*8
	if err := in.readAt(start[:], at); err != nil {
		return nil, err
	}
	var e fragmentEntry
	offset := ref(number % (metadataSize / entrySize) * entrySize)
	if err := in.decodeAt(binary.LittleEndian.Uint64(start[:]), offset, &e); err != nil {
		return nil, err
	}
	return in.block(e.StartBlock, e.Size)
}

// block reads a data or fragment block.
func (in *Reader) block(at uint64, size uint32) ([]byte, error) {
	return in.unpack(at, size&^uncompressedData, size&uncompressedData != 0, in.sb.BlockSize)
}

// unpack reads size bytes and decompresses them to at most limit.
func (in *Reader) unpack(at uint64, size uint32, stored bool, limit uint32) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("a block of %d bytes at byte %d: at most %d are right", size, at, limit)
	}
	b := make([]byte, size)
	if err := in.readAt(b, at); err != nil || stored {
		return b, err
	}
	out, err := in.dec.DecodeAll(b, nil)
	if err == nil && len(out) > int(limit) {
		err = fmt.Errorf("%d bytes decompressed: at most %d are right", len(out), limit)
	}
	if err != nil {
		return nil, fmt.Errorf("block at byte %d: %w", at, err)
	}
	return out, nil
}

// lookUp finds the inode of a folder's entry.
func (in *Reader) lookUp(dir ref, name string) (ref, error) {
	var b baseInode
	if err := in.decodeAt(in.sb.InodeTableStart, dir, &b); err != nil {
		return 0, err
	}
	var d extendedDirInode
	switch b.Type {
	case typeDir:
		var s dirInode
		if err := in.decodeAt(in.sb.InodeTableStart, dir, &s); err != nil {
			return 0, err
		}
		d.FileSize, d.StartBlock, d.Offset = uint32(s.FileSize), s.StartBlock, s.Offset
	case typeDir + extended:
		if err := in.decodeAt(in.sb.InodeTableStart, dir, &d); err != nil {
			return 0, err
		}
	default:
		return 0, fs.ErrNotExist // below something that is no folder
	}
	if d.FileSize <= 3 { // an empty folder
		return 0, fs.ErrNotExist
	}
	if d.FileSize > maxListing {
		return 0, fmt.Errorf("a listing of %d bytes; at most %d are read", d.FileSize, maxListing)
	}
	c, err := in.cursor(in.sb.DirectoryTableStart, ref(d.StartBlock)<<16|ref(d.Offset))
	if err != nil {
		return 0, err
	}
	return in.find(io.LimitReader(c, int64(d.FileSize)-3), name)
}

// find looks for a name in a listing.
func (in *Reader) find(listing io.Reader, name string) (ref, error) {
	for {
		var h dirHeader
		switch err := in.decode(listing, &h); {
		case errors.Is(err, io.EOF):
			return 0, fs.ErrNotExist
		case err != nil:
			return 0, err
		case h.Count >= maxDirCount:
			return 0, fmt.Errorf("%d entries below one header; at most %d are right", h.Count+1, maxDirCount)
		}
		for range h.Count + 1 {
			var e dirEntry
			if err := in.decode(listing, &e); err != nil {
				return 0, notEOF(err)
			}
			got := make([]byte, int(e.NameSize)+1)
			if _, err := io.ReadFull(listing, got); err != nil {
				return 0, notEOF(err)
			}
			if string(got) == name {
				return ref(h.StartBlock)<<16 | ref(e.Offset), nil
			}
		}
	}
}

// notEOF makes the end of what is read an error that is no proper end.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (in *Reader) readAt(b []byte, at uint64) error {
	if at > 1<<62 {
		return fmt.Errorf("byte %d is behind the image's end", at)
	}
	n, err := in.r.ReadAt(b, int64(at))
	if n < len(b) {
		return fmt.Errorf("read at byte %d: %w", at, notEOF(err))
	}
	return nil
}

func (in *Reader) decode(r io.Reader, into any) error {
	return binary.Read(r, binary.LittleEndian, into)
}

// decodeAt decodes what lies at a place of a table.
func (in *Reader) decodeAt(table uint64, at ref, into any) error {
	c, err := in.cursor(table, at)
	if err != nil {
		return err
	}
	return notEOF(in.decode(c, into))
}

// cursor reads a table of metadata blocks on from a place.
type cursor struct {
	in   *Reader
	next uint64 // where the next metadata block lies
	rest []byte // of this one
}

func (in *Reader) cursor(table uint64, at ref) (*cursor, error) {
	c := &cursor{in: in, next: table + uint64(at.block())}
	if err := c.load(); err != nil {
		return nil, err
	}
	if int(at.offset()) > len(c.rest) {
		return nil, fmt.Errorf("byte %d of a metadata block of %d", at.offset(), len(c.rest))
	}
	c.rest = c.rest[at.offset():]
	return c, nil
}

func (c *cursor) load() error {
	var head [2]byte
	if err := c.in.readAt(head[:], c.next); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint16(head[:])
	size := uint32(n &^ uncompressedMetadata)
	b, err := c.in.unpack(c.next+2, size, n&uncompressedMetadata != 0, metadataSize)
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("the metadata block at byte %d is empty", c.next)
	}
	c.rest, c.next = b, c.next+2+uint64(size)
	return err
}

// Read implements io.Reader.
func (c *cursor) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

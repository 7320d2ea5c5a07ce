// Package squashfs packs a tree into a squashfs 4.0 image, compressed with zstd,
// as Linux reads it (Documentation/filesystems/squashfs.rst, fs/squashfs). The
// bytes depend on the tree, the time and the options, and on nothing of the host.
//
// An image is a row of
//
//	superblock, data blocks and fragment blocks, inode table, directory table,
//	fragment table, id table, xattr table
//
// A file is cut into blocks. Its tail, and a file that is smaller than a block,
// shares a fragment block with others. The tables consist of metadata blocks.
// There is no table for NFS exports.
package squashfs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/tree"
)

// Options of an image.
type Options struct {
	// Level of compression. SpeedBestCompression is refused: its choices are made
	// with floating-point numbers, which differ between processors.
	Level zstd.EncoderLevel
}

// padding is what the size is a multiple of: dm-verity's blocks.
const padding = 4096

// Write packs t into the file out, which is made anew, with the time mtime on
// every entry. The size is a multiple of 4096 bytes, as dm-verity wants it. There
// is no out if Write fails.
func Write(ctx context.Context, t *tree.Tree, out string, mtime time.Time, o Options) (err error) {
	if o.Level == zstd.SpeedBestCompression {
		return errors.New("squashfs: at zstd's level \"best\" the bytes depend on the host's processor; \"better\" is the highest that does not")
	}
	if s := mtime.Unix(); s < 0 || s > math.MaxUint32 {
		return fmt.Errorf("squashfs: time %v: it must lie between 1970 and 2106, what 32 bits hold", mtime)
	}
	l, err := plan(t)
	if err != nil {
		return fmt.Errorf("squashfs: %w", err)
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(out))
		}
	}()
	if err := write(ctx, f, l, uint32(mtime.Unix()), o.Level); err != nil {
		return fmt.Errorf("squashfs %s: %w", out, err)
	}
	return f.Close()
}

// write writes the image of a layout into an empty file.
func write(ctx context.Context, f *os.File, l *layout, mtime uint32, level zstd.EncoderLevel) error {
	enc, err := newEncoder(level)
	if err != nil {
		return err
	}
	defer enc.Close()
	// The superblock is written last: what is cut off before has no magic number.
	w := &output{w: bufio.NewWriterSize(f, 1<<20)}
	if err := w.write(make([]byte, superblockSize)); err != nil {
		return err
	}
	fragments, err := writeData(ctx, w, l.files, level)
	if err != nil {
		return err
	}

	tables := &tables{mtime: mtime, noParent: l.inodes + 1, inodes: metadata{enc: enc}, directories: metadata{enc: enc}}
	if err := tables.add(l.root); err != nil {
		return err
	}
	sb := superblock{
		Magic: magic, Inodes: l.inodes, MkfsTime: mtime, BlockSize: blockSize, Fragments: uint32(len(fragments)),
		Compression: compression, BlockLog: blockLog, Flags: flagDuplicates, IDs: uint16(len(l.ids.list)), Major: 4, Minor: 0,
		RootInode: uint64(l.root.ref), LookupTableStart: invalidTable,
	}
	sb.InodeTableStart = w.pos
	if err := w.write(tables.inodes.finish()); err != nil {
		return err
	}
	sb.DirectoryTableStart = w.pos
	if err := w.write(tables.directories.finish()); err != nil {
		return err
	}
	if sb.FragmentTableStart, err = writeLookupTable(w, enc, encode(fragments), nil); err != nil {
		return err
	}
	if sb.IDTableStart, err = writeLookupTable(w, enc, encode(l.ids.list), nil); err != nil {
		return err
	}
	if sb.XattrIDTableStart, err = l.xattrs.write(w, enc); err != nil {
		return err
	}
	if sb.XattrIDTableStart == invalidTable {
		sb.Flags |= flagNoXattrs
	}
	sb.BytesUsed = w.pos

	if err := w.write(make([]byte, (padding-w.pos%padding)%padding)); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	_, err = f.WriteAt(encode(sb), 0)
	return err
}

// output counts the bytes that are written.
type output struct {
	w   *bufio.Writer
	pos uint64
}

func (o *output) write(p []byte) error {
	n, err := o.w.Write(p)
	o.pos += uint64(n)
	return err
}

// encode returns the bytes of a structure of the format, or of a list of them.
func encode(v any) []byte { return appendTo(nil, v) }

// appendTo appends the bytes of a structure of the format.
func appendTo(b []byte, v any) []byte {
	b, err := binary.Append(b, binary.LittleEndian, v)
	if err != nil {
		panic(err) // v has no fixed size: a mistake in this package
	}
	return b
}

// newEncoder returns an encoder for blocks of up to blockSize bytes. They carry
// no checksum: dm-verity covers them.
func newEncoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(blockSize)) // the kernel's workspace has room for a block
}

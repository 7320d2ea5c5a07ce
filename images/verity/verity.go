// Package verity writes and checks dm-verity hash trees in the format that
// veritysetup(8) makes and the kernel reads (superblock version 1, hash type 1,
// SHA-256, blocks of 4096 bytes; Linux Documentation/admin-guide/device-mapper/verity.rst).
package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/google/uuid"
)

// BlockSize is the size of data and hash blocks in bytes.
const BlockSize = 4096

const (
	digestSize = sha256.Size
	perBlock   = BlockSize / digestSize // digests in a hash block
	batch      = 1024                   // data blocks that one worker takes at a time
)

// levels returns the number of hash blocks of each level, from the one above the
// data to the root. A single data block is its own root: there is no level.
func levels(blocks int64) []int64 {
	var out []int64
	for n := blocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		out = append(out, n)
	}
	return out
}

// HashAreaSize is the size in bytes of superblock and hash tree for data of the
// given size.
func HashAreaSize(dataSize int64) int64 {
	n := int64(1)
	for _, l := range levels(dataSize / BlockSize) {
		n += l
	}
	return n * BlockSize
}

// Write writes superblock and hash tree of data's first size bytes to out and
// returns the root hash. size is a multiple of 4096, and not 0.
func Write(ctx context.Context, data io.ReaderAt, size int64, salt [32]byte, id uuid.UUID, out io.Writer) (root [32]byte, err error) {
	if size <= 0 || size%BlockSize != 0 {
		return root, fmt.Errorf("verity: %d bytes of data; it must be a multiple of %d, and not 0", size, BlockSize)
	}
	tree, root, err := hashTree(ctx, data, size, salt)
	if err != nil {
		return root, err
	}
	if _, err := out.Write(superblock(size/BlockSize, salt, id)); err != nil {
		return root, err
	}
	// The root's level comes first.
	for i := len(tree) - 1; i >= 0; i-- {
		if _, err := out.Write(tree[i]); err != nil {
			return root, err
		}
	}
	return root, nil
}

// superblockLen is how much of the first hash block has a meaning.
const superblockLen = 512

// readSuperblock reads the first bytes of a hash area and returns the size of the
// data and the salt.
func readSuperblock(hashes io.ReaderAt) (dataSize int64, salt [32]byte, err error) {
	b := make([]byte, superblockLen)
	if n, err := hashes.ReadAt(b, 0); n < len(b) {
		return 0, salt, fmt.Errorf("verity superblock: %w", err)
	}
	le := binary.LittleEndian
	blocks := le.Uint64(b[72:])
	switch {
	case !bytes.Equal(b[:8], []byte("verity\x00\x00")):
		return 0, salt, errors.New("verity: no superblock")
	case le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1 || !bytes.Equal(bytes.TrimRight(b[32:64], "\x00"), []byte("sha256")) ||
		le.Uint32(b[64:]) != BlockSize || le.Uint32(b[68:]) != BlockSize || int(le.Uint16(b[80:])) != len(salt):
		return 0, salt, errors.New("verity: the superblock is not of version 1, hash type 1, SHA-256, blocks of 4096 and a salt of 32 bytes")
	case blocks == 0 || blocks > 1<<40:
		return 0, salt, fmt.Errorf("verity: the superblock covers %d blocks", blocks)
	}
	copy(salt[:], b[88:])
	return int64(blocks) * BlockSize, salt, nil
}

// DataSize returns how many bytes of data a hash area covers, as its superblock says.
func DataSize(hashes io.ReaderAt) (int64, error) {
	n, _, err := readSuperblock(hashes)
	return n, err
}

// Verify computes the tree anew and compares it with hashes, an area that Write
// made, and with root. The error says whether the data or the area differs.
func Verify(ctx context.Context, data io.ReaderAt, size int64, hashes io.ReaderAt, root [32]byte) error {
	covered, salt, err := readSuperblock(hashes)
	if err != nil {
		return err
	}
	if covered != size {
		return fmt.Errorf("verity: the superblock covers %d blocks, the data has %d bytes", covered/BlockSize, size)
	}
	tree, got, err := hashTree(ctx, data, size, salt)
	if err != nil {
		return err
	}
	if got != root {
		return fmt.Errorf("verity: the data's root hash is %x, expected %x", got, root)
	}
	off := int64(BlockSize)
	for i := len(tree) - 1; i >= 0; i-- {
		have := make([]byte, len(tree[i]))
		if _, err := hashes.ReadAt(have, off); err != nil {
			return fmt.Errorf("verity: hash tree at byte %d: %w", off, err)
		}
		if !bytes.Equal(have, tree[i]) {
			return fmt.Errorf("verity: level %d of the hash tree, at byte %d, does not fit the data", i, off)
		}
		off += int64(len(have))
	}
	return nil
}

// hashTree returns the levels, from the one above the data up, each padded to
// whole blocks, and the root hash.
func hashTree(ctx context.Context, data io.ReaderAt, size int64, salt [32]byte) ([][]byte, [32]byte, error) {
	blocks := size / BlockSize
	if blocks == 1 {
		b := make([]byte, BlockSize)
		if err := readFull(data, b, 0); err != nil {
			return nil, [32]byte{}, err
		}
		return nil, digest(salt, b), nil
	}
	counts := levels(blocks)
	tree := make([][]byte, len(counts))
	for i, n := range counts {
		tree[i] = make([]byte, n*BlockSize)
	}
	if err := hashData(ctx, data, blocks, salt, tree[0]); err != nil {
		return nil, [32]byte{}, err
	}
	for i := 1; i < len(tree); i++ {
		below := tree[i-1]
		for b := 0; b*BlockSize < len(below); b++ {
			d := digest(salt, below[b*BlockSize:(b+1)*BlockSize])
			copy(tree[i][b*digestSize:], d[:])
		}
	}
	return tree, digest(salt, tree[len(tree)-1]), nil
}

// hashData writes the digest of every data block to its place in level.
func hashData(ctx context.Context, data io.ReaderAt, blocks int64, salt [32]byte, level []byte) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int64
		first error
	)
	take := func() (int64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = ctx.Err()
		}
		if first != nil || next >= blocks {
			return 0, false
		}
		n := next
		next += batch
		return n, true
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf := make([]byte, batch*BlockSize)
			for {
				start, ok := take()
				if !ok {
					return
				}
				n := min(batch, blocks-start)
				b := buf[:n*BlockSize]
				if err := readFull(data, b, start*BlockSize); err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
					return
				}
				for i := range n {
					d := digest(salt, b[i*BlockSize:(i+1)*BlockSize])
					copy(level[(start+i)*digestSize:], d[:])
				}
			}
		})
	}
	wg.Wait()
	return first
}

// readFull reads len(b) bytes at off; a ReaderAt may end with the last of them.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	return fmt.Errorf("verity: data at byte %d: %w", off+int64(n), err)
}

// digest is hash type 1: the salt comes before the block.
func digest(salt [32]byte, block []byte) [32]byte {
	h := sha256.New()
	h.Write(salt[:])
	h.Write(block)
	return [32]byte(h.Sum(nil))
}

// superblock fills the first block of the hash area.
func superblock(blocks int64, salt [32]byte, id uuid.UUID) []byte {
	b := make([]byte, BlockSize)
	copy(b, "verity\x00\x00")
	le := binary.LittleEndian
	le.PutUint32(b[8:], 1)  // superblock version
	le.PutUint32(b[12:], 1) // hash type
	copy(b[16:], id[:])
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], BlockSize) // data blocks
	le.PutUint32(b[68:], BlockSize) // hash blocks
	le.PutUint64(b[72:], uint64(blocks))
	le.PutUint16(b[80:], uint16(len(salt)))
	copy(b[88:], salt[:])
	return b
}

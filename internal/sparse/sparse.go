// Package sparse works on files with holes, such as disk images: it makes them, copies
// them so that holes stay holes, or shares their blocks where the file system can, and
// digests them without hashing zeros.
package sparse

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/kiln-os/kiln/internal/diskspace"
)

// extent is a part of a file that is no hole, in bytes.
type extent struct{ at, len int64 }

// HasHoles says whether f has any. Where holes cannot be asked for it has none.
func HasHoles(f *os.File) (bool, error) {
	size, err := sizeOf(f)
	if err != nil {
		return false, err
	}
	data, err := extents(f, size)
	return size > 0 && (len(data) != 1 || data[0] != extent{0, size}), err
}

// DataSize is the number of bytes of f that are not in holes: about as much as
// Copy has to copy.
func DataSize(f *os.File) (n int64, err error) {
	size, err := sizeOf(f)
	if err != nil {
		return 0, err
	}
	data, err := extents(f, size)
	for _, e := range data {
		n += e.len
	}
	return n, err
}

// Extend makes a file longer by a hole, where the file system has holes.
func Extend(f *os.File, size int64) error {
	allow(f)
	return f.Truncate(size)
}

func sizeOf(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", f.Name())
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// copyStep is how much is copied at once; between two steps an interrupt is seen.
const copyStep = 16 << 20

// Copy makes the empty file dst a copy of src. Where the file system can, the two
// share their blocks; else what is data in src is copied, by the kernel where it
// can; a disk that has no room for that is a diskspace.FullError. progress, if not nil, is told the number of bytes after each step. written
// is how many bytes were copied, 0 if they are shared. The offsets of both files
// are changed.
func Copy(ctx context.Context, dst, src *os.File, progress func(n int64)) (written int64, err error) {
	if progress == nil {
		progress = func(int64) {}
	}
	size, err := sizeOf(src)
	if err != nil {
		return 0, err
	}
	data, err := extents(src, size)
	if err != nil {
		return 0, err
	}
	if reflink(dst, src) {
		for _, e := range data {
			progress(e.len)
		}
		return 0, nil
	}
	need := int64(0)
	for _, e := range data {
		need += e.len
	}
	if err := diskspace.Require(dst.Name(), need); err != nil {
		return 0, err
	}
	if err := Extend(dst, size); err != nil {
		return 0, err
	}
	for _, e := range data {
		for e.len > 0 {
			if err := ctx.Err(); err != nil {
				return written, err
			}
			step := min(e.len, copyStep)
			if err := copyPart(dst, src, e.at, step); err != nil {
				return written, fmt.Errorf("copy %s to %s: %w", src.Name(), dst.Name(), err)
			}
			startWriting(dst, e.at, step) // the disk works while more is copied
			progress(step)
			written, e.at, e.len = written+step, e.at+step, e.len-step
		}
	}
	return written, nil
}

// copyPart copies n bytes at an offset. os.File uses copy_file_range(2) for it, or
// what else the system has.
func copyPart(dst, src *os.File, at, n int64) error {
	if _, err := src.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := dst.Seek(at, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(dst, src, n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the file became shorter
	}
	return err
}

// block is the unit of a digest.
const block = 1 << 20

// Digest is the SHA-256, in hexadecimal, of a file's size and of the number and
// SHA-256 of each of its 1 MiB blocks that is not all zeros. It does not depend on
// which zeros are holes. The blocks are hashed in parallel.
func Digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := sizeOf(f)
	if err != nil {
		return "", err
	}
	numbers, err := numbersOf(f, size, block)
	if err != nil {
		return "", err
	}
	sums, err := hashBlocks(f, size, numbers)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	number := func(n int64) { h.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	number(size)
	for i, s := range sums {
		if s != nil {
			number(numbers[i])
			h.Write(s)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Blocks lists the numbers of those blocks of f, each of the given number of bytes,
// that are not all in holes, in order. They may still hold nothing but zeros.
func Blocks(f *os.File, bytes int64) ([]int64, error) {
	size, err := sizeOf(f)
	if err != nil {
		return nil, err
	}
	return numbersOf(f, size, bytes)
}

func numbersOf(f *os.File, size, bytes int64) ([]int64, error) {
	data, err := extents(f, size)
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, e := range data {
		for n := e.at / bytes; n*bytes < e.at+e.len; n++ {
			if len(numbers) == 0 || numbers[len(numbers)-1] < n {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers, nil
}

// hashBlocks returns the digest of each block, nil for zeros.
func hashBlocks(f *os.File, size int64, numbers []int64) ([][]byte, error) {
	sums := make([][]byte, len(numbers))
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			buf, zeros := make([]byte, block), make([]byte, block)
			for i := w; i < len(numbers); i += workers {
				at := numbers[i] * block
				b := buf[:min(block, size-at)]
				if _, err := f.ReadAt(b, at); err != nil {
					errs[w] = err
					return
				}
				if !slices.Equal(b, zeros[:len(b)]) {
					s := sha256.Sum256(b)
					sums[i] = s[:]
				}
			}
		})
	}
	wg.Wait()
	return sums, errors.Join(errs...)
}

package squashfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/tree"
)

// file is a regular file's data and where it lies.
type file struct {
	path    string
	content tree.Content
	size    int64

	same     *file // an earlier file with the same bytes, whose data serves for both
	start    uint64
	blocks   []uint32 // compressed sizes; 0 is a block of zeros, which takes no space
	sparse   uint64   // bytes in such blocks
	fragment uint32
	offset   uint32 // of the tail in the fragment
}

// stored returns the file that has the data.
func (f *file) stored() *file {
	if f.same != nil {
		return f.same
	}
	return f
}

// writeData writes all files' blocks and fragments, in the files' order, and
// returns the fragment table.
func writeData(ctx context.Context, w *output, files []*file, level zstd.EncoderLevel) ([]fragmentEntry, error) {
	p, stop, err := newPacker(ctx, w, level)
	if err != nil {
		return nil, err
	}
	defer stop()
	sizes := map[int64]int{}
	for _, f := range files {
		sizes[f.size]++
	}
	type identity struct {
		size   int64
		digest [sha256.Size]byte
	}
	seen := map[identity]*file{}
	for _, f := range files {
		if f.size == 0 {
			continue
		}
		// Most files are alone with their size, and need not be read twice.
		if sizes[f.size] > 1 {
			digest, err := digestOf(ctx, f)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.path, err)
			}
			id := identity{f.size, digest}
			if f.same = seen[id]; f.same != nil {
				continue
			}
			seen[id] = f
		}
		if err := p.add(ctx, f); err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return p.finish(ctx)
}

// block is a data block of a file, or a fragment block, on its way into the image.
type block struct {
	data   []byte
	packed []byte
	size   uint32 // as the block list has it
	file   *file  // nil for a fragment block
	done   chan struct{}
}

// packer compresses blocks side by side and writes them in the order in which
// they were read, so that the image does not depend on the number of workers.
type packer struct {
	w         *output
	jobs      chan *block
	queue     []*block // submitted and not yet written, the oldest first
	free      []*block
	fragment  *block // tails that were read, not yet submitted
	filled    uint32 // fragment blocks that were submitted
	fragments []fragmentEntry
}

// newPacker starts the workers; stop ends them.
func newPacker(ctx context.Context, w *output, level zstd.EncoderLevel) (*packer, func(), error) {
	workers := runtime.GOMAXPROCS(0)
	// So many blocks are in memory at once. Some wait for a worker while the next file is opened.
	window := 4*workers + 4
	p := &packer{w: w, jobs: make(chan *block, window)}
	for range window {
		p.free = append(p.free, &block{data: make([]byte, 0, blockSize), done: make(chan struct{}, 1)})
	}
	var wg sync.WaitGroup
	stop := func() {
		close(p.jobs)
		wg.Wait()
	}
	for range workers {
		enc, err := newEncoder(level)
		if err != nil {
			stop()
			return nil, nil, err
		}
		wg.Go(func() {
			defer enc.Close()
			for b := range p.jobs {
				if ctx.Err() == nil {
					b.pack(enc)
				}
				b.done <- struct{}{}
			}
		})
	}
	return p, stop, nil
}

var zeros [blockSize]byte

// pack decides what is stored of a block.
func (b *block) pack(enc *zstd.Encoder) {
	if b.file != nil && bytes.Equal(b.data, zeros[:len(b.data)]) {
		b.packed, b.size = b.packed[:0], 0
		return
	}
	b.packed = enc.EncodeAll(b.data, b.packed[:0])
	b.size = uint32(len(b.packed))
	if len(b.packed) >= len(b.data) {
		b.packed = append(b.packed[:0], b.data...)
		b.size = uint32(len(b.data)) | uncompressedData
	}
}

// take returns an empty block. When all are under way it waits for the oldest.
func (p *packer) take() (*block, error) {
	if len(p.free) == 0 {
		if err := p.retire(); err != nil {
			return nil, err
		}
	}
	b := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	b.data, b.file = b.data[:0], nil
	return b, nil
}

// submit hands a block to the workers.
func (p *packer) submit(b *block) {
	p.queue = append(p.queue, b)
	p.jobs <- b // has room for all blocks there are
}

// retire writes the oldest block.
func (p *packer) retire() error {
	b := p.queue[0]
	p.queue = p.queue[1:]
	<-b.done
	start := p.w.pos
	if err := p.w.write(b.packed); err != nil {
		return err
	}
	if f := b.file; f == nil {
		p.fragments = append(p.fragments, fragmentEntry{StartBlock: start, Size: b.size})
	} else {
		if len(f.blocks) == 0 {
			f.start = start
		}
		f.blocks = append(f.blocks, b.size)
		if b.size == 0 {
			f.sparse += uint64(len(b.data))
		}
	}
	p.free = append(p.free, b)
	return nil
}

// add reads a file and submits its blocks.
func (p *packer) add(ctx context.Context, f *file) error {
	r, err := f.content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	for done := int64(0); done < f.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := int(min(f.size-done, blockSize))
		b, err := p.place(f, n)
		if err != nil {
			return err
		}
		old := len(b.data)
		b.data = b.data[:old+n]
		got, err := io.ReadFull(r, b.data[old:])
		done += int64(got)
		if err != nil {
			return readError(err, done, f.size)
		}
		if b != p.fragment {
			p.submit(b)
		}
	}
	return atEnd(r, f.size)
}

// place returns where the next n bytes of a file go: a block of their own, or if
// they are a short tail the fragment block.
func (p *packer) place(f *file, n int) (*block, error) {
	if n > fragmentSize {
		b, err := p.take()
		if err != nil {
			return nil, err
		}
		b.file = f
		return b, nil
	}
	if p.fragment != nil && len(p.fragment.data)+n > fragmentSize {
		p.submitFragment()
	}
	if p.fragment == nil {
		b, err := p.take()
		if err != nil {
			return nil, err
		}
		p.fragment = b
	}
	f.fragment, f.offset = p.filled, uint32(len(p.fragment.data))
	return p.fragment, nil
}

func (p *packer) submitFragment() {
	p.submit(p.fragment)
	p.fragment = nil
	p.filled++
}

// finish writes what is left and returns the fragment table.
func (p *packer) finish(ctx context.Context) ([]fragmentEntry, error) {
	if p.fragment != nil {
		p.submitFragment()
	}
	for len(p.queue) > 0 {
		if err := p.retire(); err != nil {
			return nil, err
		}
	}
	return p.fragments, ctx.Err() // workers leave out blocks once it is set
}

// digestOf reads a file for its digest.
func digestOf(ctx context.Context, f *file) (digest [sha256.Size]byte, err error) {
	r, err := f.content.Open()
	if err != nil {
		return digest, err
	}
	defer r.Close()
	h := sha256.New()
	for done := int64(0); done < f.size; {
		if err := ctx.Err(); err != nil {
			return digest, err
		}
		n, err := io.CopyN(h, r, min(f.size-done, 16*blockSize))
		done += n
		if err != nil {
			return digest, readError(err, done, f.size)
		}
	}
	h.Sum(digest[:0])
	return digest, atEnd(r, f.size)
}

// readError says that content ended before its size, or why it could not be read.
func readError(err error, done, size int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("its content ends after %d bytes, expected %d", done, size)
	}
	return fmt.Errorf("read at byte %d: %w", done, err)
}

// atEnd makes sure that content has no more bytes than its size.
func atEnd(r io.Reader, size int64) error {
	n, err := io.ReadFull(r, make([]byte, 1))
	if n > 0 {
		return fmt.Errorf("its content goes on after the expected %d bytes", size)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read at byte %d: %w", size, err)
	}
	return nil
}

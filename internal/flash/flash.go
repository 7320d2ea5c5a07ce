// Package flash writes an image of a node to a disk or SD card: only the blocks that
// are used, the partition table last, and all of them read back and compared. It also
// makes a card that has an image another node's.
package flash

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/internal/nodeimage"
)

// Progress shows how far it is.
type Progress interface {
	Step(name string)
	Bytes(done, total int64)
}

// Target is a disk or file that passed the checks and is held exclusively.
type Target struct {
	Disk
	dev device
}

// device is what is written to; tests have disks that break.
type device interface {
	disk.File
	// written says that a part was written, and an earlier one long ago.
	written(at, n, before, length int64)
	// dropCache makes reads come from the medium.
	dropCache() error
	// reread makes the system look at what is on the disk now.
	reread()
}

type fileDevice struct{ *os.File }

func (d fileDevice) written(at, n, before, length int64) { startWriting(d.File, at, n, before, length) }
func (d fileDevice) dropCache() error                    { return dropCache(d.File) }
func (d fileDevice) reread()                             { reread(d.File) }

// Check returns what is at path if the image may be written to it: a free disk, or a
// file in the place of one, that is large enough.
func (i *Image) Check(path string) (Disk, error) {
	if !IsDisk(path) {
		st, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			return Disk{}, fmt.Errorf("%w; a file in the place of a disk must be there in its size: %s", err, makeFile(path, int64(i.Profile.Disk.Minimum)<<20))
		}
		if err != nil {
			return Disk{}, err
		}
		if i.file != nil {
			self, err := i.file.Stat()
			if err != nil {
				return Disk{}, err
			}
			if os.SameFile(self, st) {
				return Disk{}, fmt.Errorf("%s is the image itself", path)
			}
		}
	}
	d, err := free(path)
	if err != nil {
		return d, err
	}
	return d, i.fits(d)
}

// free returns the disk or file at path, if nothing else uses it.
func free(path string) (Disk, error) {
	if IsDisk(path) {
		d, err := find(path)
		if err != nil {
			return d, err
		}
		return d, d.check()
	}
	st, err := os.Stat(path)
	if err != nil {
		return Disk{}, err
	}
	if !st.Mode().IsRegular() {
		return Disk{}, fmt.Errorf("%s is neither a disk nor a file", path)
	}
	return Disk{Path: path, Size: st.Size()}, nil
}

// fits refuses a disk that is too small for the image, or for the node that will
// grow into it.
func (i *Image) fits(d Disk) error {
	if d.Size < i.Size {
		return fmt.Errorf("%s has %d MiB, and the image %d: take a larger disk", d.Path, d.Size>>20, i.Size>>20)
	}
	if least := int64(i.Profile.Disk.Minimum) << 20; d.Size < least {
		return fmt.Errorf("%s has %d MiB, and a node of profile %s needs %d: take a larger disk", d.Path, d.Size>>20, i.Profile.Name, i.Profile.Disk.Minimum)
	}
	return nil
}

// OpenTarget takes a disk that Check let pass for this process alone.
func OpenTarget(d Disk) (*Target, error) {
	dev, err := openDevice(d)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("%w: %s", err, asRoot)
	}
	if err != nil {
		return nil, err
	}
	return &Target{Disk: d, dev: dev}, nil
}

// openFile opens a file in the place of a disk, or a disk that is opened as files are.
func openFile(path string) (device, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	f, err := nodeimage.OpenExclusive(real)
	if err != nil {
		return nil, err
	}
	return fileDevice{f}, nil
}

// Close gives the disk back.
func (t *Target) Close() error { return t.dev.Close() }

// Result says what was done.
type Result struct {
	Node    string  `json:"node"` // "" for a base image, which has no stamp
	Profile string  `json:"profile"`
	Disk    string  `json:"disk"`
	Written int64   `json:"bytesWritten"`
	Seconds float64 `json:"seconds"` // to write, until all was on the disk
}

// Write writes the image to the target, reads it back and compares.
//
// The first block, with the partition table, is emptied first and written last: a
// machine finds nothing to start on a disk that was not finished.
func (i *Image) Write(ctx context.Context, t *Target, p Progress) (*Result, error) {
	p.Step("write " + t.Path)
	start := time.Now()
	w := &writer{dev: t.dev, seed: maphash.MakeSeed(), progress: func(done int64) { p.Bytes(done, max(i.expected(), done)) }}
	if err := i.copyTo(ctx, w); err != nil {
		return nil, t.explain(ctx, err, w.done)
	}
	r := &Result{Profile: i.Profile.Name, Disk: t.Path, Written: w.done, Seconds: time.Since(start).Seconds()}
	p.Bytes(w.done, w.done)
	p.Step("read back and compare")
	if err := w.verify(ctx, func(done int64) { p.Bytes(done, w.done) }); err != nil {
		return nil, t.explain(ctx, err, w.done)
	}
	var err error
	if _, r.Node, err = nodeimage.NodeOf(t.dev); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Path, err)
	}
	t.dev.reread()
	return r, nil
}

// explain says what an error means for the disk.
func (t *Target) explain(ctx context.Context, err error, done int64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if lost(err) {
		return fmt.Errorf("%s takes or gives no more data, after %d MiB: %w; was it pulled out, or is it broken? It is not complete: put it in and flash it again, or take another", t.Path, done>>20, err)
	}
	if errors.As(err, new(*DiffersError)) {
		return fmt.Errorf("%s: %w", t.Path, err)
	}
	return fmt.Errorf("%w; %s is not complete: flash it again", err, t.Path)
}

// buffers is how many blocks are in memory.
const buffers = 8

// copyTo writes the image: a goroutine reads and unpacks while another writes. What is
// read is written from where it was read to.
func (i *Image) copyTo(ctx context.Context, w *writer) error {
	if _, err := w.dev.WriteAt(zeros[:], 0); err != nil {
		return err
	}
	if err := w.dev.Sync(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	todo, free := make(chan part, buffers), make(chan []byte, buffers)
	for range buffers {
		free <- make([]byte, block)
	}
	first := zeros[:] // the block with the table
	group.Go(func() error {
		defer close(todo)
		return i.meaningful(func() ([]byte, error) {
			select {
			case b := <-free:
				return b, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, func(at int64, data []byte) error {
			if at == 0 {
				if data != nil {
					first = data
				}
				return nil
			}
			p := part{at, data}
			if data == nil {
				p.data = zeros[:min(block, i.Size-at)]
			}
			select {
			case todo <- p:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	group.Go(func() error {
		for p := range todo {
			if err := w.write(p); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if &p.data[0] != &zeros[0] {
				free <- p.data[:block]
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	// All that the table leads to is on the disk before the table is.
	if err := w.dev.Sync(); err != nil {
		return err
	}
	if err := w.write(part{0, first}); err != nil {
		return err
	}
	return w.dev.Sync()
}

// part is some bytes at their place.
type part struct {
	at   int64
	data []byte
}

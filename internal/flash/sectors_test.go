package flash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
)

// strict is a file that takes what a disk of Windows takes, and nothing else.
type strict struct {
	*os.File
	sector         int64
	reads, writes  int
	fail           error // of what is written after some writes
	after, rereads int
}

func (s *strict) check(b []byte, at int64) error {
	if at%s.sector != 0 || len(b) == 0 || int64(len(b))%s.sector != 0 || uintptr(unsafe.Pointer(&b[0]))%memoryAlign != 0 {
		return fmt.Errorf("%d bytes at %p to or from byte %d: %w", len(b), &b[0], at, syscall.EINVAL)
	}
	return nil
}

func (s *strict) readSectors(b []byte, at int64) error {
	s.reads++
	if err := s.check(b, at); err != nil {
		return err
	}
	_, err := s.File.ReadAt(b, at)
	return err
}

func (s *strict) writeSectors(b []byte, at int64) error {
	s.writes++
	if err := s.check(b, at); err != nil {
		return err
	}
	if s.fail != nil && s.writes > s.after {
		return &os.PathError{Op: "write", Path: s.Name(), Err: s.fail}
	}
	_, err := s.File.WriteAt(b, at)
	return err
}

func (s *strict) reread() { s.rereads++ }

// strictDisk is a disk of Windows with the content of a file.
func strictDisk(t testing.TB, path string, sector int64) (*sectorDevice, *strict) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s := &strict{File: f, sector: sector}
	d, err := newSectorDevice(s, `\\.\PhysicalDrive3`, st.Size(), sector)
	if err != nil {
		t.Fatal(err)
	}
	return d, s
}

// TestSectors compares reads and writes of any bytes with those of memory.
func TestSectors(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		const size = 5 << 20
		d, s := strictDisk(t, dirtyOf(t, size), sector)
		want := bytes.Repeat([]byte{0xaa}, size)
		rng := rand.New(rand.NewPCG(1, uint64(sector)))
		random := make([]byte, 3<<20)
		for i := range random {
			random[i] = byte(rng.Uint32())
		}
		unaligned := random[1:]
		for i, c := range []struct{ at, n int64 }{
			{0, 1}, {0, sector}, {0, 2<<20 + 3}, {1, 1}, {sector - 1, 1}, {sector - 1, 2}, {sector, sector}, {sector + 1, sector - 1},
			{sector + 7, 3*sector + 1}, {446, 66}, {block - 1, block + 2}, {block, block}, {size - 1, 1}, {size - 3*sector - 5, 3*sector + 5}, {7, 0},
		} {
			for _, from := range [][]byte{random, unaligned} {
				p := from[i*100:][:c.n]
				if n, err := d.WriteAt(p, c.at); n != len(p) || err != nil {
					t.Fatalf("write %d at %d: %d, %v", c.n, c.at, n, err)
				}
				copy(want[c.at:], p)
				got := make([]byte, c.n+2)[1 : c.n+1]
				if n, err := d.ReadAt(got, c.at); n != len(p) || err != nil || !bytes.Equal(got, p) {
					t.Fatalf("read %d at %d: %d, %v", c.n, c.at, n, err)
				}
			}
		}
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, want) {
			t.Errorf("what is around the writes has changed: %d bytes, %v", len(got), err)
		}
		// What is aligned is not copied.
		s.reads, s.writes = 0, 0
		b := alignedMemory(block)
		_, err1 := d.WriteAt(b, block)
		_, err2 := d.ReadAt(b, 0)
		if err1 != nil || err2 != nil || s.reads != 1 || s.writes != 1 {
			t.Errorf("%v, %v, %d reads, %d writes", err1, err2, s.reads, s.writes)
		}
	}
}

// dirtyOf is dirty for a small disk, all of which is full.
func dirtyOf(t testing.TB, size int) string {
	t.Helper()
	path := t.TempDir() + "/disk"
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xaa}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSectorsEnds(t *testing.T) {
	d, s := strictDisk(t, dirtyOf(t, 8192), 512)
	b := make([]byte, 100)
	if n, err := d.ReadAt(b, 8192-40); n != 40 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := d.ReadAt(b, 8192); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	for _, at := range []int64{-1, 8192 - 99, 8192, 1 << 62} {
		if n, err := d.WriteAt(b, at); n != 0 || !errors.Is(err, os.ErrInvalid) {
			t.Errorf("write at %d: %d, %v", at, n, err)
		}
	}
	if n, err := d.ReadAt(b, -1); n != 0 || !errors.Is(err, os.ErrInvalid) {
		t.Errorf("before the beginning: %d, %v", n, err)
	}
	if at, err := d.Seek(-2, io.SeekEnd); at != 8190 || err != nil {
		t.Errorf("seek: %d, %v", at, err)
	}
	if at, err := d.Seek(1, io.SeekCurrent); at != 8191 || err != nil {
		t.Errorf("seek: %d, %v", at, err)
	}
	if n, err := d.Read(b); n != 1 || err != nil {
		t.Errorf("the last byte: %d, %v", n, err)
	}
	if n, err := d.Read(b); n != 0 || err != io.EOF {
		t.Errorf("no byte: %d, %v", n, err)
	}
	if _, err := d.Seek(-1, io.SeekStart); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("seek: %v", err)
	}
	if st, err := d.Stat(); err != nil || st.Mode()&os.ModeDevice == 0 || st.Mode().IsRegular() || st.Size() != 8192 {
		t.Errorf("%+v, %v", st, err)
	}
	for _, c := range []struct{ size, sector int64 }{{8192, 0}, {8192, 256}, {8192, 520}, {8192, 8192}, {8000, 512}, {0, 512}, {-512, 512}} {
		if _, err := newSectorDevice(s, "disk", c.size, c.sector); err == nil {
			t.Errorf("%d bytes in sectors of %d", c.size, c.sector)
		}
	}
}

// TestFlashSectors flashes and stamps a disk that takes whole sectors alone, and gets
// what it gets of others.
func TestFlashSectors(t *testing.T) {
	raw := image(t)
	i := openImage(t, raw)
	path := dirty(t, 8<<30)
	d, s := strictDisk(t, path, 512)
	on := &Target{Disk: Disk{Path: d.path, Size: d.size}, dev: d}
	r, err := i.Write(t.Context(), on, &told{t: t})
	if err != nil || r.Node != "worker-7" || s.rereads != 1 {
		t.Fatalf("%+v, %v, %d", r, err, s.rereads)
	}
	compare(t, raw, path)
	if holds, err := on.Holds("worker-8", nodeimagetest.Profile, false); err != nil || holds != "the image of node worker-7" {
		t.Errorf("holds %q, %v", holds, err)
	}
	for _, reset := range []bool{false, true} {
		if _, err := on.Stamp(t.Context(), identity("worker-8", ""), reset); err != nil {
			t.Error(err)
		}
	}
	if got := nodeOn(t, path); got != "worker-8" || s.rereads != 3 {
		t.Errorf("node %q, %d", got, s.rereads)
	}
	// Pulled out while it is written: nothing starts from it.
	s.fail, s.after, s.writes = syscall.ENXIO, 4, 0
	if _, err := i.Write(t.Context(), on, &told{t: t}); err == nil || !strings.Contains(err.Error(), d.path+" takes or gives no more data") {
		t.Errorf("error %v", err)
	}
	if _, err := disk.Read(d); !errors.Is(err, disk.ErrNoTable) {
		t.Errorf("partition table: %v", err)
	}
}

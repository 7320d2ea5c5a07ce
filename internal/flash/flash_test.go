package flash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
)

// told is a Progress that checks what it is told.
type told struct {
	t           *testing.T
	steps       []string
	done, total int64
}

func (p *told) Step(name string) { p.steps, p.done = append(p.steps, name), 0 }
func (p *told) Bytes(done, total int64) {
	if done < p.done || done > total {
		p.t.Errorf("%d of %d bytes after %d", done, total, p.done)
	}
	p.done, p.total = done, total
}

const config = `{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,worker-7%0A"}}]}}`

// image makes the image of node worker-7, and returns its file.
func image(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := nodeimagetest.WriteBase(dir, 6); err != nil {
		t.Fatal(err)
	}
	b, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "worker-7.img")
	id := nodeimage.Identity{Node: "worker-7", Profile: nodeimagetest.Profile, Config: secret.FromString(config)}
	if _, err := b.Create(t.Context(), path, id, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// dirty makes a file in the place of a disk, whose first 128 MiB are full of what was
// there before.
func dirty(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "card.img")
	err := errors.Join(os.WriteFile(path, bytes.Repeat([]byte{0xaa}, 128<<20), 0o600), os.Truncate(path, size))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func openImage(t testing.TB, path string) *Image {
	t.Helper()
	i, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

func flashTo(t *testing.T, i *Image, path string) *Result {
	t.Helper()
	d, err := i.Check(path)
	if err != nil {
		t.Fatal(err)
	}
	target, err := OpenTarget(d)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	p := &told{t: t}
	r, err := i.Write(t.Context(), target, p)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.steps); got != "[write "+path+" read back and compare]" || p.done != p.total || p.total != r.Written {
		t.Errorf("steps %s, %d of %d bytes", got, p.done, p.total)
	}
	return r
}

// TestFlash writes an image, raw and packed, over a disk that was full.
func TestFlash(t *testing.T) {
	raw := image(t)
	for _, name := range []string{"raw", "raw.zst", "raw.xz"} {
		t.Run(name, func(t *testing.T) {
			path := raw
			if name != "raw" {
				f, err := format.Get(name)
				if err != nil {
					t.Fatal(err)
				}
				path = filepath.Join(t.TempDir(), "worker-7"+f.Ext)
				if err := f.Convert(t.Context(), path, raw, format.Options{Name: "worker-7"}); err != nil {
					t.Fatal(err)
				}
			}
			i := openImage(t, path)
			card := dirty(t, 8<<30)
			r := flashTo(t, i, card)
			if r.Node != "worker-7" || r.Profile != nodeimagetest.Profile || r.Written > 16<<20 {
				t.Errorf("%+v", r)
			}
			compare(t, raw, card)
		})
	}
}

// compare fails unless the card has what means something in the image, and what it
// had before elsewhere.
func compare(t *testing.T, raw, card string) {
	t.Helper()
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(card)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(f, got); err != nil {
		t.Fatal(err)
	}
	table, err := disk.Read(f)
	if err != nil || table.Damaged {
		t.Fatalf("partition table: %+v, %v", table, err)
	}
	check := func(what string, from, to int64) {
		if !bytes.Equal(got[from:to], want[from:to]) {
			t.Errorf("%s differs", what)
		}
	}
	check("the front", 0, table.Partitions[0].Offset)
	check("the table's backup", int64(len(want))-33*512, int64(len(want)))
	for _, p := range table.Partitions {
		end := p.Offset + int64(len(bytes.TrimRight(want[p.Offset:p.Offset+p.Size], "\x00")))
		check(p.Name, p.Offset, end)
		// Of a partition, what is left lies behind the block of its last data.
		for at := (end + block - 1) / block * block; at < p.Offset+p.Size; at += block {
			if bytes.Trim(got[at:at+block], "\xaa") != nil && len(bytes.Trim(got[at:at+block], "\xaa")) > 0 {
				t.Errorf("%s: written at byte %d, where the image has nothing", p.Name, at)
			}
		}
	}
	// The boot partition is whole for those who know nothing of Kiln.
	boot := filepath.Join(t.TempDir(), "esp")
	p := table.Partitions[0]
	if err := os.WriteFile(boot, got[p.Offset:p.Offset+p.Size], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := testtools.Command(t, "fsck.fat", "-n", boot).CombinedOutput(); err != nil {
		t.Errorf("fsck.fat: %v\n%s", err, out)
	}
}

// broken is a disk that breaks.
type broken struct {
	*os.File
	writes, failWrite int // the write with this number fails
	failSync          error
	lies              int64  // the byte at this place reads back wrong
	liesIn            string // this text reads back wrong
	failRead          error
	after             func()
}

func (b *broken) WriteAt(p []byte, at int64) (int, error) {
	if b.after != nil {
		b.after()
	}
	if b.writes++; b.writes == b.failWrite {
		return 0, &os.PathError{Op: "write", Path: b.Name(), Err: syscall.EIO}
	}
	return b.File.WriteAt(p, at)
}

func (b *broken) ReadAt(p []byte, at int64) (int, error) {
	if b.failRead != nil {
		return 0, b.failRead
	}
	n, err := b.File.ReadAt(p, at)
	if i := b.lies - at; b.lies > 0 && i >= 0 && i < int64(len(p)) {
		p[i]++
	}
	if i := bytes.Index(p, []byte(b.liesIn)); b.liesIn != "" && i >= 0 {
		p[i]++
	}
	return n, err
}

func (b *broken) Sync() error {
	if b.writes > 1 && b.failSync != nil {
		return b.failSync
	}
	return b.File.Sync()
}

func (b *broken) written(int64, int64, int64, int64) {}
func (b *broken) dropCache() error                   { return nil }
func (b *broken) reread()                            {}

// TestBrokenDisks: the error says what is wrong with the disk, and there is no
// partition table on one that was not finished.
func TestBrokenDisks(t *testing.T) {
	i := openImage(t, image(t))
	for name, c := range map[string]struct {
		disk     broken
		want     string
		complete bool
	}{
		"pulled out while writing":  {broken{failWrite: 3}, "was it pulled out", false},
		"pulled out while flushing": {broken{failSync: syscall.ENODEV}, "was it pulled out", false},
		"pulled out while reading":  {broken{failRead: syscall.EIO}, "was it pulled out", true},
		"smaller than it says":      {broken{lies: 36 << 20}, "reads back other bytes than were written, in the", true},
		"another error":             {broken{failSync: errors.New("odd")}, "odd; ", false},
	} {
		t.Run(name, func(t *testing.T) {
			card := dirty(t, 8<<30)
			f, err := os.OpenFile(card, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c.disk.File = f
			_, err = i.Write(t.Context(), &Target{Disk: Disk{Path: card}, dev: &c.disk}, &told{t: t})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), card) {
				t.Errorf("error %v", err)
			}
			if _, err := disk.Read(f); (err == nil) != c.complete {
				t.Errorf("partition table: %v", err)
			}
		})
	}
}

func TestInterrupt(t *testing.T) {
	i := openImage(t, image(t))
	card := dirty(t, 8<<30)
	f, err := os.OpenFile(card, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	d := &broken{File: f}
	d.after = func() {
		if d.writes == 2 {
			cancel()
		}
	}
	if _, err := i.Write(ctx, &Target{Disk: Disk{Path: card}, dev: d}, &told{t: t}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := disk.Read(f); !errors.Is(err, disk.ErrNoTable) {
		t.Errorf("partition table: %v", err)
	}
	// The same command again makes it whole.
	if r := flashTo(t, i, card); r.Node != "worker-7" {
		t.Errorf("%+v", r)
	}
}

func TestRefusesImages(t *testing.T) {
	raw := image(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	convert := func(name string) string {
		f, err := format.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "node"+f.Ext)
		if err := f.Convert(t.Context(), path, raw, format.Options{Name: "node"}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := file("foreign.img", make([]byte, 64<<20))
	if out, err := testtools.Command(t, "sgdisk", "-n", "1:0:0", "-t", "1:ef00", foreign).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	for path, want := range map[string]string{
		file("zeros", make([]byte, 8<<20)):                "no Kiln image",
		file("empty", nil):                                "no Kiln image",
		file("a.zst", []byte("\x28\xb5\x2f\xfdnonsense")): "unpack",
		foreign:                      "none of its partitions",
		dir:                          "this is no file",
		filepath.Join(dir, "absent"): "no such file",
		convert("qcow2"):             "this is a qcow2 image",
		convert("gce"):               "this is a gzip image",
	} {
		if i, err := Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, error %v, want %q", path, i, err, want)
		}
	}
	// Packed and cut off: found out at the end, and the disk has no table.
	for _, name := range []string{"raw.zst", "raw.xz"} {
		path := convert(name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := openImage(t, file("cut."+name, b[:len(b)/2]))
		card := dirty(t, 8<<30)
		target, err := OpenTarget(Disk{Path: card})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cut.Write(t.Context(), target, &told{t: t}); err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "flash it again") {
			t.Errorf("%s cut off: %v", name, err)
		}
		if _, err := disk.Read(target.dev); !errors.Is(err, disk.ErrNoTable) {
			t.Errorf("partition table: %v", err)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusesTargets(t *testing.T) {
	raw := image(t)
	i := openImage(t, raw)
	dir := t.TempDir()
	sized := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		sized("tiny", 1<<20):         "1 MiB, and the image 51",
		sized("small", 4<<30):        "a node of profile qemu-amd64 needs 8192",
		raw:                          "the image itself",
		dir:                          "neither a disk nor a file",
		filepath.Join(dir, "absent"): "truncate -s 8192M",
		"/dev/null":                  "no disk that an image can be written to",
	} {
		if d, err := i.Check(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, error %v, want %q", path, d, err, want)
		}
	}
	// Two at once: the second is refused.
	card := sized("card", 8<<30)
	first, err := OpenTarget(Disk{Path: card})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTarget(Disk{Path: card}); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("in use: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	for want, d := range map[string]Disk{
		"runs from":                {Path: "/dev/sda", System: true, Mounts: []string{"/"}},
		"mounted at /a":            {Path: "/dev/sda", Mounts: []string{"/a"}},
		"in use by dm-0":           {Path: "/dev/sda", Holders: []string{"dm-0"}},
		"read-only":                {Path: "/dev/sda", ReadOnly: true},
		"an image is made for 512": {Path: "/dev/sda", sector: 4096},
	} {
		if err := d.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

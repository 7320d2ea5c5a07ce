package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/kiln-os/kiln/internal/diskspace"
	"github.com/kiln-os/kiln/internal/testtools"
)

func sample(t *testing.T) Disk {
	content := filepath.Join(t.TempDir(), "content")
	b := append(bytes.Repeat([]byte("data"), 300_000), make([]byte, 3<<20)...)
	if err := os.WriteFile(content, append(b, "end"...), 0o600); err != nil {
		t.Fatal(err)
	}
	return Disk{GUID: DerivedUUID("test", "disk"), Partitions: []Partition{
		{Name: "kiln-esp", Type: uuid.MustParse("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), UUID: DerivedUUID("test", "esp"), Size: 34<<20 + 1},
		{Name: "kiln-usr-a", Type: uuid.MustParse("8484680c-9521-48c6-9c11-b0720656f69e"), UUID: DerivedUUID("test", "usr"), Size: 64 << 20, Attributes: ReadOnly, Fill: FromFile(content, 64<<20)},
	}}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	img := filepath.Join(dir, "disk.img")
	if err := Create(context.Background(), img, sample(t), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := testtools.Command(t, "sgdisk", "-v", "-p", "-i", "2", img).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	for _, want := range []string{
		"kiln-esp", "kiln-usr-a", "Partition GUID code: 8484680C-9521-48C6-9C11-B0720656F69E",
		"Partition unique GUID: " + strings.ToUpper(DerivedUUID("test", "usr").String()),
		"Disk identifier (GUID): " + strings.ToUpper(DerivedUUID("test", "disk").String()),
		"First sector: 73728 (at 36.0 MiB)", "Attribute flags: 1000000000000000",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("sgdisk does not show %q:\n%s", want, out)
		}
	}
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	const golden = "c1793c8f555e21bea96131ac86614905d8182ecef2c7ad087b85c182f6122cf3"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	if !bytes.HasPrefix(b[36<<20:], []byte("datadata")) {
		t.Error("the partition's content is not at its place")
	}
	if used := diskspace.Used(img); used > 8<<20 {
		t.Errorf("the image takes %d bytes on disk: zeros are not holes", used)
	}
}

func TestNothingHalfMadeIsLeft(t *testing.T) {
	dir := t.TempDir()
	img := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(img, []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for name, fill := range map[string]func(context.Context, io.WriterAt, int64) error{
		"failure":   func(context.Context, io.WriterAt, int64) error { return boom },
		"too large": FromFile("/dev/zero", 1<<20),
	} {
		d := sample(t)
		d.Partitions[1].Fill = fill
		if err := Create(context.Background(), img, d, 0o600); err == nil || !strings.Contains(err.Error(), "kiln-usr-a") {
			t.Errorf("%s: error %v does not name the partition", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Create(ctx, img, sample(t), 0o600); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if b, _ := os.ReadFile(img); string(b) != "earlier" {
		t.Error("the earlier image is gone")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
}

func TestReadAndRemove(t *testing.T) {
	img := filepath.Join(t.TempDir(), "disk.img")
	want := sample(t)
	if err := Create(context.Background(), img, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Partitions) != 2 || got.Damaged || got.End() != 100<<20 {
		t.Fatalf("%+v", got)
	}
	for i, p := range got.Partitions {
		w := want.Partitions[i]
		if p.Name != w.Name || p.Type != w.Type || p.UUID != w.UUID || p.Offset != []int64{1 << 20, 36 << 20}[i] {
			t.Errorf("%+v, want %+v", p, w)
		}
	}
	if err := got.Remove(f, want.Partitions[1].UUID); err != nil {
		t.Fatal(err)
	}
	if out, err := testtools.Command(t, "sgdisk", "-v", img).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	for _, damaged := range []bool{false, true} {
		again, err := Read(f)
		if err != nil || len(again.Partitions) != 1 || again.Partitions[0] != got.Partitions[0] || again.Damaged != damaged {
			t.Errorf("%+v, %v", again, err)
		}
		if _, err := f.WriteAt([]byte{1}, sector+20); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzRead changes bytes of a partition table and makes its checksums right again.
func FuzzRead(f *testing.F) {
	img := filepath.Join(f.TempDir(), "disk.img")
	if err := Create(context.Background(), img, Disk{GUID: DerivedUUID("x"), Partitions: []Partition{{Name: "x", Type: DerivedUUID("t"), UUID: DerivedUUID("u"), Size: 1 << 20}}}, 0o600); err != nil {
		f.Fatal(err)
	}
	disk, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		f.Fatal(err)
	}
	defer disk.Close()
	whole := make([]byte, 34*sector)
	if _, err := disk.ReadAt(whole, 0); err != nil {
		f.Fatal(err)
	}
	const header, entries = sector, 2 * sector
	f.Add(uint16(header+80), byte(200), uint16(entries+33), byte(9), uint16(entries+40), byte(255))
	f.Add(uint16(header+87), byte(1), uint16(entries+130), byte(9), uint16(header+79), byte(255))
	f.Fuzz(func(t *testing.T, at1 uint16, b1 byte, at2 uint16, b2 byte, at3 uint16, b3 byte) {
		b := bytes.Clone(whole)
		b[int(at1)%len(b)], b[int(at2)%len(b)], b[int(at3)%len(b)] = b1, b2, b3
		le := binary.LittleEndian
		le.PutUint32(b[header+88:], crc32.ChecksumIEEE(b[entries:]))
		le.PutUint32(b[header+16:], 0)
		le.PutUint32(b[header+16:], crc32.ChecksumIEEE(b[header:header+92]))
		if _, err := disk.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		got, err := Read(disk)
		if err != nil {
			return
		}
		for _, p := range got.Partitions {
			if p.Offset < 0 || p.Size <= 0 || p.Offset+p.Size > got.Size {
				t.Errorf("%+v on a disk of %d bytes", p, got.Size)
			}
		}
	})
}

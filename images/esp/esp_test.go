package esp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

func opts() Options {
	return Options{Label: "KILN-BOOT", VolumeID: 0x1234abcd, Time: time.Date(2026, 11, 23, 12, 30, 14, 0, time.UTC)}
}

func files() []File {
	f := []File{
		{"EFI/BOOT/BOOTX64.EFI", tree.Bytes(bytes.Repeat([]byte("b"), 100_000))},
		{"EFI/Linux/kiln.efi", tree.Bytes(bytes.Repeat([]byte("kernel "), 500_000))},
		{"loader/loader.conf", tree.Bytes("timeout 0\n")},
		{"kiln/config.ign", tree.Bytes("{}")},
		{"empty", tree.Bytes(nil)},
	}
	for i := range 200 { // a folder of several clusters, with colliding short names
		f = append(f, File{fmt.Sprintf("many/a long file name %03d.text", i), tree.Bytes(fmt.Sprint(i))})
	}
	return f
}

func write(t *testing.T, size, offset int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(offset + size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, offset, size, opts(), files()); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReferenceTools(t *testing.T) {
	for _, mib := range []int64{34, 64, 260, 512} {
		name := write(t, mib<<20, 0)
		if out, err := testtools.Command(t, "fsck.fat", "-n", "-v", name).CombinedOutput(); err != nil || strings.Contains(string(out), "differ") {
			t.Fatalf("fsck.fat of %d MiB: %v\n%s", mib, err, out)
		}
		for _, f := range files() {
			got, err := testtools.Command(t, "mtype", "-i", name, "::/"+f.Path).Output()
			want, _ := f.Content.Open()
			b, _ := io.ReadAll(want)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%d MiB: %s reads back as %d bytes (%v), want %d", mib, f.Path, len(got), err, len(b))
			}
		}
		out, err := testtools.Command(t, "mdir", "-i", name, "::/EFI/Linux").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "kiln.efi") || !strings.Contains(string(out), "2026-11-23  12:30") {
			t.Errorf("mdir: %v\n%s", err, out)
		}
	}
}

func TestGolden(t *testing.T) {
	const offset = 1 << 20
	b, err := os.ReadFile(write(t, 40<<20, offset))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsFunc(b[:offset], func(r rune) bool { return r != 0 }) {
		t.Error("something is written before the partition")
	}
	sum := sha256.Sum256(b[offset:])
	const golden = "283d1807ed306df1dff8ed761e210268fa381fdcbeff658087105cfbe5b3da18"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
}

type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

func TestRefuses(t *testing.T) {
	c := tree.Bytes("x")
	for name, f := range map[string][]File{
		"collision by case": {{"a/b", c}, {"A/c", c}},
		"file as folder":    {{"a", c}, {"a/b", c}},
		"twice":             {{"a", c}, {"a", c}},
		"bad character":     {{"a:b", c}},
		"not ASCII":         {{"ä", c}},
		"dot at the end":    {{"a.", c}},
		"escape":            {{"../x", c}},
		"too much":          {{"big", tree.HostFile{Path: "/dev/zero", Len: 50 << 20}}},
	} {
		if err := Write(discard{}, 0, 40<<20, opts(), f); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	bad := opts()
	bad.Label = "lower case"
	if err := Write(discard{}, 0, 40<<20, bad, nil); err == nil {
		t.Error("a label in lower case is accepted")
	}
	for _, size := range []int64{0, 1 << 20, 40<<20 + 1} {
		if err := Write(discard{}, 0, size, opts(), nil); err == nil {
			t.Errorf("%d bytes are accepted", size)
		}
	}
}

// TestOpen reads files where they lie, in folders of any depth.
func TestOpen(t *testing.T) {
	const offset = 1 << 20
	f, err := os.Open(write(t, 40<<20, offset))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := Open(f, offset, 40<<20)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("kernel "), 500_000)
	got, found, err := v.Open("efi/Linux")
	if err != nil || !found || len(got) != 1 || got["kiln.efi"].Size() != int64(len(want)) {
		t.Fatalf("%v, %v, %v", got, found, err)
	}
	if b, err := io.ReadAll(got["kiln.efi"]); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	part := make([]byte, 10_000)
	if _, err := got["kiln.efi"].ReadAt(part, 4095); err != nil || !bytes.Equal(part, want[4095:][:len(part)]) {
		t.Errorf("in the middle: %v", err)
	}
	if n, err := got["kiln.efi"].ReadAt(part, int64(len(want))-9); n != 9 || err != io.EOF {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	for _, folder := range []string{"", "Linux", "EFI/Linux/kiln.efi", "EFI/nothing"} {
		if _, found, err := v.Open(folder); found || err != nil {
			t.Errorf("%q: %v, %v", folder, found, err)
		}
	}
}

// TestShortNames holds what firmware that reads no long names finds: the name as it
// is but for its case, and only what does not fit gets a number.
func TestShortNames(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(40 << 20); err != nil {
		t.Fatal(err)
	}
	var list []File
	for _, n := range []string{"bootcode.bin", "start4.elf", "BOOTAA64.EFI", "config.ign.sha256", "bcm2837-rpi-3-b.dtb", "bcm2837-rpi-3-a.dtb", "CONFIG~1.SHA"} {
		list = append(list, File{n, tree.Bytes(n)})
	}
	if err := Write(f, 0, 40<<20, opts(), list); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, short := range []string{"BOOTCODEBIN", "START4  ELF", "BOOTAA64EFI", "CONFIG~1SHA", "CONFIG~2SHA", "BCM283~1DTB", "BCM283~2DTB"} {
		if !bytes.Contains(b, []byte(short)) {
			t.Errorf("no short name %q", short)
		}
	}
	if out, err := testtools.Command(t, "fsck.fat", "-n", name).CombinedOutput(); err != nil {
		t.Errorf("fsck.fat: %v\n%s", err, out)
	}
	for _, l := range list {
		if out, err := testtools.Command(t, "mtype", "-i", name, "::/"+l.Path).Output(); err != nil || string(out) != l.Path {
			t.Errorf("%s reads back as %q (%v)", l.Path, out, err)
		}
	}
}

package esp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

const volumeSize = 34 << 20

// overlay is a Device on top of a volume that does not change. Like a disk it may
// lose, when the power fails, any of the writes that were not synced.
type overlay struct {
	base    []byte
	sectors map[int64][]byte // durable
	pending []pendingWrite
	left    int // sectors that may still be written; then the power fails
}

type pendingWrite struct {
	at   int64
	data []byte
}

var errPower = errors.New("the power failed")

func newOverlay(base []byte) *overlay {
	return &overlay{base: base, sectors: map[int64][]byte{}, left: 1 << 30}
}

func (o *overlay) ReadAt(b []byte, at int64) (int, error) {
	n := copy(b, o.base[at:])
	for s := at / sector; s <= (at+int64(n)-1)/sector; s++ {
		if d, ok := o.sectors[s]; ok {
			from := max(at, s*sector)
			copy(b[from-at:n], d[from-s*sector:])
		}
	}
	for _, w := range o.pending {
		from, to := max(at, w.at), min(at+int64(n), w.at+int64(len(w.data)))
		if from < to {
			copy(b[from-at:to-at], w.data[from-w.at:])
		}
	}
	return n, nil
}

// WriteAt writes sector by sector.
func (o *overlay) WriteAt(b []byte, at int64) (int, error) {
	if at%sector != 0 || len(b)%sector != 0 {
		return 0, fmt.Errorf("a write of %d bytes at %d is not one of whole sectors", len(b), at)
	}
	for n := 0; n < len(b); n += sector {
		if o.left == 0 {
			return n, errPower
		}
		o.left--
		o.pending = append(o.pending, pendingWrite{at + int64(n), bytes.Clone(b[n : n+sector])})
	}
	return len(b), nil
}

func (o *overlay) Sync() error {
	o.settle(func() bool { return true })
	return nil
}

func (o *overlay) settle(kept func() bool) {
	for _, w := range o.pending {
		if kept() {
			o.sectors[w.at/sector] = w.data
		}
	}
	o.pending = nil
}

func (o *overlay) bytes() []byte {
	out := bytes.Clone(o.base)
	for s, d := range o.sectors {
		copy(out[s*sector:], d)
	}
	return out
}

// volumeWith is a volume with the files of esp_test.go but none in kiln/.
func volumeWith(t testing.TB, more ...File) []byte {
	t.Helper()
	var list []File
	for _, f := range files() {
		if f.Path != "kiln/config.ign" {
			list = append(list, f)
		}
	}
	b := buffer(make([]byte, volumeSize))
	if err := Write(b, 0, volumeSize, opts(), append(list, more...)); err != nil {
		t.Fatal(err)
	}
	return b
}

type buffer []byte

func (b buffer) WriteAt(p []byte, at int64) (int, error) { return copy(b[at:], p), nil }

func stamp(text string, n int) []File {
	return []File{{"config.ign", tree.Bytes(strings.Repeat(text, n))}, {"config.ign.sha256", tree.Bytes(text)}}
}

func replaceIn(t *testing.T, d Device, files []File) {
	t.Helper()
	v, err := Open(d, 0, volumeSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Replace("kiln", files); err != nil {
		t.Fatal(err)
	}
}

func readIn(t *testing.T, d Device) map[string][]byte {
	t.Helper()
	v, err := Open(d, 0, volumeSize)
	if err != nil {
		t.Fatal(err)
	}
	got, found, err := v.Read("kiln")
	if err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	return got
}

func TestReplaceReferenceTools(t *testing.T) {
	d := newOverlay(volumeWith(t, File{"kiln/", nil}))
	for _, f := range [][]File{stamp("first ", 5000), stamp("second ", 200), stamp("third ", 20000)} {
		replaceIn(t, d, f)
		name := filepath.Join(t.TempDir(), "volume")
		if err := os.WriteFile(name, d.bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := testtools.Command(t, "fsck.fat", "-n", "-v", name).CombinedOutput(); err != nil || strings.Contains(string(out), "differ") {
			t.Fatalf("fsck.fat: %v\n%s", err, out)
		}
		for _, f := range slices.Concat(f, files()) {
			path := f.Path
			if path == "kiln/config.ign" {
				continue
			}
			if !strings.Contains(path, "/") && path != "empty" {
				path = "kiln/" + path
			}
			got, err := testtools.Command(t, "mtype", "-i", name, "::/"+path).Output()
			r, _ := f.Content.Open()
			want, _ := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s reads back as %d bytes (%v), want %d", path, len(got), err, len(want))
			}
		}
		out, err := testtools.Command(t, "mdir", "-i", name, "::/kiln").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "config.ign.sha256") || !strings.Contains(string(out), "2026-11-23  12:30") || !strings.Contains(string(out), "4 files") {
			t.Errorf("mdir: %v\n%s", err, out)
		}
	}
}

// TestReplaceDoesNotDependOnThePast: a new volume with the files, one that got them
// by Replace, and one that had others before, are the same bytes.
func TestReplaceDoesNotDependOnThePast(t *testing.T) {
	empty := volumeWith(t, File{"kiln/", nil})
	fresh := newOverlay(empty)
	replaceIn(t, fresh, stamp("x", 30000))
	for _, before := range [][]File{stamp("x", 30000), stamp("y", 1), stamp("z", 100_000), {{"config.ign", tree.Bytes("alone, as older versions wrote it")}}} {
		d := newOverlay(empty)
		replaceIn(t, d, before)
		replaceIn(t, d, stamp("x", 30000))
		if !bytes.Equal(d.bytes(), fresh.bytes()) {
			t.Errorf("a volume that held %s of %d bytes before differs", before[0].Path, before[0].Content.Size())
		}
	}
}

// TestReplaceSurvivesAnyCrash cuts Replace off after each sector that it writes;
// of those that were not synced any may be lost. The folder holds the old files
// or the new ones, and the next Replace leaves nothing of the cut-off one.
func TestReplaceSurvivesAnyCrash(t *testing.T) {
	const old, new, third = "old secret ", "new secret ", "third "
	random := rand.New(rand.NewPCG(1, 2))
	empty := volumeWith(t, File{"kiln/", nil})
	before := newOverlay(empty)
	replaceIn(t, before, stamp(old, 900))
	fresh := newOverlay(empty)
	replaceIn(t, fresh, stamp(third, 400))
	want := fresh.bytes()
	for base, names := range map[string][]string{string(empty): {"", new}, string(before.bytes()): {old, new}} {
		seen := map[string]bool{}
		for _, kept := range []struct {
			what string
			keep func() bool
		}{
			{"all", func() bool { return true }}, // kill -9: the page cache lives on
			{"none", func() bool { return false }},
			{"some", func() bool { return random.IntN(2) == 0 }},
			{"others", func() bool { return random.IntN(2) == 0 }},
		} {
			for n := 0; ; n++ {
				d := newOverlay([]byte(base))
				d.left = n
				v, err := Open(d, 0, volumeSize)
				if err != nil {
					t.Fatal(err)
				}
				_, err = v.Replace("kiln", stamp(new, 1000))
				d.settle(kept.keep)
				d.left = 1 << 30
				got := readIn(t, d)
				name := string(got["config.ign.sha256"])
				count := map[string]int{"": 0, old: 900, new: 1000}[name]
				if !slices.Contains(names, name) || string(got["config.ign"]) != strings.Repeat(name, count) || err == nil && name != new {
					t.Fatalf("cut after %d sectors, %s kept: %d files, of %q with %d bytes (%v)", n, kept.what, len(got), name, len(got["config.ign"]), err)
				}
				seen[name] = true
				if err == nil {
					break
				}
				if !errors.Is(err, errPower) {
					t.Fatal(err)
				}
				if n%7 == 0 || kept.what != "all" {
					replaceIn(t, d, stamp(third, 400))
					if !bytes.Equal(d.bytes(), want) {
						t.Fatalf("cut after %d sectors, %s kept: the next Replace leaves other bytes", n, kept.what)
					}
				}
			}
		}
		if len(seen) != 2 {
			t.Errorf("seen %v", seen)
		}
	}
	if bytes.Contains(want, []byte("secret")) {
		t.Error("something of an old secret is left")
	}
}

func TestReplaceRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		more  []File
		files []File
		want  string
	}{
		"no folder":        {nil, stamp("x", 1), "no folder kiln"},
		"a foreign file":   {[]File{{"kiln/notes", tree.Bytes("x")}}, stamp("x", 1), "kiln/notes does not belong there"},
		"a foreign folder": {[]File{{"kiln/x/", nil}}, stamp("x", 1), "kiln/x does not belong there"},
		"no space":         {[]File{{"kiln/", nil}}, stamp("x", 40<<20), "too little space"},
		"many files":       {[]File{{"kiln/", nil}}, []File{{strings.Repeat("n", 200), tree.Bytes("")}}, "first sector"},
	} {
		before := volumeWith(t, tc.more...)
		d := newOverlay(before)
		v, err := Open(d, 0, volumeSize)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Replace("kiln", tc.files); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(d.bytes(), before) {
			t.Errorf("%s: something was written", name)
		}
	}
	for name, b := range map[string][]byte{"zeros": make([]byte, volumeSize), "text": bytes.Repeat([]byte("text"), volumeSize/4)} {
		if _, err := Open(newOverlay(b), 0, volumeSize); err == nil || !strings.Contains(err.Error(), "no FAT32 file system") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReplace changes bytes of the boot sector, the FAT and the folders.
func FuzzReplace(f *testing.F) {
	base := volumeWith(f, File{"kiln/", nil})
	v, err := Open(newOverlay(base), 0, volumeSize)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(13), byte(1), uint16(0), byte(0), uint16(0), byte(0))
	f.Add(uint16(0), byte(0xeb), uint16(8), byte(2), uint16(26), byte(9))
	f.Fuzz(func(t *testing.T, at1 uint16, b1 byte, at2 uint16, b2 byte, at3 uint16, b3 byte) {
		d := newOverlay(base)
		for _, c := range []struct {
			at int64
			b  byte
		}{{int64(at1 % sector), b1}, {v.fatAt + int64(at2), b2}, {v.dataAt + int64(at3), b3}} {
			s := make([]byte, sector)
			_, _ = d.ReadAt(s, c.at/sector*sector)
			s[c.at%sector] = c.b
			d.sectors[c.at/sector] = s
		}
		v, err := Open(d, 0, volumeSize)
		if err != nil {
			return
		}
		if _, err := v.Replace("kiln", stamp("x", 5000)); err != nil {
			return
		}
		if got := readIn(t, d); len(got["config.ign"]) != 5000 {
			t.Errorf("reads back as %d bytes", len(got["config.ign"]))
		}
	})
}

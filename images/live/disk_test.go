package live

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
)

// TestDisk: a disk put together of its parts is the disk, wherever it is read.
func TestDisk(t *testing.T) {
	want := make([]byte, 10*piece+512)
	set := func(at, n int, c byte) {
		for i := range n {
			want[at+i] = c
		}
	}
	set(0, 100, 'a')
	set(piece-1, 2, 'b')
	set(3*piece, piece+4096, 'u') // known, and ends in a piece that goes on
	set(4*piece+4096, 10, 'c')
	set(6*piece, 4096, 'v')
	set(len(want)-1, 1, 'z')
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	known := []Part{{At: 3 * piece, Size: piece + 4096, File: UsrFile}, {At: 6 * piece, Size: 4096, File: VerityFile}}
	own := tree.New()
	if err := addDisk(t.Context(), own, src, known); err != nil {
		t.Fatal(err)
	}
	about, err := own.ReadFile(Dir + "/" + DiskFile)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := own.ReadFile(Dir + "/" + RestFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) >= 5*piece || bytes.ContainsAny(rest, "uv") {
		t.Errorf("the rest has %d bytes; want little, and nothing that is there already", len(rest))
	}
	d, err := ParseDisk(about)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.CheckRest(bytes.NewReader(rest)); err != nil {
		t.Error(err)
	}
	if err := d.CheckRest(bytes.NewReader(rest[1:])); err == nil || !strings.Contains(err.Error(), "not what was written") {
		t.Errorf("damaged: %v", err)
	}
	r := d.Reader(map[string]io.ReaderAt{
		UsrFile: bytes.NewReader(want[3*piece:]), VerityFile: bytes.NewReader(want[6*piece:]), RestFile: bytes.NewReader(rest),
	})
	for _, n := range []int{len(want), 1 << 20, piece, 4096 + 1, 1000} {
		for at := 0; at < len(want); at += n {
			b := bytes.Repeat([]byte{'x'}, n)
			end := min(at+n, len(want))
			got, err := r.ReadAt(b, int64(at))
			if got != end-at || !bytes.Equal(b[:got], want[at:end]) || (err == io.EOF) != (got < n) || err != nil && err != io.EOF {
				t.Fatalf("%d bytes at %d: %d, %v", n, at, got, err)
			}
			if zeros := len(bytes.Trim(want[at:end], "\x00")) == 0; !zeros && !d.Used(int64(at), int64(n)) {
				t.Errorf("%d bytes at %d are said to be zeros", n, at)
			}
		}
	}
	short := d.Reader(map[string]io.ReaderAt{UsrFile: strings.NewReader(""), VerityFile: strings.NewReader(""), RestFile: strings.NewReader("")})
	if _, err := short.ReadAt(make([]byte, 8), 0); err == nil || !strings.Contains(err.Error(), "rest at byte 0: unexpected EOF") {
		t.Errorf("a file that is too short: %v", err)
	}
}

// FuzzParseDisk: whatever it says, a disk is read without a panic, and has its size.
func FuzzParseDisk(f *testing.F) {
	f.Add([]byte(`{"bytes": 8192, "restSHA256": "", "parts": [{"at": 0, "bytes": 512, "file": "rest", "from": 0}, {"at": 4096, "bytes": 4096, "file": "usr", "from": 1}]}`))
	f.Add([]byte(`{"bytes": 1, "parts": [{"at": -1, "bytes": 9223372036854775807, "file": "usr"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDisk(b)
		if err != nil {
			return
		}
		r := d.Reader(map[string]io.ReaderAt{UsrFile: strings.NewReader("usr"), VerityFile: strings.NewReader(""), RestFile: strings.NewReader("rest")})
		for _, at := range []int64{0, d.Size - 1, d.Size, d.Size / 2} {
			if n, _ := r.ReadAt(make([]byte, 4096), at); at+int64(n) > d.Size {
				t.Errorf("%d bytes at %d of %d", n, at, d.Size)
			}
		}
	})
}

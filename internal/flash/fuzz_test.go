package flash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// FuzzOpen: what is no image is an error, and no more memory is used than a header
// may ask for.
func FuzzOpen(f *testing.F) {
	raw, err := os.ReadFile(image(f))
	if err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	head := raw[:2<<20]
	f.Add(head)
	f.Add(z.EncodeAll(head, nil))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04"))
	f.Add([]byte{})
	path := filepath.Join(f.TempDir(), "image")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		i, err := Open(path)
		if err != nil {
			return
		}
		defer i.Close()
		if i.Size < 1<<20 || i.Size > maxDisk {
			t.Errorf("a disk of %d bytes", i.Size)
		}
	})
}

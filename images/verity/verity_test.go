package verity

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/kiln-os/kiln/internal/testtools"
)

var (
	salt = [32]byte{1, 2, 3, 0xff}
	id   = uuid.MustParse("6b696c6e-0000-4000-8000-000000000001")
)

func content(blocks int) []byte {
	b := make([]byte, blocks*BlockSize)
	r := rand.NewChaCha8([32]byte{9})
	_, _ = r.Read(b)
	return b
}

var rootLine = regexp.MustCompile(`(?m)^Root hash:\s+([0-9a-f]{64})`)

// TestSameAsVeritysetup compares every byte with the reference tool's.
func TestSameAsVeritysetup(t *testing.T) {
	for _, blocks := range []int{1, 2, 127, 128, 129, 300, 128*128 + 1} {
		data := content(blocks)
		var got bytes.Buffer
		root, err := Write(context.Background(), bytes.NewReader(data), int64(len(data)), salt, id, &got)
		if err != nil {
			t.Fatal(err)
		}
		if int64(got.Len()) != HashAreaSize(int64(len(data))) {
			t.Errorf("%d blocks: wrote %d bytes, HashAreaSize says %d", blocks, got.Len(), HashAreaSize(int64(len(data))))
		}
		dir := t.TempDir()
		d, h := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
		if err := os.WriteFile(d, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := testtools.Command(t, "veritysetup", "format", "--salt", hexOf(salt[:]), "--uuid", id.String(), d, h).CombinedOutput()
		if err != nil {
			t.Fatalf("veritysetup: %v\n%s", err, out)
		}
		m := rootLine.FindSubmatch(out)
		if m == nil || string(m[1]) != hexOf(root[:]) {
			t.Errorf("%d blocks: root hash %x, veritysetup says\n%s", blocks, root, out)
		}
		want, err := os.ReadFile(h)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d blocks: the hash area differs from veritysetup's (%d and %d bytes)", blocks, got.Len(), len(want))
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestVerifyFindsEveryChange(t *testing.T) {
	data := content(300)
	var area bytes.Buffer
	root, err := Write(context.Background(), bytes.NewReader(data), int64(len(data)), salt, id, &area)
	if err != nil {
		t.Fatal(err)
	}
	check := func() error {
		return Verify(context.Background(), bytes.NewReader(data), int64(len(data)), bytes.NewReader(area.Bytes()), root)
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 4095, 100 * 4096, len(data) - 1} {
		data[at] ^= 1
		if err := check(); err == nil {
			t.Errorf("a changed byte of data at %d goes unnoticed", at)
		}
		data[at] ^= 1
	}
	for _, at := range []int{0, 4096, 3 * 4096} {
		area.Bytes()[at] ^= 1
		if err := check(); err == nil {
			t.Errorf("a changed byte of the hash area at %d goes unnoticed", at)
		}
		area.Bytes()[at] ^= 1
	}
}

func TestWriteRefusesOddSizesAndStops(t *testing.T) {
	for _, n := range []int64{0, -4096, 4095, 4097} {
		if _, err := Write(context.Background(), bytes.NewReader(nil), n, salt, id, &bytes.Buffer{}); err == nil {
			t.Errorf("%d bytes are accepted", n)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, bytes.NewReader(content(4)), 4*BlockSize, salt, id, &bytes.Buffer{}); err == nil {
		t.Error("a cancelled write succeeds")
	}
	if _, err := Write(context.Background(), bytes.NewReader(content(3)), 1<<20, salt, id, &bytes.Buffer{}); err == nil {
		t.Error("data that ends early is accepted")
	}
}

// FuzzSuperblock reads hash areas of unknown origin.
func FuzzSuperblock(f *testing.F) {
	f.Add(superblock(3, [32]byte{1}, uuid.UUID{2})[:superblockLen])
	f.Add([]byte("verity"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DataSize(bytes.NewReader(b))
		if err == nil && (n <= 0 || n%BlockSize != 0) {
			t.Errorf("%d bytes of data", n)
		}
		data := make([]byte, 3*BlockSize)
		if Verify(t.Context(), bytes.NewReader(data), int64(len(data)), bytes.NewReader(b), [32]byte{}) == nil {
			t.Error("it is taken for the tree of other data")
		}
	})
}

package sparse

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/kiln-os/kiln/internal/diskspace"
)

// sample is a file with holes at its beginning, between data, and at its end.
func sample(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sample")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 3<<20+777)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	err = Extend(f, 100<<20+5)
	for _, at := range []int64{10 << 20, 50<<20 + 4096} {
		_, e := f.WriteAt(data, at)
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestCopy(t *testing.T) {
	name := sample(t)
	src, dst := open(t, name), open(t, name+".copy")
	var told int64
	written, err := Copy(t.Context(), dst, src, func(n int64) { told += n })
	if err != nil {
		t.Fatal(err)
	}
	size, err := DataSize(src)
	if err != nil || told != size || written != 0 && written != size || size > 8<<20 {
		t.Errorf("%d bytes of data (%v), %d told, %d written", size, err, told, written)
	}
	a, _ := os.ReadFile(name)
	b, _ := os.ReadFile(name + ".copy")
	if !bytes.Equal(a, b) {
		t.Error("the copy differs")
	}
	if used := diskspace.Used(name + ".copy"); used == 0 && written > 0 || used > 8<<20 {
		t.Errorf("the copy takes %d bytes", used)
	}
}

func TestCopyIsCancelled(t *testing.T) {
	name := sample(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst := open(t, name+".copy")
	// A file system that shares blocks is done before it could be cancelled.
	if n, err := Copy(ctx, dst, open(t, name), nil); err == nil && n > 0 || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestDigest(t *testing.T) {
	name := sample(t)
	digest := func(name string) string {
		t.Helper()
		d, err := Digest(name)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	want := digest(name)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// The same bytes without holes have the same digest.
	dense := name + ".dense"
	if err := os.WriteFile(dense, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := digest(dense); got != want {
		t.Errorf("without holes %s, with holes %s", got, want)
	}
	for what, holes := range map[string]bool{name: true, dense: false} {
		if got, err := HasHoles(open(t, what)); err != nil || got != holes {
			t.Errorf("%s has holes: %v, %v", what, got, err)
		}
	}
	for what, change := range map[string]func(*os.File) error{
		"a byte of data":   func(f *os.File) error { _, err := f.WriteAt([]byte{b[10<<20] + 1}, 10<<20); return err },
		"a byte in a hole": func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 90<<20); return err },
		"the size":         func(f *os.File) error { return f.Truncate(101 << 20) },
		"zeros for data":   func(f *os.File) error { _, err := f.WriteAt(make([]byte, 4<<20), 10<<20); return err },
	} {
		changed := filepath.Join(t.TempDir(), "changed")
		f := open(t, changed)
		if _, err := Copy(t.Context(), f, open(t, name), nil); err != nil {
			t.Fatal(err)
		}
		if err := change(f); err != nil {
			t.Fatal(err)
		}
		if digest(changed) == want {
			t.Errorf("%s changed, and the digest did not", what)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	open(t, empty)
	if digest(empty) == want {
		t.Error("an empty file has the same digest")
	}
}

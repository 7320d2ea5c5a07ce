package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFailedWriteLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := Write(path, 0o644, func(f *os.File) error {
		_, _ = f.WriteString("half")
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("error %v does not keep its cause", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("file now holds %q", b)
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 1 {
		t.Errorf("temporary files are left: %v", names)
	}
	st, _ := os.Stat(path)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	keep := []string{".hidden", ".x.tmp-", "a.tmp-12", "f"}
	for _, name := range append([]string{".f.tmp-123", ".a.b.tmp-0"}, keep...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What Write makes is what Sweep knows.
	if err := Write(filepath.Join(dir, "g"), 0o600, func(f *os.File) error {
		if !temporary.MatchString(filepath.Base(f.Name())) {
			t.Errorf("Write uses %s", f.Name())
		}
		return errors.New("stop")
	}); err == nil {
		t.Error("no error")
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	var left []string
	names, _ := os.ReadDir(dir)
	for _, e := range names {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, keep) {
		t.Errorf("left %q, want %q", left, keep)
	}
	if err := Sweep(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing folder is swept")
	}
}

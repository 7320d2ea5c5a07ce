package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestLocks: two openings of a file stand for two processes.
func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	a, b := open(t, path), open(t, path)
	if err := TryExclusive(a); err != nil {
		t.Fatal(err)
	}
	if _, err := a.WriteString("a"); err != nil {
		t.Fatal(err)
	}
	if err := TryExclusive(b); !errors.Is(err, ErrLocked) {
		t.Errorf("held: %v", err)
	}
	if c, err := os.ReadFile(path); err != nil || string(c) != "a" {
		t.Errorf("content %q, %v", c, err)
	}
	if err := Downgrade(a); err != nil {
		t.Fatal(err)
	}
	if err := Shared(b); err != nil {
		t.Errorf("shared: %v", err)
	}
	if err := TryExclusive(open(t, path)); !errors.Is(err, ErrLocked) {
		t.Errorf("shared by two: %v", err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if err := TryExclusive(open(t, path)); err != nil {
		t.Errorf("closed: %v", err)
	}
}

func TestDir(t *testing.T) {
	dir := t.TempDir()
	first, err := Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error)
	go func() {
		f, err := Dir(dir)
		if err == nil {
			err = f.Close()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("both hold it: %v", err)
	default:
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if _, err := Dir(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

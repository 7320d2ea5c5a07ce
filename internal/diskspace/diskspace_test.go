package diskspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	full := &os.PathError{Op: "write", Path: path + ".tmp", Err: syscall.ENOSPC}
	for _, err := range []error{full, fmt.Errorf("go build: exit status 1\nwrite x: no space left on device"), errors.New("FATAL: No space left on device")} {
		got := Explain(err, path, 20<<20, false)
		var f *FullError
		if !errors.As(got, &f) || f.Free <= 0 {
			t.Fatalf("%v became %v", err, got)
		}
		for _, want := range []string{path, "more than 20 MiB needed", "free", "another disk"} {
			if !strings.Contains(got.Error(), want) {
				t.Errorf("%q does not say %q", got, want)
			}
		}
		if again := Explain(fmt.Errorf("a: %w", got), "elsewhere", 1, true); strings.Contains(again.Error(), "elsewhere") {
			t.Errorf("explained twice: %v", again)
		}
	}
	if got := Explain(full, path, 1, true); !errors.Is(got, syscall.ENOSPC) {
		t.Errorf("%v lost its cause", got)
	}
	other := errors.New("other")
	if got := Explain(other, path, 1, true); got != other {
		t.Errorf("%v became %v", other, got)
	}
	if err := Explain(nil, path, 1, true); err != nil {
		t.Error(err)
	}
}

func TestRequire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Require(path, 1); err != nil {
		t.Error(err)
	}
	if err := Require(path, 1<<60); !errors.As(err, new(*FullError)) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	if err := Require("/no/such/folder/f", 1); err == nil {
		t.Error("the free space of nothing is known")
	}
}

func TestUsed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := Used(dir); n < 1<<20 || n > 2<<20 {
		t.Errorf("%d bytes", n)
	}
	if n := Used(filepath.Join(dir, "none")); n != 0 {
		t.Errorf("nothing has %d bytes", n)
	}
}

package squashfs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

func sample() *tree.Tree {
	t := tree.New()
	t.AddFile("bin/su", 0o4755, []byte("hello"))
	t.Set("bin/hard", &tree.Entry{Type: tree.Hardlink, Link: "bin/su"})
	t.AddSymlink("bin/soft", "su")
	t.Set("bin/group", &tree.Entry{Type: tree.File, Mode: 0o2755, UID: 5, GID: 993, Content: tree.Bytes("g")})
	t.Set("dev/null", &tree.Entry{Type: tree.CharDev, Mode: 0o666, Major: 1, Minor: 3})
	t.Set("bin/attr", &tree.Entry{Type: tree.File, Mode: 0o755, Content: tree.Bytes("x"), Xattrs: map[string]string{"user.k": "v"}})
	t.AddFile("big", 0o644, bytes.Repeat([]byte("0123456789abcdef"), 100_000))
	return t
}

func mksquashfs(t *testing.T) func(context.Context, ...string) (*exec.Cmd, error) {
	return func(_ context.Context, args ...string) (*exec.Cmd, error) {
		return testtools.Command(t, "mksquashfs", args...), nil
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	mtime := time.Unix(1700000000, 0)
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	for _, f := range []string{a, b} {
		if err := Write(context.Background(), mksquashfs(t), sample(), f, mtime, Options{"zstd", 3}); err != nil {
			t.Fatal(err)
		}
	}
	x, _ := os.ReadFile(a)
	y, _ := os.ReadFile(b)
	if len(x) == 0 || !bytes.Equal(x, y) {
		t.Error("two writes differ")
	}
	out, err := testtools.Command(t, "unsquashfs", "-UTC", "-lln", a).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	list := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		"drwxr-xr-x 0/0", "-rwsr-xr-x 0/0 5 2023-11-14 22:13 squashfs-root/bin/su",
		"-rwxr-sr-x 5/993", "crw-rw-rw- 0/0 1, 3", "bin/soft -> su", "squashfs-root/bin/hard",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("unsquashfs does not list %q:\n%s", want, out)
		}
	}
	got, err := testtools.Command(t, "unsquashfs", "-cat", a, "bin/hard").Output()
	if err != nil || string(got) != "hello" {
		t.Errorf("the hard link holds %q, %v", got, err)
	}
}

func TestErrorsKeepTheOutput(t *testing.T) {
	err := Write(context.Background(), mksquashfs(t), sample(), filepath.Join(t.TempDir(), "x"), time.Unix(0, 0), Options{"none-such", 3})
	if err == nil || !strings.Contains(err.Error(), "none-such") {
		t.Errorf("error %v", err)
	}
}

package squashfs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

func load(dir string) *tree.Tree {
	t := tree.New()
	seen := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil { return err }
		rel, _ := filepath.Rel(dir, p)
		if rel == "." { return nil }
		fi, err := d.Info()
		if err != nil { return err }
		st := fi.Sys().(*syscall.Stat_t)
		e := &tree.Entry{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
		switch {
		case fi.Mode().IsRegular():
			if st.Nlink > 1 {
				if o, ok := seen[st.Ino]; ok { t.Set(rel, &tree.Entry{Type: tree.Hardlink, Link: o}); return nil }
				seen[st.Ino] = rel
			}
			e.Content = tree.HostFile{Path: p, Len: fi.Size()}
		case fi.IsDir(): e.Type = tree.Dir
		case fi.Mode()&fs.ModeSymlink != 0: e.Type = tree.Symlink; e.Link, _ = os.Readlink(p)
		default: return fmt.Errorf("%s", p)
		}
		t.Set(rel, e)
		return nil
	})
	if err != nil { panic(err) }
	return t
}

func mk(t testing.TB, tr *tree.Tree, out string, level int, procs int) {
	var buf bytes.Buffer
	cmd := testtools.Command(t, "mksquashfs", "-", out, "-tar", "-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", strconv.Itoa(level), "-b", "262144", "-no-exports", "-processors", strconv.Itoa(procs))
	cmd.Stdout, cmd.Stderr = &buf, &buf
	in, _ := cmd.StdinPipe()
	if err := cmd.Start(); err != nil { t.Fatal(err) }
	if err := tr.WriteTar(in, time.Unix(1700000000, 0)); err != nil { t.Fatal(err) }
	in.Close()
	if err := cmd.Wait(); err != nil { t.Fatal(err, buf.String()) }
}

func size(p string) int64 { st, _ := os.Stat(p); return st.Size() }

func TestProf(t *testing.T) {
	tr := load(os.Getenv("REALTREE"))
	dir := t.TempDir()
	for range 3 {
		s := time.Now()
		if err := Write(context.Background(), tr, dir+"/a", time.Unix(1700000000, 0), Options{zstd.SpeedDefault}); err != nil { t.Fatal(err) }
		fmt.Println("go", size(dir+"/a"), time.Since(s))
		s = time.Now()
		mk(t, tr, dir+"/b", 3, runtime.GOMAXPROCS(0))
		fmt.Println("mksquashfs", size(dir+"/b"), time.Since(s))
	}
}

func TestScratch(t *testing.T) {
	tr := load(os.Getenv("REALTREE"))
	dir := t.TempDir()
	for range 2 {
		for _, lv := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression} {
			s := time.Now()
			var a, b syscall.Rusage
			syscall.Getrusage(0, &a)
			if err := Write(context.Background(), tr, dir+"/a", time.Unix(1700000000, 0), Options{lv}); err != nil { t.Fatal(err) }
			syscall.Getrusage(0, &b)
			fmt.Println(lv, size(dir+"/a"), time.Since(s), "cpu", b.Utime.Sec-a.Utime.Sec+b.Stime.Sec-a.Stime.Sec)
		}
		s := time.Now()
		mk(t, tr, dir+"/b", 3, runtime.GOMAXPROCS(0))
		fmt.Println("mksquashfs", size(dir+"/b"), time.Since(s))
	}
	os.Rename(dir+"/a", "/tmp/sq/a.squashfs")
}

package squashfs

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

var (
	mtime   = time.Unix(1700000000, 0)
	options = Options{Level: zstd.SpeedBetterCompression}
)

// random returns n bytes that do not compress.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// sample has an entry for every case of the format.
func sample() *tree.Tree {
	t := tree.New()
	t.AddFile("bin/su", 0o4755, []byte("hello"))
	t.Set("bin/hard", &tree.Entry{Type: tree.Hardlink, Link: "bin/su"})
	t.Set("a-link-before-its-file", &tree.Entry{Type: tree.Hardlink, Link: "sizes/3"})
	t.AddSymlink("bin/soft", "su")
	t.AddSymlink("long", strings.Repeat("x/", 2000))
	t.Set("bin/group", &tree.Entry{Type: tree.File, Mode: 0o2755, UID: 5, GID: 993, Content: tree.Bytes("g")})
	t.Set("tmp", &tree.Entry{Type: tree.Dir, Mode: 0o1777, UID: 65534, GID: 65534})
	t.Set("dev/null", &tree.Entry{Type: tree.CharDev, Mode: 0o666, Major: 1, Minor: 3})
	t.Set("dev/loop300", &tree.Entry{Type: tree.BlockDev, Mode: 0o660, GID: 6, Major: 7, Minor: 300})
	t.Set("dev/initctl", &tree.Entry{Type: tree.Fifo, Mode: 0o600})
	// Extended attributes of every kind of inode; two entries share a set.
	caps := map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	t.Set("bin/ping", &tree.Entry{Type: tree.File, Mode: 0o755, Content: tree.Bytes("x"), Xattrs: caps})
	t.Set("bin/arping", &tree.Entry{Type: tree.File, Mode: 0o755, Content: tree.Bytes("y"), Xattrs: caps})
	user := map[string]string{"user.k": "v", "user.long": strings.Repeat("v", 40_000), "trusted.t": ""}
	t.Set("attr/dir", &tree.Entry{Type: tree.Dir, Mode: 0o700, Xattrs: user})
	t.Set("attr/file", &tree.Entry{Type: tree.File, Mode: 0o644, Content: tree.Bytes(""), Xattrs: user})
	// Sizes around a block, of text, of noise and of nothing but zeros.
	for _, n := range []int{0, 1, 3, blockSize - 1, blockSize, blockSize + 1, 3*blockSize + 7} {
		t.AddFile(fmt.Sprintf("sizes/%d", n), 0o644, bytes.Repeat([]byte("kiln "), n/5+1)[:n])
		t.AddFile(fmt.Sprintf("noise/%d", n), 0o644, random(byte(n), n))
		t.AddFile(fmt.Sprintf("zeros/%d", n), 0o644, make([]byte, n))
	}
	t.AddFile("sparse", 0o644, slices.Concat(random(1, blockSize), make([]byte, 2*blockSize), random(2, 99)))
	t.AddFile("copies/1", 0o600, random(3, 2*blockSize+9))
	t.AddFile("copies/2", 0o644, random(3, 2*blockSize+9))
	// A folder with an index, whose inodes and listing take many metadata blocks.
	for i := range 5000 {
		t.AddFile(fmt.Sprintf("many/%05d-%s", i, strings.Repeat("n", i%100)), 0o644, []byte{byte(i), byte(i >> 8)})
	}
	t.AddDir("empty/a/b/c", 0o755)
	return t
}

func pack(t testing.TB, tr *tree.Tree) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	if err := Write(t.Context(), tr, out, mtime, options); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestUnpackAndCompare packs every case of the format and reads it back with both
// reference implementations (unsquashfs lists minor numbers of one byte only): the tar that sqfs2tar makes of the image is that of the
// tree, and what unsquashfs unpacks and lists is the tree.
func TestUnpackAndCompare(t *testing.T) {
	tr := sample()
	img := pack(t, tr)
	compareTar(t, tr, img)

	out, err := testtools.Command(t, "unsquashfs", "-UTC", "-lln", img).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	list := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		"drwxr-xr-x 0/0", "-rwsr-xr-x 0/0 5 2023-11-14 22:13 squashfs-root/bin/su",
		"-rwxr-sr-x 5/993", "drwxrwxrwt 65534/65534", "crw-rw-rw- 0/0 1, 3", "prw------- 0/0", "bin/soft -> su", "squashfs-root/bin/hard",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("unsquashfs does not list %q:\n%.3000s", want, out)
		}
	}

	// Devices, owners and trusted attributes need root to unpack.
	dir := filepath.Join(t.TempDir(), "root")
	if out, err := testtools.Command(t, "unsquashfs", "-q", "-n", "-no-xattrs", "-excludes", "-d", dir, img, "dev").CombinedOutput(); err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	files := 0
	if err := tr.Walk(func(p string, e *tree.Entry) error {
		if e.Type != tree.File {
			return nil
		}
		files++
		got, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		if want := read(t, e.Content); !bytes.Equal(got, want) {
			return fmt.Errorf("%s: unsquashfs gives %d bytes that are not the %d of the tree", p, len(got), len(want))
		}
		return nil
	}); err != nil || files < 5000 {
		t.Errorf("%d files compared: %v", files, err)
	}
}

// entry is what an archive says of a path.
type entry struct {
	kind         byte
	mode         int64
	uid, gid     int
	link         string
	major, minor int64
	mtime        int64
	content      [sha256.Size]byte
	xattrs       string
}

// compareTar compares an image, as sqfs2tar unpacks it, with its tree.
func compareTar(t *testing.T, tr *tree.Tree, img string) {
	t.Helper()
	const xattr = "SCHILY.xattr."
	cmd := testtools.Command(t, "sqfs2tar", img)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("sqfs2tar: %v\n%s", err, stderr.String())
	}
	got, groups := map[string]entry{}, map[string]string{}
	for r := tar.NewReader(&stdout); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		e := entry{kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, link: h.Linkname, major: h.Devmajor, minor: h.Devminor, mtime: h.ModTime.Unix()}
		if h.Typeflag == tar.TypeReg {
			s := sha256.New()
			if _, err := io.Copy(s, r); err != nil {
				t.Fatal(err)
			}
			s.Sum(e.content[:0])
		}
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if name, ok := strings.CutPrefix(k, xattr); ok {
				e.xattrs += fmt.Sprintf("%s=%q ", name, h.PAXRecords[k])
			}
		}
		p := tree.Clean(h.Name)
		if h.Typeflag == tar.TypeLink {
			groups[p] = tree.Clean(h.Linkname)
			continue
		}
		got[p] = e
	}
	delete(got, ".")

	links := 0
	if err := tr.Walk(func(p string, e *tree.Entry) error {
		if e.Type == tree.Hardlink {
			links++
			// Which of the names is the file is the reader's choice.
			if groups[p] != tree.Clean(e.Link) && groups[tree.Clean(e.Link)] != p {
				t.Errorf("%s is a hard link to %s in the tree, and not in the image", p, e.Link)
			}
			return nil
		}
		g, ok := got[p]
		if !ok && groups[p] != "" {
			g, ok = got[groups[p]], true
			delete(got, groups[p])
		}
		delete(got, p)
		if want := entryOf(t, e); !ok || g != want {
			t.Errorf("%s:\nimage %+v\ntree  %+v", p, g, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) > 0 || links != len(groups) {
		t.Errorf("%d entries of the image are not in the tree; %d hard links, want %d", len(got), len(groups), links)
	}
}

func entryOf(t *testing.T, e *tree.Entry) entry {
	w := entry{mode: int64(e.Mode), uid: e.UID, gid: e.GID, link: e.Link, major: int64(e.Major), minor: int64(e.Minor), mtime: mtime.Unix()}
	switch e.Type {
	case tree.File:
		w.kind = tar.TypeReg
		w.content = sha256.Sum256(read(t, e.Content))
	case tree.Dir:
		w.kind = tar.TypeDir
	case tree.Symlink:
		w.kind, w.mode = tar.TypeSymlink, 0o777
	case tree.CharDev:
		w.kind = tar.TypeChar
	case tree.BlockDev:
		w.kind = tar.TypeBlock
	default:
		w.kind = tar.TypeFifo
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		w.xattrs += fmt.Sprintf("%s=%q ", k, e.Xattrs[k])
	}
	return w
}

func read(t testing.TB, c tree.Content) []byte {
	t.Helper()
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden holds the bytes: an image may not differ between hosts, processors,
// numbers of them, or versions of the compressor that nobody has looked at.
func TestGolden(t *testing.T) {
	const want = "cc924409c1a91073b323ca7bda69958f5732900e9299a9110ea58fce93f62a94"
	for _, procs := range []int{1, 2, 7} {
		old := runtime.GOMAXPROCS(procs)
		raw, err := os.ReadFile(pack(t, sample()))
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw)%padding != 0 {
			t.Errorf("%d bytes are no multiple of %d", len(raw), padding)
		}
		sum := sha256.Sum256(raw)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("with %d processors: %s, want %s", procs, got, want)
		}
	}
}

// TestStoredOnce makes sure that equal files and zeros take no space.
func TestStoredOnce(t *testing.T) {
	size := func(tr *tree.Tree) int64 {
		st, err := os.Stat(pack(t, tr))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	one, two := tree.New(), tree.New()
	one.AddFile("a", 0o644, random(1, 3<<20))
	two.AddFile("a", 0o644, random(1, 3<<20))
	two.AddFile("b", 0o644, random(1, 3<<20))
	two.AddFile("c", 0o644, make([]byte, 3<<20))
	if a, b := size(one), size(two); a != b {
		t.Errorf("a file has %d bytes, with a copy and as many zeros %d", a, b)
	}
}

// lying has another size than it says.
type lying struct {
	tree.Bytes
	size int64
}

func (l lying) Size() int64 { return l.size }

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		entry *tree.Entry
		want  string
	}{
		"ends early":   {&tree.Entry{Content: lying{tree.Bytes("abc"), 4}}, "x: its content ends after 3 bytes, expected 4"},
		"goes on":      {&tree.Entry{Content: lying{tree.Bytes("abc"), 2}}, "x: its content goes on after the expected 2 bytes"},
		"no content":   {&tree.Entry{}, "x: a regular file without content"},
		"mode":         {&tree.Entry{Mode: 0o100644, Content: tree.Bytes("")}, "x: mode 0100644"},
		"owner":        {&tree.Entry{UID: -1, Content: tree.Bytes("")}, "x: owner or group -1"},
		"attribute":    {&tree.Entry{Content: tree.Bytes(""), Xattrs: map[string]string{"system.posix_acl_access": "x"}}, `x: extended attribute "system.posix_acl_access"`},
		"target":       {&tree.Entry{Type: tree.Symlink}, "x: symbolic link"},
		"device":       {&tree.Entry{Type: tree.CharDev, Major: 4096}, "x: device 4096,0"},
		"hard link":    {&tree.Entry{Type: tree.Hardlink, Link: "y"}, "x: hard link to y: no regular file"},
		"unknown type": {&tree.Entry{Type: 99}, "x: unknown entry type 99"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, out := tree.New(), filepath.Join(t.TempDir(), "image")
			tr.Set("x", c.entry)
			err := Write(t.Context(), tr, out, mtime, options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a failed image is still there: %v", err)
			}
		})
	}
	if err := Write(t.Context(), tree.New(), filepath.Join(t.TempDir(), "x"), mtime, Options{Level: zstd.SpeedBestCompression}); err == nil {
		t.Error("a level whose bytes depend on the processor is taken")
	}
	if err := Write(t.Context(), tree.New(), filepath.Join(t.TempDir(), "x"), time.Unix(-1, 0), options); err == nil {
		t.Error("a time before 1970 is taken")
	}
}

// cancelling ends the work that reads it.
type cancelling struct {
	tree.Bytes
	cancel context.CancelFunc
}

func (c cancelling) Open() (io.ReadCloser, error) {
	c.cancel()
	return c.Bytes.Open()
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tr, out := sample(), filepath.Join(t.TempDir(), "image")
	tr.Set("sizes/cancel", &tree.Entry{Content: cancelling{random(1, 3*blockSize), cancel}})
	if err := Write(ctx, tr, out, mtime, options); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cancelled image is still there: %v", err)
	}
}

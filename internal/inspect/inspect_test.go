package inspect_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/inspect"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const usrOffset = (1 + 34) << 20 // of a test image

// image makes the image of a node with the given Ignition config.
func image(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := nodeimagetest.WriteBase(dir, 1); err != nil {
		t.Fatal(err)
	}
	b, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "node.img")
	if config == "" {
		if err := os.Rename(b.Image, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := b.Create(t.Context(), path, nodeimage.Identity{Node: "n", Profile: nodeimagetest.Profile, Config: secret.FromString(config)}, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func look(t *testing.T, path string) *inspect.Report {
	t.Helper()
	r, err := inspect.Image(t.Context(), path, inspect.Options{Verify: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// change changes an image's bytes from an offset on; a negative one counts from the end.
func change(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err == nil && at < 0 {
		at += st.Size()
	}
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

const emptyConfig = `{"ignition":{"version":"3.3.0"}}`

// TestBooted: the first boot makes the state partition; the stamp may be there or not.
func TestBooted(t *testing.T) {
	for _, config := range []string{"", emptyConfig} {
		path := image(t, config)
		st, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, st.Size()+64<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		state := nodeimage.IDsOf(nodeimagetest.Profile).State.String()
		args := []string{"-e", "-n", "9:0:+16M", "-t", "9:4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "-c", "9:kiln-state", "-u", "9:" + state, path}
		if out, err := testtools.Command(t, "sgdisk", args...).CombinedOutput(); err != nil {
			t.Fatalf("sgdisk: %v\n%s", err, out)
		}
		r := look(t, path)
		last := r.Partitions[len(r.Partitions)-1]
		if r.State != inspect.StateBooted || (r.Node != nil) != (config != "") || last.Name != "kiln-state" || last.Type != "root x86-64" || last.UUID.String() != state {
			t.Errorf("%+v", r)
		}
	}
}

// TestDamaged: each damage is a problem, and what is whole is reported all the same.
func TestDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		at    int64
		bytes string
		want  string
		check inspect.Check
	}{
		"/usr":            {usrOffset + 70_000, "x", "/usr is not what was built: verity: the data's root hash is", inspect.CheckDamaged},
		"hash tree":       {usrOffset + 9<<20 + 5000, "x", "/usr is not what was built: verity: level", inspect.CheckDamaged},
		"superblock":      {usrOffset + 9<<20, "x", "verity: no superblock", inspect.CheckDamaged},
		"too much data":   {usrOffset + 9<<20 + 72 + 3, "x", "which do not fit the partitions", inspect.CheckDamaged},
		"boot partition":  {1<<20 + 510, "x", "boot partition: is no FAT32 file system", ""},
		"partition table": {512 + 20, "x", "the partition table at the beginning is damaged", inspect.CheckIntact},
	} {
		path := image(t, "")
		change(t, path, c.at, []byte(c.bytes))
		r := look(t, path)
		if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], c.want) {
			t.Errorf("%s: problems %q, want %q", name, r.Problems, c.want)
		}
		if len(r.Partitions) != 3 || c.check != "" && (r.Systems[0].Usr.Check != c.check || r.Systems[0].Kiln != "v0.0.1" || r.Systems[0].Kernel != "6.12") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestGRUB: what a machine with Open Firmware starts is reported like a unified kernel
// image, and GRUB itself is looked at.
func TestGRUB(t *testing.T) {
	path := func() string {
		dir := t.TempDir()
		if err := nodeimagetest.WriteBaseFor(dir, "qemu-ppc64le", 1); err != nil {
			t.Fatal(err)
		}
		b, err := nodeimage.LoadBase(dir)
		if err != nil {
			t.Fatal(err)
		}
		return b.Image
	}
	whole := path()
	r := look(t, whole)
	if len(r.Problems) > 0 || len(r.Partitions) != 4 || r.Partitions[0].Type != "PReP boot" || r.Partitions[1].Name != "kiln-esp" || len(r.Systems) != 1 {
		t.Fatalf("%+v", r)
	}
	if s := r.Systems[0]; s.Boot != "linux/kiln-a" || s.Kernel != "6.12" || s.Kiln != "v0.0.1" || s.Usr.Check != inspect.CheckIntact {
		t.Errorf("%+v", s)
	}
	change(t, whole, 1<<20, []byte("x"))
	if r := look(t, whole); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "partition kiln-prep: core image") || r.Systems[0].Usr.Check != inspect.CheckIntact {
		t.Errorf("without GRUB: %q", r.Problems)
	}
	other := path()
	b, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	change(t, other, int64(strings.Index(string(b[:9<<20]), nodeimage.GRUBPrefix)), []byte("(,gpt3)"))
	if r := look(t, other); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "looks for its configuration at (,gpt3)/grub") {
		t.Errorf("GRUB of another disk: %q", r.Problems)
	}
}

func TestVerifyIsOptional(t *testing.T) {
	path := image(t, "")
	change(t, path, usrOffset+70_000, []byte("x"))
	r, err := inspect.Image(t.Context(), path, inspect.Options{})
	if err != nil || len(r.Problems) > 0 || r.Systems[0].Usr.Check != inspect.CheckSkipped || r.Systems[0].Payload == nil {
		t.Errorf("%+v, %v", r, err)
	}
	var done int64
	if _, err := inspect.Image(t.Context(), image(t, ""), inspect.Options{Verify: true, Bytes: func(n, total int64) { done = max(done, n) }}); err != nil || done < 1<<20 {
		t.Errorf("%d bytes are told, %v", done, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inspect.Image(ctx, path, inspect.Options{Verify: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestStampsThatSayLittle(t *testing.T) {
	for config, want := range map[string]string{
		`{"ignition":{"version":"9.0.0"},"password":"secret"}`: "the stamp's config is not one that this version",
		`secret`:    "the stamp's config is not one that this version",
		emptyConfig: "the stamp has no /etc/kiln/boot.yaml",
		`{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/kiln/boot.yaml","contents":{"source":"data:,secret"}}]}}`:                     "boot plan",
		`{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/x","contents":{"source":"data:,secret","compression":"gzip"}}]}}`:             "the stamp's file /etc/x: it is not compressed by gzip",
		`{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/kiln/x","contents":{"source":"https://user:secret@example.org/x"}}]}}`:        "the stamp has no /etc/kiln/boot.yaml",
		`{"ignition":{"version":"3.3.0","config":{"merge":[{"source":"data:,secret"}]}},"storage":{"files":[{"path":"/a","contents":{"source":"!!"}}]}}`: "not one that this version",
	} {
		r := look(t, image(t, config))
		if len(r.Problems) == 0 || !strings.Contains(strings.Join(r.Problems, "\n"), want) || r.State != inspect.StateStamped {
			t.Errorf("%s: problems %q, want %q", config, r.Problems, want)
		}
		all, err := json.Marshal(r)
		if err != nil || strings.Contains(string(all), "secret@") || strings.Contains(string(all), ",secret") {
			t.Errorf("%s, %v", all, err)
		}
		if strings.Contains(config, "https") && !slices.Equal(r.Node.Elsewhere, []string{"the content of a file"}) {
			t.Errorf("node %+v", r.Node)
		}
	}
}

func TestNoImage(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	foreign := file("foreign", make([]byte, 64<<20))
	if out, err := testtools.Command(t, "sgdisk", "-n", "1:0:0", "-t", "1:ef00", "-c", "1:kiln-esp", foreign).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	for path, want := range map[string]string{
		file("empty", nil): "no Kiln image", file("zeros", make([]byte, 8<<20)): "no Kiln image", dir: "", filepath.Join(dir, "absent"): "no such file",
		file("qcow2", append([]byte("QFI\xfb"), 0)): "qemu-img convert", foreign: "a profile that this version of imagegen does not have",
	} {
		if _, err := inspect.Image(t.Context(), path, inspect.Options{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestReadOnly: the image has the same bytes afterwards, and may have no write permission.
func TestReadOnly(t *testing.T) {
	path := image(t, emptyConfig)
	digest := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(b))
	}
	before := digest()
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	look(t, path)
	if digest() != before {
		t.Error("the image was changed")
	}
}

package nodeimage_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/profiles"
)

// TestPReP: the image of a machine with Open Firmware has GRUB in a partition of its own,
// which a stamp leaves alone.
func TestPReP(t *testing.T) {
	const profile = "qemu-ppc64le"
	dir := t.TempDir()
	if err := nodeimagetest.WriteBaseFor(dir, profile, 1); err != nil {
		t.Fatal(err)
	}
	b, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "node.img")
	id := nodeimage.Identity{Node: "n", Profile: profile, Config: secret.FromString(`{"ignition":{"version":"3.3.0"}}`)}
	if _, err := b.Create(t.Context(), path, id, nil); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := disk.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := nodeimage.CheckPReP(f, table); err != nil {
		t.Error(err)
	}
	core := make([]byte, 5)
	if p := table.Partitions[0]; p.Type != disk.PRePType || p.Name != "kiln-prep" || p.Size != 8<<20 {
		t.Errorf("first partition %+v", p)
	} else if _, err := f.ReadAt(core, p.Offset); err != nil || !bytes.Equal(core, []byte("\x7fELF\x01")) {
		t.Errorf("it begins with %q, %v", core, err)
	}
	if out, err := testtools.Command(t, "sgdisk", "-v", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	table.Partitions = table.Partitions[1:]
	if err := nodeimage.CheckPReP(f, table); err == nil || !strings.Contains(err.Error(), "no PReP partition") {
		t.Errorf("without it: %v", err)
	}
}

// TestPRePMistakes: a boot loader that does not fit, or that a profile has no place for,
// is no base image.
func TestPRePMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		profile string
		core    []byte
	}{
		"none": {"qemu-ppc64le", nil}, "too large": {"qemu-ppc64le", make([]byte, 8<<20+1)}, "no place": {"qemu-amd64", []byte("core")},
	} {
		dir := t.TempDir()
		p, err := profiles.Load(c.profile)
		if err != nil {
			t.Fatal(err)
		}
		a, err := arch.Get(p.Arch)
		if err != nil {
			t.Fatal(err)
		}
		usr := filepath.Join(dir, "usr")
		if err := os.WriteFile(usr, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		err = nodeimage.WriteBase(context.Background(), dir, nodeimage.Parts{Profile: p, Arch: a, Usr: usr, Verity: usr, Boot: nodeimage.Boot{PReP: c.core}})
		if err == nil || !strings.Contains(err.Error(), "the boot loader has") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

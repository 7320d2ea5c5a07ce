package grub

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/kiln-os/kiln/internal/testtools"
)

// TestAgainstGRUB compares the core image with that of grub-mkimage, byte by byte, and has
// GRUB judge what it is to run.
func TestAgainstGRUB(t *testing.T) {
	files, dir := packageFiles(), t.TempDir()
	for _, p := range files.Paths() {
		if filepath.Dir(p) != Folder {
			continue
		}
		b, err := files.ReadFile(p)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(p)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const prefix = "(,gpt2)/grub"
	got, err := FromPackage(files, prefix)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "core")
	args := append([]string{"--note", "--format=powerpc-ieee1275", "--directory=" + dir, "--prefix=" + prefix, "--output=" + out}, modules...)
	if text, err := testtools.Command(t, "grub-mkimage", args...).CombinedOutput(); err != nil {
		t.Fatalf("grub-mkimage: %v\n%s", err, text)
	}
	want, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("core image of %d bytes, grub-mkimage's has %d, and they are not the same", len(got), len(want))
	}
	if p, err := ReadPrefix(bytes.NewReader(want)); err != nil || p != prefix {
		t.Errorf("prefix of grub-mkimage's image: %q, %v", p, err)
	}
	check := filepath.Join(t.TempDir(), "grub.cfg")
	if err := os.WriteFile(check, []byte(config()+wantEntry), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := testtools.Command(t, "grub-script-check", check).CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v\n%s", err, text)
	}
}

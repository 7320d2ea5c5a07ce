package grub

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/uki"
)

func system() uki.Sections {
	return uki.Sections{
		OSRel: []byte("ID=kiln\n"), Cmdline: []byte("root=PARTUUID=1-2 rw usrhash=ab a{b}$c console=hvc0"), Uname: []byte("6.12"),
		Initrd: bytes.Repeat([]byte("i"), 5000), Linux: bytes.Repeat([]byte("k"), 9001),
	}
}

const wantEntry = `menuentry kiln-a --id kiln-a {
	linux /linux/kiln-a/vmlinux root=PARTUUID=1-2 rw usrhash=ab 'a{b}$c' console=hvc0
	initrd /linux/kiln-a/initrd.img
}
`

// volume is a boot partition with files.
func volume(t *testing.T, files []esp.File) *esp.Volume {
	t.Helper()
	const size = 34 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = esp.Write(f, 0, size, esp.Options{Label: "KILN", Time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)}, files)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	v, err := esp.Open(f, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFiles(t *testing.T) {
	files, err := Files("kiln-a", system())
	if err != nil {
		t.Fatal(err)
	}
	v := volume(t, files)
	got, _, err := v.Read("linux/kiln-a")
	if err != nil || string(got["boot.cfg"]) != wantEntry || len(got["vmlinux"]) != 9001 || len(got["initrd.img"]) != 5000 {
		t.Errorf("%s, %v", got["boot.cfg"], err)
	}
	s, found, err := ReadText(v, "kiln-a")
	if err != nil || !found || string(s.Cmdline) != string(system().Cmdline) || string(s.Uname) != "6.12" || string(s.OSRel) != "ID=kiln\n" {
		t.Errorf("%+v, %v, %v", s, found, err)
	}
	if _, found, err := ReadText(v, "kiln-b"); found || err != nil {
		t.Errorf("the empty slot: %v, %v", found, err)
	}
}

func TestFilesMistakes(t *testing.T) {
	for want, change := range map[string]func(*uki.Sections){
		"no kernel":        func(s *uki.Sections) { s.Linux = nil },
		"or no initramfs":  func(s *uki.Sections) { s.Initrd = nil },
		"a quotation mark": func(s *uki.Sections) { s.Cmdline = []byte(`a="b"`) },
	} {
		s := system()
		change(&s)
		if _, err := Files("kiln-a", s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestReadTextOfDamaged(t *testing.T) {
	for name, want := range map[string]string{
		kernelFile: "vmlinux is not there", initrdFile: "initrd.img is not there", entryFile: "boot.cfg is not there", releaseFile: "uname is not there", osrelFile: "os-release is not there",
	} {
		all, err := Files("kiln-a", system())
		if err != nil {
			t.Fatal(err)
		}
		var files []esp.File
		for _, f := range all {
			if !strings.HasSuffix(f.Path, "/"+name) {
				files = append(files, f)
			}
		}
		if _, found, err := ReadText(volume(t, files), "kiln-a"); !found || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	if _, err := cmdlineOf("menuentry x {\n}\n"); err == nil {
		t.Error("an entry without a kernel has a command line")
	}
}

package grub

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/uki"
)

// ConfigFolder is the folder of the boot partition that GRUB looks for grub.cfg in.
const ConfigFolder = "grub"

// Systems is the folder of the boot partition with a folder for each system that GRUB can
// start, by the names of Slots.
const Systems = "linux"

// Slots are the names of systems, in the order in which they are tried.
var Slots = []string{"kiln-a", "kiln-b"}

// Files in a system's folder: what the sections of a unified kernel image are, with the
// command line in what GRUB runs.
const (
	kernelFile  = "vmlinux"
	initrdFile  = "initrd.img"
	entryFile   = "boot.cfg"
	osrelFile   = "os-release"
	releaseFile = "uname"
)

// config is grub.cfg. Like systemd-boot's in other images it waits for nobody. A system
// that cannot be loaded is followed by the next one.
func config() string {
	return `set timeout_style=hidden
set timeout=0
set default=0
set fallback=1
for slot in ` + strings.Join(Slots, " ") + `; do
	if [ -f /` + Systems + `/$slot/` + entryFile + ` ]; then
		source /` + Systems + `/$slot/` + entryFile + `
	fi
done
`
}

// Files are the files of the boot partition with which GRUB starts the system s, in a slot.
func Files(slot string, s uki.Sections) ([]esp.File, error) {
	if len(s.Linux) == 0 || len(s.Initrd) == 0 {
		return nil, errors.New("GRUB: no kernel, or no initramfs")
	}
	e, err := entry(slot, string(s.Cmdline))
	if err != nil {
		return nil, err
	}
	files := []esp.File{{Path: ConfigFolder + "/grub.cfg", Content: tree.Bytes(config())}}
	for _, f := range []struct {
		name    string
		content []byte
	}{{entryFile, []byte(e)}, {kernelFile, s.Linux}, {initrdFile, s.Initrd}, {osrelFile, s.OSRel}, {releaseFile, s.Uname}} {
		files = append(files, esp.File{Path: Systems + "/" + slot + "/" + f.name, Content: tree.Bytes(f.content)})
	}
	return files, nil
}

// entry is the menu entry of a system.
func entry(slot, cmdline string) (string, error) {
	folder := "/" + Systems + "/" + slot + "/"
	words := []string{"linux", folder + kernelFile}
	for _, w := range strings.Fields(cmdline) {
		// GRUB would add marks of its own around these.
		if strings.ContainsAny(w, `"'\`) {
			return "", fmt.Errorf("GRUB: the kernel argument %s has a quotation mark or a backslash, which GRUB does not hand on as it is", w)
		}
		words = append(words, quote(w))
	}
	return fmt.Sprintf("menuentry %s --id %s {\n\t%s\n\tinitrd %s\n}\n", slot, slot, strings.Join(words, " "), folder+initrdFile), nil
}

// plain are the characters besides letters and digits that mean nothing to GRUB's scripts.
const plain = "/-_=.,:+%@"

// quote makes one word of s for GRUB's scripts.
func quote(s string) string {
	special := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(plain, r)
	}
	if strings.ContainsFunc(s, special) {
		return "'" + s + "'"
	}
	return s
}

// Limit of what ReadText reads of a file.
const maxText = 64 << 10

// ReadText returns what a system's folder says of it, and of the kernel and the initramfs
// nothing. found is false if there is no such system.
func ReadText(v *esp.Volume, slot string) (s uki.Sections, found bool, err error) {
	files, found, err := v.Open(Systems + "/" + slot)
	if err != nil || !found {
		return s, false, err
	}
	read := func(name string) []byte {
		f := files[name]
		if f == nil || f.Size() > maxText {
			err = errors.Join(err, fmt.Errorf("%s is not there, or too large", name))
			return nil
		}
		b, e := io.ReadAll(f)
		err = errors.Join(err, e)
		return b
	}
	s.OSRel, s.Uname = read(osrelFile), read(releaseFile)
	boot := read(entryFile)
	for _, name := range []string{kernelFile, initrdFile} {
		if f := files[name]; f == nil || f.Size() == 0 {
			err = errors.Join(err, fmt.Errorf("%s is not there, or empty", name))
		}
	}
	if err != nil {
		return s, true, err
	}
	s.Cmdline, err = cmdlineOf(string(boot))
	return s, true, err
}

// cmdlineOf returns the kernel's command line of a menu entry.
func cmdlineOf(boot string) ([]byte, error) {
	for line := range strings.Lines(boot) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "linux" {
			continue
		}
		var out []string
		for _, w := range words[2:] {
			out = append(out, strings.Trim(w, "'"))
		}
		return []byte(strings.Join(out, " ")), nil
	}
	return nil, errors.New(entryFile + " starts no kernel")
}

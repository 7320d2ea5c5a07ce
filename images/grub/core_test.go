package grub

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/grub/grubtest"
	"github.com/kiln-os/kiln/images/tree"
)

func parts() Parts {
	return Parts{Kernel: grubtest.Kernel(), Modules: [][]byte{grubtest.Module("fat"), grubtest.Module("normal")}, Prefix: "(,gpt2)/grub"}
}

func TestCore(t *testing.T) {
	b, err := Core(parts())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	const golden = "e8c413bdcc72894f5a80835f89d0deb533d7a3b680e540962ee580dcc9af7ddd"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if f.Type != elf.ET_EXEC || f.Machine != elf.EM_PPC || f.ByteOrder != binary.BigEndian || f.Entry != linkAddress {
		t.Errorf("header %+v", f.FileHeader)
	}
	var end uint64
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Vaddr < end {
			t.Errorf("the segment at %#x lies over one that ends at %#x", p.Vaddr, end)
		}
		end = p.Vaddr + p.Memsz
	}
	for name, size := range map[string]uint64{".text": uint64(len(grubtest.Code)), "mods": f.Progs[2].Filesz} {
		if s := f.Section(name); s == nil || s.Size != size {
			t.Errorf("section %s: %+v, want %d bytes", name, s, size)
		}
	}
	if got, err := ReadPrefix(bytes.NewReader(b)); err != nil || got != "(,gpt2)/grub" {
		t.Errorf("prefix %q, %v", got, err)
	}
	again, err := Core(parts())
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the same parts give other bytes, %v", err)
	}
}

func TestCoreMistakes(t *testing.T) {
	changed := func(b []byte, at int, v ...byte) []byte {
		b = slices.Clone(b)
		copy(b[at:], v)
		return b
	}
	k := grubtest.Kernel()
	for name, c := range map[string]struct {
		change func(*Parts)
		want   string
	}{
		"no kernel":      {func(p *Parts) { p.Kernel = nil }, "GRUB's kernel"},
		"module first":   {func(p *Parts) { p.Kernel = grubtest.Module("fat") }, "want ET_EXEC"},
		"little-endian":  {func(p *Parts) { p.Kernel = changed(k, 5, 1) }, "GRUB's kernel"},
		"no segment":     {func(p *Parts) { p.Kernel = changed(k, 52, 0, 0, 0, 4) }, "0 segments"},
		"other address":  {func(p *Parts) { p.Kernel = changed(k, 60, 0, 0x30) }, "for address 0x300000"},
		"cut off":        {func(p *Parts) { p.Kernel = changed(k, 68, 0, 0, 0x10) }, "in a file of"},
		"huge":           {func(p *Parts) { p.Kernel = changed(k, 72, 0x7f) }, "its segment has"},
		"alignment":      {func(p *Parts) { p.Kernel = changed(k, 80, 0, 0, 0, 3) }, "aligned to 3"},
		"no module":      {func(p *Parts) { p.Modules[1] = []byte("text") }, "module 2 of GRUB"},
		"program":        {func(p *Parts) { p.Modules[0] = k }, "want ET_REL"},
		"no prefix":      {func(p *Parts) { p.Prefix = "" }, "no prefix"},
		"modules galore": {func(p *Parts) { p.Modules[0] = make([]byte, maxAddress) }, "larger than any"},
	} {
		p := parts()
		c.change(&p)
		if _, err := Core(p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestReadPrefixOfDamaged(t *testing.T) {
	good, err := Core(parts())
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(good, []byte("gmim"))
	for name, c := range map[string]struct {
		change func([]byte)
		want   string
	}{
		"empty":         {func(b []byte) { clear(b) }, "core image"},
		"no magic":      {func(b []byte) { b[at] = 0 }, "no modules of GRUB"},
		"size of 0":     {func(b []byte) { clear(b[at+16 : at+20]) }, "no prefix"},
		"beyond":        {func(b []byte) { b[at+16] = 0xff }, "no prefix"},
		"only a kernel": {func(b []byte) { b[52+2*32+3] = 0 }, "it has no modules"},
	} {
		b := slices.Clone(good)
		c.change(b)
		if got, err := ReadPrefix(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestOrder(t *testing.T) {
	for _, c := range []struct{ list, want, err string }{
		{"fat: fshelp\nfshelp:\nnormal: boot net\nboot:\nnet: boot fshelp\n", "fshelp fat boot net normal", ""},
		{"fat: normal\nnormal: fat\n", "normal fat", ""}, // a circle
		{"fat: fshelp\nnormal:\n", "", "fshelp is not in it, which fat needs"},
		{"fat:\n", "", "normal is not in it, which a node needs"},
		{"fat\n", "", "line 1"},
	} {
		got, err := order(c.list, []string{"fat", "normal"})
		if c.err == "" && (err != nil || strings.Join(got, " ") != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %q, %v, want %q%q", c.list, got, err, c.want, c.err)
		}
	}
}

// packageFiles are what FromPackage reads of the package: some modules depend on others.
func packageFiles() *tree.Tree {
	p := tree.New()
	p.AddFile(Folder+"/kernel.img", 0o644, grubtest.Kernel())
	list := "fshelp:\nboot:\nelf:\nnet: boot\n"
	needs := map[string]string{"fat": " fshelp", "normal": " boot net", "linux": " boot elf"}
	for _, m := range append([]string{"fshelp", "boot", "elf", "net"}, modules...) {
		p.AddFile(Folder+"/"+m+".mod", 0o644, grubtest.Module(m))
	}
	for _, m := range modules {
		list += m + ":" + needs[m] + "\n"
	}
	p.AddFile(Folder+"/moddep.lst", 0o644, []byte(list))
	return p
}

func TestFromPackage(t *testing.T) {
	b, err := FromPackage(packageFiles(), "(,gpt2)/grub")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if !bytes.Contains(b, []byte(m)) {
			t.Errorf("module %s is not in the core image", m)
		}
	}
	for _, name := range []string{"moddep.lst", "kernel.img", "fat.mod"} {
		p := packageFiles()
		p.Delete(Folder + "/" + name)
		if _, err := FromPackage(p, "x"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// FuzzCore: whatever the packages hold, the result is an image with its prefix, or an error.
func FuzzCore(f *testing.F) {
	f.Add(grubtest.Kernel(), grubtest.Module("fat"))
	f.Fuzz(func(t *testing.T, kernel, module []byte) {
		b, err := Core(Parts{Kernel: kernel, Modules: [][]byte{module}, Prefix: "(,gpt2)/grub"})
		if err != nil {
			return
		}
		if got, err := ReadPrefix(bytes.NewReader(b)); err != nil || got != "(,gpt2)/grub" {
			t.Errorf("prefix %q, %v", got, err)
		}
	})
}

// FuzzReadPrefix: any bytes are read, or are an error.
func FuzzReadPrefix(f *testing.F) {
	b, err := Core(parts())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ReadPrefix(bytes.NewReader(b)) })
}

package uki

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/hex"
	"testing"

	"github.com/kiln-os/kiln/images/uki/ukitest"
)

func stub() []byte { return ukitest.Stub() }

func parts() Sections {
	return Sections{
		OSRel: []byte("ID=kiln\n"), Cmdline: []byte("quiet"), Uname: []byte("6.12"),
		Initrd: bytes.Repeat([]byte("i"), 5000), Linux: bytes.Repeat([]byte("k"), 9001),
	}
}

func TestBuild(t *testing.T) {
	img, err := Build(stub(), parts())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(img)
	const golden = "64d7c6fed28c3c06f41fca9975b6a02759991668ee662bc3a1a20db808503e7e"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	f, err := pe.NewFile(bytes.NewReader(img))
	if err != nil {
		t.Fatalf("debug/pe: %v", err)
	}
	if f.PointerToSymbolTable != 0 || f.NumberOfSymbols != 0 {
		t.Error("the symbol table is still named")
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	if opt.CheckSum != 0 {
		t.Error("the stub's checksum is still there")
	}
	end := uint32(0)
	want := map[string][]byte{".text": stub()[512:1024], ".osrel": parts().OSRel, ".cmdline": parts().Cmdline, ".uname": parts().Uname, ".initrd": parts().Initrd, ".linux": parts().Linux}
	for _, s := range f.Sections {
		if s.VirtualAddress < end {
			t.Errorf("%s starts at %#x, before the end of its predecessor %#x", s.Name, s.VirtualAddress, end)
		}
		end = s.VirtualAddress + max(s.VirtualSize, 1)
		if s.Name != ".text" && s.VirtualAddress%virtualAlign != 0 {
			t.Errorf("%s starts at %#x", s.Name, s.VirtualAddress)
		}
		if s.Offset%512 != 0 || s.Size%512 != 0 {
			t.Errorf("%s: file offset %d, size %d are not aligned", s.Name, s.Offset, s.Size)
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != ".text" {
			if int(s.VirtualSize) != len(want[s.Name]) {
				t.Errorf("%s has virtual size %d, want %d", s.Name, s.VirtualSize, len(want[s.Name]))
			}
			b = b[:s.VirtualSize]
		}
		if !bytes.Equal(b, want[s.Name]) {
			t.Errorf("%s holds other bytes", s.Name)
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("sections are missing: %v", want)
	}
	if f.Sections[len(f.Sections)-1].Name != ".linux" {
		t.Error("the kernel is not last")
	}
	if opt.SizeOfImage < end || opt.SizeOfImage%virtualAlign != 0 {
		t.Errorf("SizeOfImage %#x, the last section ends at %#x", opt.SizeOfImage, end)
	}
	got, err := Read(bytes.NewReader(img), int64(len(img)))
	if err != nil || !bytes.Equal(got.Initrd, parts().Initrd) || string(got.Cmdline) != "quiet" {
		t.Errorf("read back: %v", err)
	}
	text, err := ReadText(bytes.NewReader(img), int64(len(img)))
	if err != nil || string(text.Cmdline) != "quiet" || string(text.OSRel) != "ID=kiln\n" || string(text.Uname) != "6.12" || text.Linux != nil || text.Initrd != nil {
		t.Errorf("text read back: %q, %v", text.Cmdline, err)
	}
}

func TestBuildRefuses(t *testing.T) {
	if _, err := Build(stub(), Sections{Cmdline: []byte("x")}); err == nil {
		t.Error("an image without a kernel is built")
	}
	for name, b := range map[string][]byte{"empty": nil, "text": bytes.Repeat([]byte("x"), 100), "cut": stub()[:300]} {
		if _, err := Build(b, parts()); err == nil {
			t.Errorf("%s is taken for a stub", name)
		}
	}
	if _, err := Read(bytes.NewReader(stub()), 1024); err == nil {
		t.Error("a stub is taken for an image")
	}
	long := parts()
	long.Cmdline = make([]byte, maxText+1)
	img, err := Build(stub(), long)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a stub": stub(), "nothing": nil, "a long command line": img} {
		if _, err := ReadText(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("text of %s is read", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	img, err := Build(stub(), parts())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img)
	f.Add(stub())
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := Read(bytes.NewReader(b), int64(len(b)))
		text, textErr := ReadText(bytes.NewReader(b), int64(len(b)))
		if err == nil && textErr == nil && !bytes.Equal(all.Cmdline, text.Cmdline) {
			t.Errorf("command line %q, and %q as text", all.Cmdline, text.Cmdline)
		}
		_, _ = Build(b, parts())
	})
}

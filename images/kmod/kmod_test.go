package kmod

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
)

const (
	testKernel = "6.12.1-test"
	testDir    = "usr/lib/modules/" + testKernel + "/"
)

// testSet has every case of depmod(8) that Kiln knows of in a few modules.
func testSet(t testing.TB) *tree.Tree {
	big, small := binary.ByteOrder(binary.BigEndian), binary.ByteOrder(binary.LittleEndian)
	files := tree.New()
	for p, m := range map[string]testModule{
		"kernel/lib/base.ko":                 {info: []string{"license=GPL", "alias=base-alias"}, crcs: []string{"base_get", "base_put", "shared"}},
		"kernel/lib/left-hand.ko.xz":         {crcs: []string{"left"}, needs: []string{"base_get", "printk"}},
		"kernel/lib/right.ko.zst":            {crcs: []string{"right"}, needs: []string{"base_put"}, weak: []string{"late_helper", "nowhere"}},
		"kernel/lib/top.ko":                  {needs: []string{"right", "left", "base_get"}},
		"kernel/lib/late_helper.ko":          {crcs: []string{"late_helper", "shared"}},
		"kernel/drivers/net/dup.ko":          {info: []string{"alias=pci:v00001AF4d*", "alias=pci:v00001AF4d*", "alias=virtio:d0000000[0-9]v-*"}},
		"kernel/drivers/net/rival.ko":        {info: []string{"alias=pci:v00001AF4d*", "alias=pci:v00001AF4d00001000sv*", "alias=broken]", "alias=broken["}},
		"kernel/drivers/char/node.ko":        {info: []string{"alias=char-major-10-*", "alias=char-major-10-232", "alias=devname:net/node", "softdep=pre: top", "weakdep=right"}},
		"kernel/drivers/block/disk.ko":       {info: []string{"alias=devname:disk", "alias=block-major-7-1", "alias=char-major-1-1"}},
		"kernel/drivers/block/numberless.ko": {info: []string{"alias=devname:numberless"}},
		"kernel/arch/be64.ko":                {order: big, crcs: []string{"be64"}, needs: []string{".le32", ".TOC."}},
		"kernel/arch/be32.ko":                {order: big, class: elf.ELFCLASS32, crcs: []string{"be32"}, needs: []string{"be64"}, versions: []string{"be64", "module_layout", "strings_only"}},
		"kernel/arch/le32.ko":                {order: small, class: elf.ELFCLASS32, crcs: []string{"le32"}, info: []string{"alias=of:N*T*Cvendor,le32"}},
		"kernel/misc/unversioned.ko":         {strings: []string{"strings_only", "strings_too"}, versions: []string{"left"}},
		"kernel/misc/odd.name.ko":            {info: []string{"no equals sign", "alias=odd"}},
		"kernel/misc/replaced.ko":            {info: []string{"alias=old-driver"}},
		"updates/replaced.ko":                {info: []string{"alias=new-driver"}},
		"build/sample.ko":                    {info: []string{"alias=sample"}},
	} {
		b := m.bytes()
		if p == "kernel/lib/top.ko" {
			b = append(b, "signature\x00\x02~Module signature appended~\n"...)
		}
		files.AddFile(testDir+p, 0o644, compress(t, path.Ext(p), b))
	}
	files.AddFile(testDir+"modules.order", 0o644, []byte(strings.Join([]string{
		"kernel/lib/top.ko", "kernel/drivers/net/rival.ko", "kernel/lib/left-hand.ko", "kernel/lib/right.ko", "kernel/gone.ko",
		"kernel/lib/late_helper.ko", "kernel/lib/base.ko", "kernel/lib/top.ko", "kernel/drivers/net/dup.ko", "kernel/arch/be32.ko",
	}, "\n")+"\n"))
	files.AddFile(testDir+"modules.builtin", 0o644, []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/tty/serial/8250-base.ko\n"))
	files.AddFile(testDir+"modules.builtin.modinfo", 0o644, []byte(strings.Join([]string{
		"ext4.license=GPL", "ext4.alias=ext3", "ext4.alias=fs-ext4", "ext4.alias=", "8250_base.alias=char-major-4-[0-9]", "ext4.alias=fs-ext4", "ext4.alias=un[matched",
	}, "\x00")+"\x00"))
	return files
}

// indexed returns the indexes of the test set by name.
func indexed(t testing.TB) map[string][]byte {
	t.Helper()
	files := testSet(t)
	if err := Index(context.Background(), files, testKernel); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range indexNames {
		b, err := files.ReadFile(testDir + name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	return out
}

func TestSetSameAsDepmod(t *testing.T) {
	files := testSet(t)
	root := extract(t, files)
	depmod(t, root, testKernel)
	if err := Index(t.Context(), files, testKernel); err != nil {
		t.Fatal(err)
	}
	compare(t, files, root, testKernel)
}

func TestTextIndexes(t *testing.T) {
	files := indexed(t)
	for name, want := range map[string]string{
		"modules.dep": `kernel/lib/top.ko: kernel/lib/left-hand.ko.xz kernel/lib/right.ko.zst kernel/lib/late_helper.ko kernel/lib/base.ko
kernel/drivers/net/rival.ko:
kernel/lib/left-hand.ko.xz: kernel/lib/base.ko
kernel/lib/right.ko.zst: kernel/lib/late_helper.ko kernel/lib/base.ko
`,
		"modules.softdep": "# Soft dependencies extracted from modules themselves.\nsoftdep node pre: top\n",
		"modules.weakdep": "# Weak dependencies extracted from modules themselves.\nweakdep node right\n",
		"modules.devname": "# Device nodes to trigger on-demand module loading.\n",
	} {
		if !strings.HasPrefix(string(files[name]), want) {
			t.Errorf("%s\n got %s\nwant %s", name, files[name], want)
		}
	}
	for name, lines := range map[string][]string{
		"modules.devname": {"node net/node c10:232", "disk disk b7:1"},
		"modules.alias":   {"alias base-alias base", "alias broken] rival", "alias new-driver replaced"},
		"modules.symbols": {"alias symbol:shared base", "alias symbol:strings_too unversioned"},
		"modules.dep":     {"kernel/arch/be32.ko: kernel/misc/unversioned.ko kernel/arch/be64.ko kernel/arch/le32.ko kernel/lib/left-hand.ko.xz kernel/lib/base.ko"},
	} {
		have := strings.Split(string(files[name]), "\n")
		for _, l := range lines {
			if !slices.Contains(have, l) {
				t.Errorf("%s has no line %q:\n%s", name, l, files[name])
			}
		}
	}
	for _, absent := range []string{"old-driver", "sample"} {
		if bytes.Contains(files["modules.alias"], []byte(absent)) {
			t.Errorf("modules.alias has %s", absent)
		}
	}
}

// golden is the digest of the indexes of the test set, which depends on nothing
// but this package. It changes only when the reference's output does.
const golden = "a059e1f3c6f654a378430ed120b136cf00b253189d2558e56f02fd59f8c05c8c"

func TestGolden(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range []int{1, 8} {
		runtime.GOMAXPROCS(procs)
		files := indexed(t)
		h := sha256.New()
		for _, name := range indexNames {
			h.Write([]byte(name + "\x00"))
			h.Write(files[name])
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != golden {
			t.Errorf("digest of the indexes with %d processors: %s, want %s", procs, got, golden)
		}
	}
}

// TestProcessorsDoNotMatter reads a whole kernel's modules by one reader and by eight.
func TestProcessorsDoNotMatter(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	files, kernel := debianKernel(t, "amd64")
	var first []file
	for _, procs := range []int{1, 8} {
		runtime.GOMAXPROCS(procs)
		got, err := index(t.Context(), files, "usr/lib/modules/"+kernel)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = got
		}
		for i, f := range got {
			if f.name != first[i].name || !bytes.Equal(f.data, first[i].data) {
				t.Errorf("%s differs between 1 and %d processors", f.name, procs)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	good := testModule{needs: []string{"printk"}}.bytes()
	cases := []struct {
		name  string
		files map[string][]byte
		want  []string
	}{
		{"no ELF file", map[string][]byte{"kernel/bad.ko": []byte("text")}, []string{"/" + testDir + "kernel/bad.ko", "not an ELF file"}},
		{"cut off", map[string][]byte{"kernel/bad.ko": good[:len(good)-70]}, []string{"kernel/bad.ko"}},
		{"a program", map[string][]byte{"kernel/bad.ko": testModule{typ: elf.ET_EXEC}.bytes()}, []string{"kernel/bad.ko", "ET_EXEC", "ET_REL"}},
		{"stripped", map[string][]byte{"kernel/bad.ko": testModule{noSymtab: true}.bytes()}, []string{"kernel/bad.ko", "no symbol table"}},
		{"odd versions", map[string][]byte{"kernel/bad.ko": testModule{extra: map[string][]byte{"__versions": make([]byte, 65)}}.bytes()}, []string{"kernel/bad.ko", "__versions has 65 bytes"}},
		{"damaged xz", map[string][]byte{"kernel/bad.ko.xz": append([]byte{0xfd}, compress(t, ".xz", good)...)}, []string{"kernel/bad.ko.xz", "read .xz"}},
		{"damaged zstd", map[string][]byte{"kernel/bad.ko.zst": compress(t, ".zst", good)[:40]}, []string{"kernel/bad.ko.zst", "read .zst"}},
		{"damaged gzip", map[string][]byte{"kernel/bad.ko.gz": compress(t, ".gz", good)[:40]}, []string{"kernel/bad.ko.gz", "read .gz"}},
		{"two at once", map[string][]byte{"kernel/a.ko": nil, "kernel/b.ko": nil}, []string{"kernel/a.ko", "kernel/b.ko"}},
		{"an alias that no index can hold", map[string][]byte{"kernel/bad.ko": testModule{info: []string{"alias=caf\xe9"}}.bytes()}, []string{"kernel/bad.ko", "7-bit ASCII", "modules.alias.bin"}},
		{"a symbol that no index can hold", map[string][]byte{"kernel/bad.ko": testModule{crcs: []string{"caf\xe9"}}.bytes()}, []string{"kernel/bad.ko", "7-bit ASCII"}},
		{
			"a cycle", map[string][]byte{
				"kernel/x.ko": testModule{crcs: []string{"x"}, needs: []string{"y"}}.bytes(),
				"kernel/y.ko": testModule{crcs: []string{"y"}, needs: []string{"z"}}.bytes(),
				"kernel/z.ko": testModule{crcs: []string{"z"}, needs: []string{"x", "leaf"}}.bytes(),
				"kernel/l.ko": testModule{crcs: []string{"leaf"}}.bytes(),
			},
			[]string{"cycle", "x -> y -> z -> x"},
		},
		{"builtin", map[string][]byte{"modules.builtin": []byte("kernel/a.ko\nKernel A\n")}, []string{"modules.builtin:2", "Kernel A"}},
		{"builtin modinfo", map[string][]byte{"modules.builtin.modinfo": []byte("ext4.license\x00")}, []string{"modules.builtin.modinfo", "module.key=value"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := tree.New()
			files.AddDir("usr/lib/modules/"+testKernel, 0o755)
			for p, b := range c.files {
				files.AddFile(testDir+p, 0o644, b)
			}
			before := files.Len()
			err := Index(t.Context(), files, testKernel)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range append(c.want, testKernel) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			if files.Len() != before {
				t.Error("a failed Index added to the tree")
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	if err := Index(t.Context(), tree.New(), testKernel); err == nil || !strings.Contains(err.Error(), "/usr/lib/modules/"+testKernel) {
		t.Errorf("error %v", err)
	}
}

func TestCancelledIndex(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Index(ctx, testSet(t), testKernel); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestLinkedModules has a module behind a symbolic link and behind a hard link.
func TestLinkedModules(t *testing.T) {
	files := tree.New()
	files.AddFile("opt/driver.ko", 0o644, testModule{info: []string{"alias=here"}}.bytes())
	files.AddSymlink(testDir+"updates/soft.ko", "/opt/driver.ko")
	files.Set(testDir+"updates/hard.ko", &tree.Entry{Type: tree.Hardlink, Link: "opt/driver.ko"})
	if err := Index(t.Context(), files, testKernel); err != nil {
		t.Fatal(err)
	}
	got, err := files.ReadFile(testDir + "modules.alias")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"alias here soft\n", "alias here hard\n"} {
		if !strings.Contains(string(got), l) {
			t.Errorf("no %q in\n%s", l, got)
		}
	}
}

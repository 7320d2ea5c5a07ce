package initrd

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
)

func kernelTree() *tree.Tree {
	const dir = "usr/lib/modules/6.12/"
	t := tree.New()
	t.AddFile(dir+"modules.dep", 0o644, []byte("kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz\nkernel/fs/fat/fat.ko.xz:\nkernel/fs/squashfs/squashfs.ko.xz:\nkernel/drivers/md/dm-mod.ko.xz:\nkernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/block/virtio_blk.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\n"))
	t.AddFile(dir+"modules.alias", 0o644, []byte("# Aliases extracted from modules themselves.\nalias crc32c crc32c_generic\nalias crypto-crc32c crc32c_generic\n"))
	t.AddFile(dir+"modules.builtin", 0o644, []byte("kernel/fs/ext4/ext4.ko\n"))
	t.AddFile(dir+"modules.dep.bin", 0o644, []byte("index"))
	for _, m := range []string{"kernel/fs/fat/vfat.ko.xz", "kernel/fs/fat/fat.ko.xz", "kernel/fs/squashfs/squashfs.ko.xz", "kernel/drivers/md/dm-mod.ko.xz", "kernel/drivers/md/dm-verity.ko.xz", "kernel/drivers/block/virtio_blk.ko.xz", "kernel/crypto/crc32c_generic.ko.xz"} {
		t.AddFile(dir+m, 0o644, []byte(m))
	}
	return t
}

func TestCopyModules(t *testing.T) {
	b := builder{os: kernelTree(), out: tree.New()}
	if err := b.copyModules("6.12", []string{"vfat", "dm-verity", "squashfs", "ext4", "crc32c", "not_in_this_kernel"}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"kernel/fs/fat/vfat.ko.xz", "kernel/fs/fat/fat.ko.xz", "kernel/drivers/md/dm-mod.ko.xz", "kernel/crypto/crc32c_generic.ko.xz", "modules.dep.bin"} {
		if b.out.Get("usr/lib/modules/6.12/"+m) == nil {
			t.Errorf("%s is missing", m)
		}
	}
	if b.out.Get("usr/lib/modules/6.12/kernel/drivers/block/virtio_blk.ko.xz") != nil {
		t.Error("a module that nobody asked for is there")
	}
}

func TestAKernelThatCannotBootIsRefused(t *testing.T) {
	os := kernelTree()
	os.AddFile("usr/lib/modules/6.12/modules.dep", 0o644, []byte("kernel/fs/fat/vfat.ko.xz:\n"))
	b := builder{os: os, out: tree.New()}
	if err := b.copyModules("6.12", baseModules); err == nil || !strings.Contains(err.Error(), "no module") {
		t.Errorf("error %v", err)
	}
}

func TestModuleName(t *testing.T) {
	for in, want := range map[string]string{"kernel/drivers/md/dm-mod.ko.xz": "dm_mod", "a/b.ko": "b", "c.ko.zst": "c"} {
		if got := moduleName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestCopyFollowsLinks(t *testing.T) {
	os := tree.New()
	os.AddFile("usr/bin/kmod", 0o755, []byte("x"))
	os.AddSymlink("usr/sbin/modprobe", "../bin/kmod")
	os.AddSymlink("usr/sbin/abs", "/usr/sbin/modprobe")
	b := builder{os: os, out: tree.New()}
	b.copy("usr/sbin/abs")
	if b.err != nil || b.out.Get("usr/bin/kmod") == nil || b.out.Get("usr/sbin/modprobe") == nil {
		t.Errorf("%v: %v", b.err, b.out.Paths())
	}
	b.copy("usr/bin/none")
	if b.err == nil || !strings.Contains(b.err.Error(), "usr/bin/none") {
		t.Errorf("error %v", b.err)
	}
}

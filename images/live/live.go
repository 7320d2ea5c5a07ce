// Package live makes of a node's disk image what boots the node without a disk: the
// kernel, a command line, and an initramfs with everything in it, which is /usr with
// its hash tree, and the stamp. The root file system is in memory. What else the disk
// image has is there, too, so that the node can be installed on a disk.
package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/cpio"
	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/uki"
	"github.com/kiln-os/kiln/images/verity"
	"github.com/kiln-os/kiln/units"
)

// What a disk image has, by the names that internal/nodeimage gives.
const (
	espName    = "kiln-esp"
	usrName    = "kiln-usr-a"
	verityName = "kiln-usr-a-verity"
	stateName  = "kiln-state"
	stamp      = "kiln"
	ukiName    = "kiln-a.efi"
)

// Image is what a node boots from.
type Image struct {
	Kernel []byte
	// CommandLine is the kernel's, without which it does not find what is in Initramfs.
	CommandLine string
	// Initramfs is an archive of cpio with all that is not in the disk's initramfs,
	// followed by that one.
	Initramfs tree.Content
	// Loader is the boot loader by its path in a boot partition.
	Loader []esp.File
}

// Open reads a raw disk image with a node's stamp. The Image reads src when its
// Initramfs is read. Times in the archive are mtime.
func Open(ctx context.Context, src *os.File, mtime time.Time) (*Image, error) {
	t, err := disk.Read(src)
	if err != nil {
		return nil, fmt.Errorf("%s is no Kiln image: %w", src.Name(), err)
	}
	parts := map[string]*io.SectionReader{}
	for _, p := range t.Partitions {
		parts[p.Name] = io.NewSectionReader(src, p.Offset, p.Size)
	}
	if parts[stateName] != nil {
		return nil, fmt.Errorf("%s has been booted, and what the node has written would not be taken along: want an image that has not", src.Name())
	}
	for _, name := range []string{espName, usrName, verityName} {
		if parts[name] == nil {
			return nil, fmt.Errorf("%s is no Kiln image: it has no partition %s", src.Name(), name)
		}
	}
	own, img := tree.New(), &Image{}
	initrd, err := img.readBoot(parts[espName], own)
	if err == nil {
		err = addUsr(ctx, own, src, parts[usrName], parts[verityName])
	}
	if err == nil {
		err = units.Live(own)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.Name(), err)
	}
	size, err := cpio.Size(own)
	if err != nil {
		return nil, err
	}
	img.Initramfs = initramfs{ctx, own, initrd, mtime, size + int64(len(initrd))}
	return img, nil
}

// readBoot reads the boot partition: kernel, command line and loader into img, the stamp into
// t. It returns the disk's initramfs.
func (img *Image) readBoot(part *io.SectionReader, t *tree.Tree) (initrd []byte, err error) {
	v, err := esp.Open(readOnly{part}, 0, part.Size())
	if err != nil {
		return nil, err
	}
	files, _, err := v.Read(stamp)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("this image is no node's: it has no stamp, without which nothing is configured; imagegen stamp makes a node's image")
	}
	for name, content := range files {
		t.AddFile(path.Join(Dir, "boot", stamp, name), 0o600, content)
	}
	kernels, _, err := v.Open("EFI/Linux")
	if err != nil {
		return nil, err
	}
	f := kernels[ukiName]
	if files, ok, _ := v.Open(grub.Systems + "/" + grub.Slots[0]); f == nil && ok && len(files) > 0 {
		return nil, errors.New("GRUB starts this image from a PReP partition, and without a disk Kiln starts nodes by UEFI only")
	}
	if f == nil {
		return nil, fmt.Errorf("no EFI/Linux/%s on the boot partition", ukiName)
	}
	s, err := uki.Read(f, f.Size())
	if err != nil {
		return nil, err
	}
	if img.CommandLine, err = commandLine(string(s.Cmdline)); err != nil {
		return nil, err
	}
	img.Kernel = s.Linux
	loaders, _, err := v.Read("EFI/BOOT")
	for _, name := range slices.Sorted(maps.Keys(loaders)) {
		img.Loader = append(img.Loader, esp.File{Path: "EFI/BOOT/" + name, Content: tree.Bytes(loaders[name])})
	}
	return s.Initrd, err
}

// commandLine makes of a disk's command line one for a root in memory.
func commandLine(disk string) (string, error) {
	var words []string
	verity := false
	for _, w := range strings.Fields(disk) {
		key, _, _ := strings.Cut(w, "=")
		switch key {
		case "root", "rootfstype":
			continue
		case "usrhash":
			verity = true
		}
		words = append(words, w)
	}
	if !verity {
		return "", errors.New("the kernel's command line has no usrhash: this is no image that this version of imagegen has made")
	}
	return strings.Join(append([]string{
		// What etcd, containers and logs may take of the memory. Programs need the rest.
		"root=tmpfs", "rootflags=size=60%",
		// units/live makes them.
		"systemd.verity_usr_data=/dev/loop0", "systemd.verity_usr_hash=/dev/loop1",
	}, words...), " "), nil
}

// addUsr adds what the two partitions hold, without the room that is left in them, and
// what makes a disk of it.
func addUsr(ctx context.Context, t *tree.Tree, src *os.File, usr, hashes *io.SectionReader) error {
	size, err := verity.DataSize(hashes)
	if err != nil {
		return err
	}
	if size > usr.Size() || verity.HashAreaSize(size) > hashes.Size() {
		return fmt.Errorf("the hash tree is of %d bytes, more than /usr's partition has", size)
	}
	var known []Part
	for _, f := range []struct {
		name string
		part *io.SectionReader
		size int64
	}{{UsrFile, usr, size}, {VerityFile, hashes, verity.HashAreaSize(size)}} {
		t.Set(path.Join(Dir, f.name), &tree.Entry{Type: tree.File, Mode: 0o400, Content: section{f.part, f.size}})
		_, at, _ := f.part.Outer()
		known = append(known, Part{At: at, Size: f.size, File: f.name})
	}
	slices.SortFunc(known, func(a, b Part) int { return cmp.Compare(a.At, b.At) })
	return addDisk(ctx, t, src, known)
}

// section is the beginning of a partition.
type section struct {
	r    io.ReaderAt
	size int64
}

func (s section) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.r, 0, s.size)), nil
}
func (s section) Size() int64 { return s.size }

// initramfs is written when it is read.
type initramfs struct {
	ctx    context.Context
	tree   *tree.Tree
	disk   []byte // the initramfs of the disk
	mtime  time.Time
	length int64
}

func (i initramfs) Size() int64 { return i.length }

// Open starts a writer, which ends when all is read or the reader is closed.
func (i initramfs) Open() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		// Not packed, since /usr is: it comes first, as the kernel goes on behind an archive
		// that is not packed in any case. What is below /etc there hides no unit here.
		err := cpio.Write(untilDone{i.ctx, w}, i.tree, i.mtime)
		if err == nil {
			_, err = w.Write(i.disk)
		}
		w.CloseWithError(err)
	}()
	return r, nil
}

// untilDone is a writer that fails when the work is interrupted.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}

// readOnly is a device that nothing is written to.
type readOnly struct{ io.ReaderAt }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, os.ErrPermission }
func (readOnly) Sync() error                        { return nil }

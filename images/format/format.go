// Package format writes disk images in the formats that platforms want, from a raw
// image. Every writer reads the image once or twice from front to back, skips holes
// and zeros, packs on all processors where the format has parts that can be packed
// alone, needs memory for a few pieces of the disk, and writes bytes that depend on
// the disk's content and the Options alone.
package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/iso9660"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/diskspace"
	"github.com/kiln-os/kiln/internal/sparse"
)

// Format is a file format of disk images.
type Format struct {
	Name  string
	Ext   string // of its files, with the dot
	About string // who reads it, for help texts

	write func(ctx context.Context, dst, src *os.File, size int64, o Options) error
}

// formats is the table of all formats.
var formats = []Format{
	{"raw", ".img", "the disk as it is: bare metal, QEMU, imagegen stamp and flash", writeRaw},
	{"raw.zst", ".img.zst", "raw, compressed by zstd", writeZstd},
	{"raw.xz", ".img.xz", "raw, compressed by xz", writeXZ},
	{"qcow2", ".qcow2", "QEMU, libvirt, OpenStack", writeQcow2},
	{"qcow2-compressed", ".qcow2", "the same, a smaller file", writeQcow2Compressed},
	{"vhd", ".vhd", "fixed VHD, whole MiB: Azure", writeVHD},
	{"vmdk", ".vmdk", "streamOptimized VMDK: VMware, import into other clouds", writeVMDK},
	{"ova", ".ova", "machine description and VMDK: VMware", writeOVA},
	{"powervs", ".ova.gz", "machine description and raw disk, packed: IBM Power Virtual Server", writePowerVS},
	{"gce", ".tar.gz", "disk.raw in a sparse tar, whole GiB: Google Cloud", writeGCE},
	{"pxe", ".pxe.tar", "kernel, initramfs with everything in it, iPXE script: boots without a disk, or installs to one", writePXE},
	{"iso", ".iso", "the same on a CD or USB stick", writeISO},
}

// All lists the formats.
func All() []Format { return append([]Format(nil), formats...) }

// Names lists the names of all formats.
func Names() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.Name)
	}
	return names
}

// Get returns the format with the given name.
func Get(name string) (Format, error) {
	for _, f := range formats {
		if f.Name == name {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("unknown image format %q; Kiln writes %s", name, strings.Join(Names(), ", "))
}

// ForFile returns the format that a file's name stands for: qcow2 is the one that
// is not compressed.
func ForFile(path string) (Format, error) {
	best := Format{}
	for _, f := range append(All(), Format{Name: "raw", Ext: ".raw", write: writeRaw}) {
		// .img.zst ends in no other format's extension, and .tar.gz in none either.
		if strings.HasSuffix(path, f.Ext) && len(f.Ext) > len(best.Ext) {
			best = f
		}
	}
	if best.Ext == "" {
		return best, fmt.Errorf("%s: the name says no image format; give one of %s", path, strings.Join(Names(), ", "))
	}
	return best, nil
}

// Epoch is the time in formats that have one, unless Options says another: that of
// VHD begins here.
var Epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Options of Write.
type Options struct {
	// Name is that of the disk or machine, in formats that have one, and what their
	// identifiers are derived from: letters, digits, dots and dashes.
	Name string
	// Time is that in formats that have one; zero means Epoch.
	Time time.Time
	// Progress, if not nil, is told the number of bytes of the image after each part.
	Progress func(n int64)
}

func (o Options) time() time.Time {
	if o.Time.IsZero() {
		return Epoch
	}
	return o.Time
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$`)

// Write writes the raw image src into the empty file dst.
func (f Format) Write(ctx context.Context, dst, src *os.File, o Options) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 || st.Size()%sector != 0 {
		return fmt.Errorf("%s has %d bytes: a disk has whole sectors of %d", src.Name(), st.Size(), sector)
	}
	if !plainName.MatchString(o.Name) {
		return fmt.Errorf("%q is no name for a disk: want letters, digits, dots and dashes", o.Name)
	}
	return f.write(ctx, dst, src, st.Size(), o)
}

const (
	sector = 512
	mib    = 1 << 20
	gib    = 1 << 30
)

// Convert writes the raw image in the file src to the file dst, whole or not at all,
// with mode 0600: images of nodes hold keys.
func (f Format) Convert(ctx context.Context, dst, src string, o Options) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	have, err := Detect(in)
	if err != nil {
		return err
	}
	if have != Raw {
		return fmt.Errorf("%s: %w", src, &NotRawError{have})
	}
	if same, err := sameFile(in, dst); err != nil || same {
		return errors.Join(err, fmt.Errorf("%s is the image itself", dst))
	}
	err = atomicfile.Write(dst, 0o600, func(out *os.File) error {
		return errors.Join(f.Write(ctx, out, in, o), ctx.Err())
	})
	if full := (*diskspace.FullError)(nil); errors.As(err, &full) {
		full.Path = dst // not the temporary file's
	}
	return err
}

func sameFile(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(a, b), err
}

// Kinds of files that Detect tells apart: what a format's file is as seen from its
// bytes.
const (
	Raw   = "raw"
	Zstd  = "zstd"
	XZ    = "xz"
	Qcow2 = "qcow2"
	VHD   = "VHD"
	VMDK  = "VMDK"
	Gzip  = "gzip"
	Tar   = "tar"
	ISO   = "ISO"
)

// magics are how the formats are recognised, at the file's beginning or, with a
// negative number, before its end.
var magics = []struct {
	at   int64
	text string
	kind string
}{
	{0, "\x28\xb5\x2f\xfd", Zstd},
	{0, "\xfd7zXZ\x00", XZ},
	{0, "QFI\xfb", Qcow2},
	{0, "KDMV", VMDK},
	{0, "\x1f\x8b", Gzip},
	{257, "ustar", Tar},
	{16*iso9660.BlockSize + 1, "CD001", ISO},
	{-sector, "conectix", VHD},
}

// Detect says what kind of image a file or disk is. All that has no mark of another
// kind is taken for raw.
func Detect(f io.ReadSeeker) (string, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	for _, m := range magics {
		at := m.at
		if at < 0 {
			at += size
		}
		if at < 0 || at+int64(len(m.text)) > size {
			continue
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return "", err
		}
		b := make([]byte, len(m.text))
		if _, err := io.ReadFull(f, b); err != nil {
			return "", err
		}
		if bytes.Equal(b, []byte(m.text)) {
			return m.kind, nil
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return Raw, err
}

// NotRawError says that an image is in another format than raw where only that
// will do.
type NotRawError struct{ Kind string }

func (e *NotRawError) Error() string {
	article := "a"
	if e.Kind == ISO || e.Kind == XZ {
		article = "an"
	}
	s := fmt.Sprintf("this is %s %s image, and a raw one is needed: ", article, e.Kind)
	switch e.Kind {
	case Zstd:
		return s + "zstd -d makes one of it"
	case XZ:
		return s + "xz -d makes one of it"
	case Gzip, Tar, ISO:
		return s + "imagegen build --format raw writes one"
	}
	return s + "qemu-img convert -O raw makes one of it, and imagegen build --format raw writes one"
}

func writeRaw(ctx context.Context, dst, src *os.File, _ int64, o Options) error {
	_, err := sparse.Copy(ctx, dst, src, o.Progress)
	return err
}

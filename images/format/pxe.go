package format

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/kiln-os/kiln/images/live"
	"github.com/kiln-os/kiln/images/tree"
)

// writePXE writes a tar archive of what a machine boots from over the network: kernel,
// initramfs, and a script for iPXE.
func writePXE(ctx context.Context, dst, src *os.File, _ int64, o Options) error {
	img, err := live.Open(ctx, src, o.time())
	if err != nil {
		return err
	}
	kernel, initramfs := o.Name+"-vmlinuz", o.Name+"-initramfs.img"
	// initrd= is how a kernel that UEFI started finds the file in iPXE.
	script := fmt.Sprintf("#!ipxe\nkernel %s initrd=%s %s\ninitrd %s\nboot\n", kernel, initramfs, img.CommandLine, initramfs)
	w := tar.NewWriter(dst)
	for _, f := range []struct {
		name    string
		content tree.Content
	}{
		{o.Name + ".ipxe", tree.Bytes(script)},
		{kernel, tree.Bytes(img.Kernel)},
		{initramfs, o.watched(img.Initramfs)},
	} {
		h := o.tarHeader(f.name, f.content.Size())
		h.Mode = 0o600 // the stamp has keys
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		r, err := f.content.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r)
		if e := r.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
	return w.Close()
}

// watched is content that tells Progress what was read of it.
func (o Options) watched(c tree.Content) tree.Content {
	if o.Progress == nil {
		return c
	}
	return watched{c, o.Progress}
}

type watched struct {
	tree.Content
	progress func(int64)
}

func (w watched) Open() (io.ReadCloser, error) {
	r, err := w.Content.Open()
	return watchedReader{r, w.progress}, err
}

type watchedReader struct {
	io.ReadCloser
	progress func(int64)
}

func (w watchedReader) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	w.progress(int64(n))
	return n, err
}

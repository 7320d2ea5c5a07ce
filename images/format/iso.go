package format

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/iso9660"
	"github.com/kiln-os/kiln/images/live"
	"github.com/kiln-os/kiln/images/tree"
)

// isoBoot is where a CD's boot partition begins: where images/disk puts the first one.
const isoBoot = mib

// ISOPartition is the name of the only partition of an ISO.
const ISOPartition = "kiln-live"

// writeISO writes a disk image with one partition, a boot partition, and the descriptors
// of a CD into the gap before it. So it boots from a CD and from a USB stick.
func writeISO(ctx context.Context, dst, src *os.File, _ int64, o Options) error {
	img, err := live.Open(ctx, src, o.time())
	if err != nil {
		return err
	}
	entry := func(number int, title, options string) tree.Content {
		return tree.Bytes(fmt.Sprintf("title %s\nsort-key kiln-%d\nlinux /kiln/vmlinuz\ninitrd /kiln/initramfs.img\noptions %s\n", title, number, options))
	}
	files := append(img.Loader,
		// Nothing is overwritten unless somebody chooses it. The editor is for the name of the
		// disk; who has the medium has what is on it in any case.
		esp.File{Path: "loader/loader.conf", Content: tree.Bytes("default live.conf\ntimeout 5\neditor yes\n")},
		esp.File{Path: "loader/entries/live.conf", Content: entry(1, o.Name+", without a disk", img.CommandLine)},
		esp.File{Path: "loader/entries/install.conf", Content: entry(2, "Install "+o.Name+" on the empty disk", img.CommandLine+" kiln.install")},
		esp.File{Path: "kiln/vmlinuz", Content: tree.Bytes(img.Kernel)},
		esp.File{Path: "kiln/initramfs.img", Content: o.watched(img.Initramfs)},
	)
	size := int64(0)
	for _, f := range files {
		size += f.Content.Size()
	}
	// Both FATs take 1/64 of a volume with the smallest clusters, which a small one has; FAT32
	// begins at 33 MiB.
	size = divUp(max(size+size/32+2*mib, 34*mib), mib) * mib
	id := disk.DerivedUUID("iso", o.Name)
	volume := esp.Options{Label: "KILN", VolumeID: uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3]), Time: o.time()}
	err = disk.Write(ctx, dst, disk.Disk{GUID: id, Partitions: []disk.Partition{{
		Name: ISOPartition, Type: disk.ESPType, UUID: disk.DerivedUUID("iso-boot", o.Name), Size: size,
		Fill: func(_ context.Context, w io.WriterAt, offset int64) error {
			return esp.Write(w, offset, size, volume, files)
		},
	}}})
	if err != nil {
		return err
	}
	st, err := dst.Stat()
	if err != nil {
		return err
	}
	return iso9660.Write(dst, iso9660.CD{Name: o.Name, Time: o.time(), Size: st.Size(), Boot: isoBoot, BootSize: size})
}

// Package nodeimagetest makes small base images for tests: partitions, boot
// partition, /usr, its hash tree and identifiers are those of a real one; what would
// run is not there.
package nodeimagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/images/grub/grubtest"
	"github.com/kiln-os/kiln/images/squashfs"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/uki"
	"github.com/kiln-os/kiln/images/uki/ukitest"
	"github.com/kiln-os/kiln/images/verity"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/profiles"
)

// Profile is the profile of the base images.
const Profile = "qemu-amd64"

// WriteBase makes a base image in dir whose /usr has the given number of MiB. The
// same number gives the same bytes.
func WriteBase(dir string, usrMiB int) error { return WriteBaseFor(dir, Profile, usrMiB) }

// WriteBaseFor is WriteBase for a profile.
func WriteBaseFor(dir, profile string, usrMiB int) error {
	p, err := profiles.Load(profile)
	if err != nil {
		return err
	}
	a, err := arch.Get(p.Arch)
	if err != nil {
		return err
	}
	p.Disk.ESP, p.Disk.Usr, p.Disk.Verity = 34, usrMiB+8, 1+usrMiB/100
	usrFile, verityFile := filepath.Join(dir, "usr"), filepath.Join(dir, "verity")
	made := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	hash, err := writeUsr(usrFile, verityFile, usrMiB, made)
	if err != nil {
		return err
	}
	boot, err := boot(a, uki.Sections{
		OSRel: []byte(osRelease), Cmdline: fmt.Appendf(nil, "root=none usrhash=%x quiet", hash), Uname: []byte("6.12"), Linux: bytes.Repeat([]byte("a kernel"), 100_000),
	})
	if err != nil {
		return err
	}
	err = nodeimage.WriteBase(context.Background(), dir, nodeimage.Parts{
		Profile: p, Arch: a, Time: made, Usr: usrFile, Verity: verityFile, RootHash: hash,
		Boot: boot, Kernel: "6.12",
	})
	return errors.Join(err, os.Remove(usrFile), os.Remove(verityFile))
}

// boot makes what leads from an architecture's firmware to a system.
func boot(a arch.Arch, s uki.Sections) (nodeimage.Boot, error) {
	if a.Boot == arch.BootPReP {
		core, err := grub.Core(grub.Parts{Kernel: grubtest.Kernel(), Modules: [][]byte{grubtest.Module("fat")}, Prefix: nodeimage.GRUBPrefix})
		if err != nil {
			return nodeimage.Boot{}, err
		}
		s.Initrd = []byte("an initramfs")
		return nodeimage.BootPReP(core, s)
	}
	image, err := uki.Build(ukitest.Stub(), s)
	return nodeimage.BootEFI(a, []byte("a boot loader"), image), err
}

const (
	osRelease = "PRETTY_NAME=\"Kiln on Debian GNU/Linux 13 (trixie)\"\nID=debian\nIMAGE_ID=kiln\nIMAGE_VERSION=v0.0.1\nKILN_PAYLOAD=compile\nKILN_KUBERNETES=v1.37.2\n"
	payload   = `{"source": "compile", "arch": "amd64", "kubernetes": "v1.37.2", "parts": [{"name": "etcd", "version": "v3.6.5"}, {"name": "kubelet", "version": "v1.37.2"}]}`
)

// writeUsr writes a /usr of random bytes, with what an image says of itself, and its
// hash tree.
func writeUsr(usrFile, verityFile string, usrMiB int, made time.Time) (hash [32]byte, err error) {
	t := tree.New()
	noise := make([]byte, usrMiB<<20)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte("usr"))).Read(noise)
	lock := deb.Lock{Suite: "trixie", Arch: "amd64", Components: []string{"main"}, Date: made, Packages: []deb.LockedPackage{
		{Name: "systemd", Version: "257.9-1", Arch: "amd64", Filename: "pool/s.deb", Size: 1, SHA256: strings.Repeat("0", 64)},
	}}
	packages, err := lock.Marshal()
	if err != nil {
		return hash, err
	}
	t.AddFile("lib/os-release", 0o644, []byte(osRelease))
	t.AddFile("lib/noise", 0o644, noise)
	t.AddFile("share/kiln/payload.json", 0o644, []byte(payload))
	t.AddFile("share/kiln/packages.yaml", 0o644, packages)
	if err := squashfs.Write(context.Background(), t, usrFile, made, squashfs.Options{Level: zstd.SpeedFastest}); err != nil {
		return hash, err
	}
	in, err := os.Open(usrFile)
	if err != nil {
		return hash, err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return hash, err
	}
	out, err := os.Create(verityFile)
	if err != nil {
		return hash, err
	}
	hash, err = verity.Write(context.Background(), in, st.Size(), [32]byte{1}, uuid.UUID{2}, out)
	return hash, errors.Join(err, out.Close())
}

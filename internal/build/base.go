package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/cpio"
	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/initrd"
	"github.com/kiln-os/kiln/images/kmod"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/images/squashfs"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/uki"
	"github.com/kiln-os/kiln/images/verity"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/profiles"
)

// Files of /usr while a base is made.
const (
	usrFile    = "usr.squashfs"
	verityFile = "usr.verity"
)

// inputs decide every byte of a base.
type inputs struct {
	arch     arch.Arch
	profile  profiles.Profile
	packages *tree.Tree
	lock     *deb.Lock // what packages was unpacked from
	programs programs
	payload  payloadParts
	time     time.Time
	release  string
}

// makeBase makes a base image in dir.
func makeBase(ctx context.Context, in inputs, dir string, step func(string)) error {
	vars := varsOf(in.arch, in.profile)
	t := in.packages
	installed, err := osPrograms(in.programs)
	if err != nil {
		return err
	}
	if err := osbase.Configure(t, installed, vars, in.release); err != nil {
		return err
	}
	addProfileFiles(t, in.profile)
	if err := describePayload(t, in); err != nil {
		return err
	}
	if err := describePackages(t, in.lock); err != nil {
		return err
	}
	kernel, err := osbase.KernelVersion(t)
	if err != nil {
		return err
	}
	step("index kernel modules")
	if err := kmod.Index(ctx, t, kernel); err != nil {
		return err
	}

	step("pack the initramfs")
	asker, err := userdataContent(in)
	if err != nil {
		return err
	}
	ird, err := initrd.Build(t, kernel, in.profile.InitrdModules, asker, vars)
	if err != nil {
		return err
	}
	packed, err := packInitrd(ird, in.time)
	if err != nil {
		return err
	}
	vmlinuz, err := osbase.KernelImage(t, in.arch.KernelFile, kernel)
	if err != nil {
		return err
	}
	starts, err := loaderOf(t, in.arch)
	if err != nil {
		return err
	}
	osrel, err := t.ReadFile("usr/lib/os-release")
	if err != nil {
		return err
	}
	boot, err := bootFiles(t, in.profile.BootFiles)
	if err != nil {
		return err
	}

	step("compose container images")
	names, err := addImages(t, in)
	if err != nil {
		return err
	}

	step("pack /usr")
	usr, err := osbase.Seal(t)
	if err != nil {
		return err
	}
	shareFiles(usr)
	usrPath := filepath.Join(dir, usrFile)
	if err := squashfs.Write(ctx, usr, usrPath, in.time, squashfs.Options{Level: zstd.SpeedBetterCompression}); err != nil {
		return err
	}

	step("hash /usr")
	hash, err := writeVerity(ctx, usrPath, filepath.Join(dir, verityFile), in)
	if err != nil {
		return err
	}
	chain, err := starts(uki.Sections{
		OSRel: osrel, Cmdline: []byte(commandLine(in.profile, hash)), Uname: []byte(kernel), Initrd: packed, Linux: vmlinuz,
	})
	if err != nil {
		return err
	}
	step("assemble the base image")
	verityPath := filepath.Join(dir, verityFile)
	err = nodeimage.WriteBase(ctx, dir, nodeimage.Parts{
		Profile: in.profile, Arch: in.arch, Time: in.time, Usr: usrPath, Verity: verityPath, RootHash: hash,
		Boot: chain, BootFiles: boot, Kernel: kernel, Images: names,
	})
	return errors.Join(err, os.Remove(usrPath), os.Remove(verityPath))
}

func packInitrd(t *tree.Tree, mtime time.Time) ([]byte, error) {
	var out bytes.Buffer
	// One encoder thread: blocks are cut the same way on every host.
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	if err := cpio.Write(z, t, mtime); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeVerity(ctx context.Context, data, out string, in inputs) (hash [32]byte, err error) {
	f, err := os.Open(data)
	if err != nil {
		return hash, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return hash, err
	}
	o, err := os.Create(out)
	if err != nil {
		return hash, err
	}
	defer o.Close()
	// The salt is derived: it keeps equal blocks of different profiles apart, and is no secret.
	salt := sha256.Sum256([]byte("kiln verity " + in.profile.Name + " " + in.release))
	id := disk.DerivedUUID("verity", in.profile.Name, in.release)
	if hash, err = verity.Write(ctx, f, st.Size(), salt, uuid.UUID(id), o); err != nil {
		return hash, fmt.Errorf("hash tree of /usr: %w", err)
	}
	return hash, o.Close()
}

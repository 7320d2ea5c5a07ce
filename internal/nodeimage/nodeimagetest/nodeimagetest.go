// Package nodeimagetest makes small base images for tests: partitions, boot
// partition and identifiers are those of a real one; what would run is not there.
package nodeimagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/profiles"
)

// Profile is the profile of the base images.
const Profile = "qemu-amd64"

// WriteBase makes a base image in dir whose /usr has the given number of MiB. The
// same number gives the same bytes.
func WriteBase(dir string, usrMiB int) error {
	p, err := profiles.Load(Profile)
	if err != nil {
		return err
	}
	a, err := arch.Get(p.Arch)
	if err != nil {
		return err
	}
	p.Disk.ESP, p.Disk.Usr, p.Disk.Verity = 34, usrMiB+8, 1
	random := rand.NewChaCha8(sha256.Sum256([]byte("usr")))
	usr := make([]byte, usrMiB<<20)
	_, _ = random.Read(usr)
	usrFile, verityFile := filepath.Join(dir, "usr"), filepath.Join(dir, "verity")
	err = errors.Join(os.WriteFile(usrFile, usr, 0o600), os.WriteFile(verityFile, usr[:4096], 0o600))
	if err != nil {
		return err
	}
	err = nodeimage.WriteBase(context.Background(), dir, nodeimage.Parts{
		Profile: p, Arch: a, Time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Usr: usrFile, Verity: verityFile, RootHash: sha256.Sum256(usr),
		Loader: []byte("a boot loader"), UKI: bytes.Repeat([]byte("a kernel"), 100_000), Kernel: "6.12",
	})
	return errors.Join(err, os.Remove(usrFile), os.Remove(verityFile))
}

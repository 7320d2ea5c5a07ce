//go:build boot

package qemutests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/squashfs"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/verity"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/payload"
)

// testDiskFaults boots disks that are not what was built, or too small for it.
func testDiskFaults(t *testing.T) {
	n := bake(t)
	usr := partition(t, n.image, "kiln-usr-a")

	early := n.copyOf(t, "early")
	flip(t, early, usr.Offset+8) // a byte of the superblock's time: nothing but dm-verity would notice
	late := n.copyOf(t, "late")
	// The first block of Kubernetes' program that it shares with no other file.
	flip(t, late, usr.Offset+n.firstBlock(t, usr, "bin/"+payload.Kubernetes)+verity.BlockSize)
	stamp := n.copyOf(t, "stamp")
	damageStamp(t, stamp)

	// A byte that is needed early is not used: no /usr. The machine sleeps while the
	// next ones run.
	usrEarly := n.startFaulty(t, "usr-early", early, nil)
	usrEarly.says(t, 0, usrEarly.slow(time.Minute),
		`device-mapper: verity: \S+: data block 0 is corrupted`,
		`Kiln: /usr on this disk is not what was built: .*Write the image again`, `Kiln: this boot has stopped; .* tried again in 5 minutes`)
	again := usrEarly.Console().Mark()

	// On a worn card a byte of the stamp changes: the node says so instead of
	// becoming half a node.
	stamped := n.startFaulty(t, "stamp", stamp, nil)
	stamped.says(t, 0, stamped.slow(time.Minute),
		`Kiln: the stamp is damaged: .*imagegen stamp`, `Kiln: this boot has stopped; .* tried again in 5 minutes`)
	stamped.end(t)

	// systemd-repart knows the sizes; what would be right is the image's to say.
	small := n.startFaulty(t, "disk-too-small", n.image, func(c *qemu.Config) { c.Disks[0].SizeBytes = 4 << 30 })
	small.says(t, 0, small.slow(time.Minute),
		`Can't fit requested partitions`, `minimal disk image size as 7\.9G, current image size is 4G`,
		`Kiln: the disk cannot be laid out; .*at least 8192 MiB`, `\bvda +4G\b`, `Kiln: this boot has stopped`)
	small.end(t)

	// A byte that is needed late is not used either: whatever needs it fails, and goes
	// on trying; the rest of the node works.
	usrLate := n.startFaulty(t, "usr-late", late, func(c *qemu.Config) { c.Net = isolatedNet() })
	usrLate.says(t, 0, usrLate.slow(3*time.Minute),
		`device-mapper: verity: \S+: data block \d+ is corrupted`,
		`Kiln: a block of /usr is not what was built; .*Write the image again`,
		`phase preflight: 1 of the preflight checks failed`, `\[ERROR KubeletVersion\]: kubelet: .*input/output error`,
		`damaged +/usr on this disk is not what was built: write the image again`, // the login screen
	)
	tried := usrLate.Console().Mark()
	usrLate.says(t, tried, usrLate.slow(time.Minute), `preflight: checking the machine`)
	usrLate.end(t)

	// A block that could not be read once gets another chance.
	usrEarly.says(t, again, 5*time.Minute+usrEarly.slow(time.Minute), `Linux version \d`, `Kiln: /usr on this disk is not what was built`)
}

// partition returns the partition of an image that has the name.
func partition(t *testing.T, image, name string) disk.Placed {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := disk.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range table.Partitions {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("%s has no partition %s", image, name)
	return disk.Placed{}
}

// firstBlock returns where in /usr the data of a file begins: the squashfs of the
// same file alone begins with the same compressed block.
func (n *node) firstBlock(t *testing.T, usr disk.Placed, path string) int64 {
	t.Helper()
	const superblock, enough = 96, 2 * verity.BlockSize
	content, err := testtools.Command(t, "unsquashfs", "-offset", strconv.FormatInt(usr.Offset, 10), "-cat", n.image, path).Output()
	if err != nil || len(content) < 16<<20 {
		t.Fatalf("unsquashfs: %d bytes, %v", len(content), err)
	}
	alone, packed := tree.New(), filepath.Join(t.TempDir(), "alone.squashfs")
	alone.AddFile("file", 0o644, content[:16<<20])
	if err := squashfs.Write(t.Context(), alone, packed, time.Unix(0, 0), squashfs.Options{Level: zstd.SpeedBetterCompression}); err != nil {
		t.Fatal(err)
	}
	block, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(n.image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, usr.Size)
	if _, err := f.ReadAt(data, usr.Offset); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, block[superblock:superblock+enough])
	if at < 0 {
		t.Fatalf("/usr/%s does not begin in %s as it does alone", path, n.image)
	}
	return int64(at)
}

// damageStamp changes the node's name in the stamp of an image.
func damageStamp(t *testing.T, image string) {
	t.Helper()
	const config = "::/kiln/config.ign"
	volume := fmt.Sprintf("%s@@%d", image, partition(t, image, "kiln-esp").Offset) // as mtools want it
	content, err := testtools.Command(t, "mtype", "-i", volume, config).Output()
	if err != nil || !bytes.Contains(content, []byte(nodeName)) {
		t.Fatalf("the stamp: %v", err)
	}
	damaged := filepath.Join(t.TempDir(), "config.ign")
	if err := os.WriteFile(damaged, bytes.Replace(content, []byte(nodeName), []byte("story-2"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := testtools.Command(t, "mcopy", "-o", "-n", "-i", volume, damaged, config).CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, out)
	}
}

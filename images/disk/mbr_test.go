package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/testtools"
)

func hybrid(t *testing.T) (string, Disk) {
	t.Helper()
	img, d := filepath.Join(t.TempDir(), "disk.img"), sample(t)
	d.HybridMBR = true
	if err := Create(context.Background(), img, d, 0o600); err != nil {
		t.Fatal(err)
	}
	return img, d
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := testtools.Command(t, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// checkHybrid has the reference tools look at both tables.
func checkHybrid(t *testing.T, img string) {
	t.Helper()
	if out := tool(t, "sgdisk", "-v", "-p", img); !strings.Contains(out, "No problems found") || !strings.Contains(out, "kiln-usr-a") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	if out := tool(t, "fdisk", "-l", img); !strings.Contains(out, "Disklabel type: gpt") || !strings.Contains(strings.ToLower(out), "hybrid") {
		t.Errorf("fdisk does not see a GUID partition table with a hybrid MBR:\n%s", out)
	}
	// What reads no GUID partition table.
	out := tool(t, "fdisk", "-l", "-t", "dos", img)
	for _, want := range []string{
		`disk\.img1 +\* +2048 +73727 +71680 +35M +c W95 FAT32 \(LBA\)`,
		`disk\.img2 +1 +2047 +2047 .* ee GPT`,
		`disk\.img3 +73728 .* ee GPT`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("fdisk -t dos does not show %s:\n%s", want, out)
		}
	}
}

func TestHybridMBR(t *testing.T) {
	img, d := hybrid(t)
	checkHybrid(t, img)
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	const golden = "78e83abcb7cfab2cfc79853e270f8816abdee7604956ab9ea9542be293f8685d"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	// The same disk but for the first sector.
	plain := filepath.Join(t.TempDir(), "plain.img")
	d.HybridMBR = false
	if err := Create(context.Background(), plain, d, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := os.ReadFile(plain); err != nil || !bytes.Equal(p[sector:], b[sector:]) {
		t.Errorf("it differs from a disk with a protective MBR behind the first sector (%v)", err)
	}
	if err := Create(context.Background(), plain, Disk{HybridMBR: true}, 0o600); err == nil {
		t.Error("there is no partition, and no error")
	}
}

// TestHybridMBRStays has the table changed by everything that changes it: the state
// partition is added at the first boot, and the disk is larger than the image.
func TestHybridMBRStays(t *testing.T) {
	state := DerivedUUID("test", "state")
	for name, change := range map[string]func(*testing.T, string){
		"systemd-repart": func(t *testing.T, img string) {
			dir := t.TempDir()
			conf := "[Partition]\nType=linux-generic\nLabel=kiln-state\nUUID=" + state.String() + "\nSizeMinBytes=64M\n"
			for file, text := range map[string]string{"10.conf": "[Partition]\nType=esp\n", "20.conf": "[Partition]\nType=usr-x86-64\n", "40.conf": conf} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tool(t, "systemd-repart", "--definitions="+dir, "--dry-run=no", "--empty=refuse", "--size=auto", img)
		},
		"sgdisk": func(t *testing.T, img string) {
			tool(t, "sgdisk", "-e", "-n", "3:0:0", "-c", "3:kiln-state", "-u", "3:"+state.String(), img)
		},
	} {
		t.Run(name, func(t *testing.T) {
			img, _ := hybrid(t)
			read := func() []byte {
				b, err := os.ReadFile(img)
				if err != nil {
					t.Fatal(err)
				}
				// sgdisk lets the third entry grow with the disk.
				return b[446:478]
			}
			first := read()
			if err := os.Truncate(img, 256<<20); err != nil {
				t.Fatal(err)
			}
			change(t, img)
			if got := read(); !bytes.Equal(got, first) {
				t.Errorf("the first two entries are\n%x\nand were\n%x", got, first)
			}
			checkHybrid(t, img)

			f, err := os.OpenFile(img, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			table, err := Read(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := table.Find(state); !ok || len(table.Partitions) != 3 {
				t.Fatalf("partitions: %+v", table.Partitions)
			}
			if err := table.Remove(f, state); err != nil {
				t.Fatal(err)
			}
			if got := read(); !bytes.Equal(got, first) {
				t.Error("Remove has changed the first two entries")
			}
			checkHybrid(t, img)
		})
	}
}

func TestCHS(t *testing.T) {
	for lba, want := range map[int64][3]byte{0: {0, 1, 0}, 1: {0, 2, 0}, 2048: {32, 33, 0}, 63 * 255 * 300: {0, 0x41, 44}, 1 << 33: {254, 255, 255}} {
		if got := [3]byte(chs(lba)); got != want {
			t.Errorf("sector %d: %v, want %v", lba, got, want)
		}
	}
}

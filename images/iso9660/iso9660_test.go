package iso9660

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/testtools"
)

func sample() CD {
	return CD{Name: "kiln-1.example", Time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Size: 3 << 20, Boot: 1 << 20, BootSize: 1 << 20}
}

// TestWrite: xorriso reads the descriptors and the file, and all but them is as before.
func TestWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.iso")
	before := bytes.Repeat([]byte("content "), 3<<17)
	f, err := os.Create(name)
	if err == nil {
		_, err = f.Write(before)
	}
	if err = errors.Join(err, Write(f, sample()), f.Close()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(after[:Start], before[:Start]) || !bytes.Equal(after[End:], before[End:]) {
		t.Errorf("more than the descriptors was written: %v", err)
	}
	sum := sha256.Sum256(after[Start:End])
	const golden = "9be9c9d419ef5747d263226e48008134a1b0bcc638cceb422aaf30328e5c8b43"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	out := filepath.Join(t.TempDir(), "efi.img")
	text, err := testtools.Command(t, "xorriso", "-osirrox", "on", "-indev", name, "-pvd_info", "-report_el_torito", "plain", "-extract", "/"+BootFile, out).CombinedOutput()
	if err != nil {
		t.Fatalf("xorriso: %v\n%s", err, text)
	}
	for _, want := range []string{"KILN_1_EXAMPLE", "20260102030406", "UEFI"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("xorriso does not say %q:\n%s", want, text)
		}
	}
	if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, before[1<<20:2<<20]) {
		t.Errorf("the file has %d other bytes, %v", len(b), err)
	}
}

func TestRefuses(t *testing.T) {
	for want, change := range map[string]func(*CD){
		"whole blocks of 2048":    func(c *CD) { c.Size++ },
		"behind byte 47104":       func(c *CD) { c.Boot = 32 << 10 },
		"of 2097153 bytes at":     func(c *CD) { c.BootSize = 2<<20 + 1 },
		"less than 4 GiB":         func(c *CD) { c.BootSize, c.Size = 4<<30, 5<<30 },
		"year 2200":               func(c *CD) { c.Time = c.Time.AddDate(174, 0, 0) },
		"volume of 0 bytes":       func(c *CD) { c.BootSize = 0 },
		"at byte 1048577 of 3145": func(c *CD) { c.Boot++ },
	} {
		c := sample()
		change(&c)
		if err := Write(nil, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

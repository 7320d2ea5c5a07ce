//go:build boot

package qemutests

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/testtools"
)

// TestDamagedStamp boots an image in whose stamp a byte has changed, as on a worn
// SD card: the node says so instead of becoming half a node.
func TestDamagedStamp(t *testing.T) {
	n := bake(t)
	before, err := os.Stat(n.image)
	if err != nil {
		t.Fatal(err)
	}
	const config = "::/kiln/config.ign"
	volume := n.image + "@@1048576" // the boot partition, as mtools want it
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
	// It was not the machine who changed it, see bake.
	if err := os.Chtimes(n.image, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	n.boot(t)
	line, err := n.machine.Console().WaitFor(n.within(t, 3*time.Minute), regexp.MustCompile(`the stamp is damaged: .*imagegen stamp`))
	if err != nil {
		t.Fatal(err)
	}
	t.Log(line.Text)
}

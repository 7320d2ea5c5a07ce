package flash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
)

func identity(name, more string) nodeimage.Identity {
	text := strings.Replace(config, "worker-7", name, 1) + more
	return nodeimage.Identity{Node: name, Profile: nodeimagetest.Profile, Config: secret.FromString(text)}
}

// card is a file in the place of a card with the image of worker-7.
func card(t *testing.T) string {
	t.Helper()
	path := dirty(t, 8<<30)
	flashTo(t, openImage(t, image(t)), path)
	return path
}

func target(t *testing.T, path string) *Target {
	t.Helper()
	d, err := CheckCard(path)
	if err != nil {
		t.Fatal(err)
	}
	target, err := OpenTarget(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() })
	return target
}

func nodeOn(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, node, err := nodeimage.NodeOf(f)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func TestStampCard(t *testing.T) {
	path := card(t)
	c := target(t, path)
	for _, step := range []struct{ holds, next string }{
		{"the image of node worker-7", "worker-8"},
		{"the image of node worker-8", "worker-9"},
	} {
		holds, err := c.Holds(step.next, nodeimagetest.Profile, false)
		if err != nil || holds != step.holds {
			t.Errorf("holds %q, %v, want %q", holds, err, step.holds)
		}
		w, err := c.Stamp(t.Context(), identity(step.next, ""), false)
		if err != nil || w.Stamp == 0 || w.Stamp > 1<<20 {
			t.Errorf("%+v, %v", w, err)
		}
		if got := nodeOn(t, path); got != step.next {
			t.Errorf("node %q, want %s", got, step.next)
		}
	}
	if _, err := c.Holds("worker-8", "metal-amd64", false); err == nil || !strings.Contains(err.Error(), "an image of profile qemu-amd64, but node worker-8 has profile metal-amd64") {
		t.Errorf("another profile: %v", err)
	}
}

func TestStampCardThatBooted(t *testing.T) {
	path := card(t)
	state := nodeimage.IDsOf(nodeimagetest.Profile).State.String()
	if out, err := testtools.Command(t, "sgdisk", "-e", "-n", "4:0:0", "-c", "4:kiln-state", "-u", "4:"+state, path).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	c := target(t, path)
	if _, err := c.Holds("worker-8", nodeimagetest.Profile, false); !errors.Is(err, nodeimage.ErrBooted) || !strings.Contains(err.Error(), path) {
		t.Errorf("booted: %v", err)
	}
	if _, err := c.Stamp(t.Context(), identity("worker-8", ""), false); !errors.Is(err, nodeimage.ErrBooted) {
		t.Errorf("booted: %v", err)
	}
	if got := nodeOn(t, path); got != "worker-7" {
		t.Errorf("a refused card is node %s", got)
	}
	holds, err := c.Holds("worker-8", nodeimagetest.Profile, true)
	if err != nil || !strings.HasPrefix(holds, "the image of node worker-7, with the state of a node that has been booted") {
		t.Errorf("reset: %q, %v", holds, err)
	}
	if _, err := c.Stamp(t.Context(), identity("worker-8", ""), true); err != nil {
		t.Fatal(err)
	}
	if holds, err := c.Holds("worker-9", nodeimagetest.Profile, false); err != nil || holds != "the image of node worker-8" {
		t.Errorf("after the reset: %q, %v", holds, err)
	}
}

// TestStampBrokenCards: the error says what is wrong with the card, and which node it
// is afterwards is one of the two.
func TestStampBrokenCards(t *testing.T) {
	for name, c := range map[string]struct {
		disk broken
		want string
	}{
		"pulled out while writing":  {broken{failWrite: 3}, "was it pulled out, or is it broken? It has the old stamp or the new one"},
		"pulled out while flushing": {broken{failSync: syscall.ENODEV}, "was it pulled out"},
		"pulled out while reading":  {broken{failRead: syscall.EIO}, "was it pulled out"},
		"takes no data":             {broken{failSync: syscall.ENOSPC}, "was it pulled out"},
		"another error":             {broken{failSync: errors.New("odd")}, "odd"},
		// The stamp's clusters are behind those of the programs.
		"reads back wrong": {broken{liesIn: "worker-8"}, "reads back differently: the stamp is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := card(t)
			on := target(t, path)
			file := on.dev.(fileDevice).File
			c.disk.File = file
			on.dev = &c.disk
			_, err := on.Stamp(t.Context(), identity("worker-8", ""), false)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
				t.Errorf("error %v", err)
			}
			if got := nodeOn(t, path); got != "worker-7" && got != "worker-8" {
				t.Errorf("the card is node %q", got)
			}
			// The same command again, on a card that works, finishes it.
			on.dev = fileDevice{file}
			if _, err := on.Stamp(t.Context(), identity("worker-8", ""), false); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestResetBrokenCards: a card that has been booted and is pulled out while its state is
// removed says so, and the same command finishes it.
func TestResetBrokenCards(t *testing.T) {
	path := card(t)
	state := nodeimage.IDsOf(nodeimagetest.Profile).State.String()
	booted := func() {
		t.Helper()
		if out, err := testtools.Command(t, "sgdisk", "-e", "-n", "4:0:0", "-c", "4:kiln-state", "-u", "4:"+state, path).CombinedOutput(); err != nil {
			t.Fatalf("sgdisk: %v\n%s", err, out)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reset := func(d *broken) error {
		d.File = f
		_, err := (&Target{Disk: Disk{Path: path}, dev: d}).Stamp(t.Context(), identity("worker-8", ""), true)
		return err
	}
	booted()
	all := &broken{}
	if err := reset(all); err != nil || all.writes < 5 {
		t.Fatalf("%d writes, %v", all.writes, err)
	}
	// The last writes are those of the partition table.
	for n := all.writes - 3; n <= all.writes; n++ {
		booted()
		if err := reset(&broken{failWrite: n}); err == nil || !strings.Contains(err.Error(), "was it pulled out") || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("write %d: %v", n, err)
		}
		if err := reset(&broken{}); err != nil {
			t.Errorf("again after write %d: %v", n, err)
		}
		on := target(t, path)
		if _, err := on.Holds("worker-8", nodeimagetest.Profile, false); err != nil {
			t.Errorf("after write %d: %v", n, err)
		}
		if err := on.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestStampTooLarge: the boot partition is full, and stays as it is.
func TestStampTooLarge(t *testing.T) {
	path := card(t)
	on := target(t, path)
	_, err := on.Stamp(t.Context(), identity("worker-8", strings.Repeat(" ", 40<<20)), false)
	if err == nil || !strings.Contains(err.Error(), path+": boot partition: too little space") {
		t.Errorf("error %v", err)
	}
	if got := nodeOn(t, path); got != "worker-7" {
		t.Errorf("the card is node %q", got)
	}
}

// TestStampUsedCard: somebody has put files on the boot partition, Windows first, which
// leaves a folder wherever it has been. They stay, whether the stamp still fits or not.
func TestStampUsedCard(t *testing.T) {
	path := card(t)
	boot := path + "@@1M" // where the boot partition begins
	mtools := func(args ...string) string {
		t.Helper()
		out, err := testtools.Command(t, args[0], append([]string{"-i", boot}, args[1:]...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	file := func(size int) string {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	mtools("mmd", "::/System Volume Information")
	mtools("mcopy", file(12), "::/System Volume Information/WPSettings.dat")
	mib := file(1 << 20)
	n := 0
	for ; n < 40; n++ {
		out, err := testtools.Command(t, "mcopy", "-i", boot, mib, fmt.Sprintf("::/holiday%d.jpg", n)).CombinedOutput()
		if err != nil {
			if !strings.Contains(string(out), "Disk full") {
				t.Fatalf("mcopy: %v\n%s", err, out)
			}
			break
		}
	}
	if n == 0 || n == 40 {
		t.Fatalf("room for %d MiB", n)
	}
	on := target(t, path)
	_, err := on.Stamp(t.Context(), identity("worker-8", strings.Repeat(" ", 2<<20)), false)
	if err == nil || !strings.Contains(err.Error(), path+": boot partition: too little space") {
		t.Errorf("full: %v", err)
	}
	if got := nodeOn(t, path); got != "worker-7" {
		t.Errorf("the card is node %q", got)
	}
	if _, err := on.Stamp(t.Context(), identity("worker-8", ""), false); err != nil {
		t.Error(err)
	}
	if got := nodeOn(t, path); got != "worker-8" {
		t.Errorf("the card is node %q", got)
	}
	for _, name := range []string{fmt.Sprintf("holiday%d.jpg", n-1), "System Volume Information"} {
		if out := mtools("mdir", "-b", "::/"); !strings.Contains(out, name) {
			t.Errorf("%s is gone:\n%s", name, out)
		}
	}
}

// TestWrongArchitecture: an image whose /usr is of another architecture than its
// profile is neither flashed nor stamped.
func TestWrongArchitecture(t *testing.T) {
	path := image(t)
	foreign, err := arch.Get("arm64")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := testtools.Command(t, "sgdisk", "-t", "2:"+foreign.UsrType, path).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	const want = "its partition kiln-usr-a is for arm64, and its profile, qemu-amd64, for amd64"
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
		t.Errorf("flashed: %v", err)
	}
	if _, err := target(t, path).Holds("worker-8", nodeimagetest.Profile, false); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("stamped: %v", err)
	}
}

func TestCheckCard(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                          "neither a disk nor a file",
		filepath.Join(dir, "absent"): "no such file",
		"/dev/null":                  "no disk that an image can be written to",
	} {
		if d, err := CheckCard(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, error %v, want %q", path, d, err, want)
		}
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := target(t, empty).Holds("worker-8", nodeimagetest.Profile, false); err == nil || !strings.Contains(err.Error(), empty+": this is no Kiln image") {
		t.Errorf("no image: %v", err)
	}
}

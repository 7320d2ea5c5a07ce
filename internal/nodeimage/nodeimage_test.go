package nodeimage_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/internal/testtools"
)

const espOffset, espSize = 1 << 20, 34 << 20

func base(t *testing.T) *nodeimage.Base {
	t.Helper()
	dir := t.TempDir()
	if err := nodeimagetest.WriteBase(dir, 2); err != nil {
		t.Fatal(err)
	}
	b, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func identity(name string) nodeimage.Identity {
	config := fmt.Sprintf(`{"ignition":{"version":"3.3.0"},"name":%q,"key":%q}`, name, strings.Repeat(name, 2000))
	return nodeimage.Identity{Node: name, Profile: nodeimagetest.Profile, Config: secret.FromString(config)}
}

func create(t *testing.T, b *nodeimage.Base, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".img")
	if _, err := b.Create(t.Context(), path, identity(name), nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkStamp has the reference tools read the image.
func checkStamp(t *testing.T, path, name string) {
	t.Helper()
	if out, err := testtools.Command(t, "sgdisk", "-v", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	volume := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(volume, read(t, path)[espOffset:espOffset+espSize], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := testtools.Command(t, "fsck.vfat", "-n", "-v", volume).CombinedOutput(); err != nil {
		t.Fatalf("fsck.vfat: %v\n%s", err, out)
	}
	file := func(name string) string {
		t.Helper()
		out, err := testtools.Command(t, "mtype", "-i", volume, "::/kiln/"+name).Output()
		if err != nil {
			t.Fatalf("mtype %s: %v", name, err)
		}
		return string(out)
	}
	config := identity(name).Config.RevealString()
	if got := file("config.ign"); got != config {
		t.Errorf("config.ign has %d bytes, want %d", len(got), len(config))
	}
	if got, want := file("config.ign.sha256"), fmt.Sprintf("%x  config.ign\n", sha256.Sum256([]byte(config))); got != want {
		t.Errorf("config.ign.sha256 is %q, want %q", got, want)
	}
}

func TestCreate(t *testing.T) {
	b := base(t)
	path := create(t, b, "one")
	checkStamp(t, path, "one")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	const golden = "becb3f4145195b3e9464574c31f8e5f5bd3d6e2d025da03042c09a0b1e2edc55"
	if got := fmt.Sprintf("%x", sha256.Sum256(read(t, path))); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	before, err := sparse.Digest(b.Image)
	if err != nil {
		t.Fatal(err)
	}
	create(t, b, "two")
	if after, err := sparse.Digest(b.Image); err != nil || after != before {
		t.Errorf("the base image changed: %v", err)
	}
	wrong := identity("three")
	wrong.Profile = "metal-amd64"
	if _, err := b.Create(t.Context(), path, wrong, nil); err == nil || !strings.Contains(err.Error(), "profile metal-amd64") {
		t.Errorf("another profile: %v", err)
	}
	checkStamp(t, path, "one")
}

// TestStamp: an image that was another node's becomes, byte for byte, what a new
// image would be.
func TestStamp(t *testing.T) {
	b := base(t)
	want := read(t, create(t, b, "new"))
	unstamped := filepath.Join(t.TempDir(), "unstamped.img")
	if err := os.WriteFile(unstamped, read(t, b.Image), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{create(t, b, "old"), create(t, b, "a-much-longer-name-than-the-others-have"), unstamped} {
		for range 2 {
			w, err := nodeimage.Stamp(t.Context(), path, identity("new"), false)
			if err != nil {
				t.Fatal(err)
			}
			if w.Base != 0 || w.Stamp < 8000 || w.Stamp > 1<<20 {
				t.Errorf("written: %+v", w)
			}
			if !bytes.Equal(read(t, path), want) {
				t.Fatalf("%s is not as a new image", path)
			}
		}
		checkStamp(t, path, "new")
	}
}

// booted grows an image and gives it the partitions that the first boot makes.
func booted(t *testing.T, b *nodeimage.Base, name string) string {
	t.Helper()
	path := create(t, b, name)
	if err := os.Truncate(path, 256<<20); err != nil {
		t.Fatal(err)
	}
	id := nodeimage.IDsOf(nodeimagetest.Profile).State.String()
	out, err := testtools.Command(t, "sgdisk", "-e", "-n", "4:0:+10M", "-c", "4:kiln-usr-b", "-n", "5:0:0", "-c", "5:kiln-state", "-u", "5:"+id, path).CombinedOutput()
	if err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte("keys of the old node"), 10_000), 200<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStampOfABootedImage(t *testing.T) {
	b := base(t)
	path := booted(t, b, "old")
	before := read(t, path)
	if _, err := nodeimage.Stamp(t.Context(), path, identity("new"), false); !errors.Is(err, nodeimage.ErrBooted) || !strings.Contains(err.Error(), path) {
		t.Fatalf("error %v", err)
	}
	if !bytes.Equal(read(t, path), before) {
		t.Fatal("a refused image was changed")
	}
	for range 2 { // the second time there is nothing to reset
		if _, err := nodeimage.Stamp(t.Context(), path, identity("new"), true); err != nil {
			t.Fatal(err)
		}
		checkStamp(t, path, "new")
		out, err := testtools.Command(t, "sgdisk", "-p", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), "kiln-state") || !strings.Contains(string(out), "kiln-usr-b") || !strings.Contains(string(out), "kiln-usr-a-verity") {
			t.Errorf("sgdisk: %v\n%s", err, out)
		}
	}
	if bytes.Contains(read(t, path), []byte("keys of the old node")) {
		t.Error("the state's content is still in the image")
	}
	// What is left is what was there: type, attributes and place of the others.
	for n := 1; n <= 4; n++ {
		got, want := sgdiskInfo(t, path, n), sgdiskInfo(t, booted(t, b, "old"), n)
		if n == 4 { // sgdisk chose its UUID at random
			got, want = unique(got), unique(want)
		}
		if got != want {
			t.Errorf("partition %d:\n%s\nwas\n%s", n, got, want)
		}
	}
}

func sgdiskInfo(t *testing.T, path string, n int) string {
	t.Helper()
	out, err := testtools.Command(t, "sgdisk", "-i", fmt.Sprint(n), path).CombinedOutput()
	if err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	return string(out)
}

func unique(info string) string {
	var keep []string
	for _, l := range strings.Split(info, "\n") {
		if !strings.Contains(l, "unique GUID") {
			keep = append(keep, l)
		}
	}
	return strings.Join(keep, "\n")
}

// TestStampRepairsThePartitionTable: a reset that was cut off may have left the
// first copy damaged.
func TestStampRepairsThePartitionTable(t *testing.T) {
	b := base(t)
	path := create(t, b, "old")
	want := read(t, create(t, b, "new"))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, 512), 1024)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := nodeimage.Stamp(t.Context(), path, identity("new"), false); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, path), want) {
		t.Error("the image is not as a new one")
	}
}

func TestStampRefuses(t *testing.T) {
	b := base(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := file("foreign.img", make([]byte, 64<<20))
	if out, err := testtools.Command(t, "sgdisk", "-n", "1:0:0", "-t", "1:ef00", foreign).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	for path, want := range map[string]string{
		file("empty", nil):                               "no Kiln image",
		file("zeros", make([]byte, 8<<20)):               "no Kiln image",
		file("a.qcow2", append([]byte("QFI\xfb"), 0, 0)): "qemu-img convert -O raw",
		foreign:                      "none of its partitions",
		dir:                          "neither a file nor a disk",
		"/dev/null":                  "neither a file nor a disk",
		filepath.Join(dir, "absent"): "no such file",
	} {
		if _, err := nodeimage.Stamp(t.Context(), path, identity("new"), true); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
	path := create(t, b, "old")
	want := read(t, path)
	other := identity("new")
	other.Profile = "metal-amd64"
	if _, err := nodeimage.Stamp(t.Context(), path, other, true); err == nil || !strings.Contains(err.Error(), "an image of profile qemu-amd64, but node new has profile metal-amd64") {
		t.Errorf("another profile: %v", err)
	}
	large := identity("new")
	large.Config = secret.FromString(strings.Repeat("x", 40<<20))
	if _, err := nodeimage.Stamp(t.Context(), path, large, true); err == nil || !strings.Contains(err.Error(), "too little space") {
		t.Errorf("no space: %v", err)
	}
	user, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	use(t, user)
	if _, err := nodeimage.Stamp(t.Context(), path, identity("new"), true); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("in use: %v", err)
	}
	if !bytes.Equal(read(t, path), want) {
		t.Error("a refused image was changed")
	}
	user.Close()
	if _, err := nodeimage.Stamp(t.Context(), path, identity("new"), false); err != nil {
		t.Error(err)
	}
}

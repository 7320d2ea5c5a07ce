//go:build faults

package faulttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kiln-os/kiln/internal/diskspace"
)

// mount mounts a file system until the test ends. The tests run as root, if only
// of a user name space: see the Makefile.
func mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, dir, kind, flags, data); err != nil {
		t.Fatalf("mount %s: %v", dir, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// tmpfs mounts a disk of so many KiB at a new folder.
func tmpfs(t *testing.T, kib int) string {
	t.Helper()
	dir := tempDir(t)
	mount(t, "none", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib))
	return dir
}

var fullMessage = regexp.MustCompile(`imagegen: .*: the disk is full: (more than )?\d+ [KM]iB needed, \d+ [KM]iB free; make room there`)

// wantFull fails unless the build says what is full, how much is needed and free.
func wantFull(t *testing.T, r result, where string) {
	t.Helper()
	wantError(t, r, 1, where)
	if !fullMessage.MatchString(r.stderr) {
		t.Errorf("it does not say how much is needed and free:\n%s", r.stderr)
	}
}

// TestFullOutput builds to disks that are filled at many levels: what was there
// stays whole, nothing half-made is left, and with room the build succeeds.
func TestFullOutput(t *testing.T) {
	rnd := seeded(t)
	cache := newCache(t)
	image, err := os.Stat(filepath.Join(golden, "kiln-1.img"))
	if err != nil {
		t.Fatal(err)
	}
	needs := int(image.Sys().(*syscall.Stat_t).Blocks / 2) // KiB
	levels := []int{8, 64, 200, 1 << 10, needs / 2, needs - 1<<10, needs + rnd.IntN(1<<10)}
	levels = append(levels, rnd.IntN(needs))
	for i, kib := range levels {
		t.Run(fmt.Sprintf("%d KiB", kib), func(t *testing.T) {
			disk := tmpfs(t, kib)
			out := filepath.Join(disk, "out")
			if err := os.Mkdir(out, 0o755); err != nil {
				t.Fatal(err)
			}
			// The secrets of before, if they fit.
			if kib >= 200 {
				if err := exec.Command("cp", "-a", filepath.Join(golden, "secrets"), out).Run(); err != nil {
					t.Fatal(err)
				}
			}
			r := build(t, cache, out, "--offline")
			if kib >= needs && r.code == 0 {
				// How much more than the image it takes depends on the file systems.
				wantOK(t, r, cache, out)
				return
			}
			wantFull(t, r, out)
			wantClean(t, out)
			if kib >= 200 {
				wantWhole(t, out, false)
			}
			// With room for the image and not for what comes after it there is a whole one.
			if _, err := os.Stat(filepath.Join(out, "kiln-1.img")); err == nil && kib < needs {
				t.Error("there is an image")
			}
			if i%2 == 1 {
				return
			}
			mount(t, "none", disk, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dk", 3*needs))
			if r := build(t, cache, out, "--offline"); r.code != 0 {
				t.Errorf("with room: exit code %d\n%s", r.code, r.stderr)
			}
			wantClean(t, out)
			if kib >= 200 {
				wantGolden(t, out)
			}
		})
	}
}

// TestFullCache builds with one kind of cache entry on a disk that is too small.
func TestFullCache(t *testing.T) {
	rnd := seeded(t)
	for _, c := range []struct {
		kind string
		kib  int
	}{
		{"bases", 8 << 10}, {"bases", (100 + rnd.IntN(100)) << 10}, {"unpacked", (1 + rnd.IntN(200)) << 10}, {"resolutions", 4},
		{".", 8 << 10}, // the folder of firstboot, which is compiled
	} {
		t.Run(fmt.Sprintf("%s %d KiB", c.kind, c.kib), func(t *testing.T) {
			whole, out := newCache(t, c.kind), newOutput(t)
			if c.kind == "unpacked" {
				// A base would hide it.
				if err := os.RemoveAll(filepath.Join(whole, "bases")); err != nil {
					t.Fatal(err)
				}
			}
			cache := whole
			disk := filepath.Join(whole, c.kind)
			if c.kind == "." {
				cache = tmpfs(t, c.kib)
				disk = cache
				for _, kind := range []string{"bases", "blobs", "payload", "releases", "resolutions", "unpacked"} {
					if err := os.Symlink(filepath.Join(whole, kind), filepath.Join(cache, kind)); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				if err := os.Mkdir(disk, 0o700); err != nil {
					t.Fatal(err)
				}
				mount(t, "none", disk, "tmpfs", 0, fmt.Sprintf("size=%dk", c.kib))
			}
			r := build(t, cache, out, "--offline")
			wantFull(t, r, cache)
			wantGolden(t, out)
			wantClean(t, cache, out)
			mount(t, "none", disk, "tmpfs", unix.MS_REMOUNT, "size=2g")
			wantOK(t, build(t, cache, out, "--offline"), cache, out)
		})
	}
}

// TestFullBlobs fetches a package to a disk that is too small for it.
func TestFullBlobs(t *testing.T) {
	m := newMirror(t)
	p := m.lock.Packages[0]
	for _, q := range m.lock.Packages {
		if q.Size > p.Size {
			p = q
		}
	}
	cache, out := newCache(t, "blobs"), newOutput(t)
	disk := tempDir(t)
	mount(t, "none", disk, "tmpfs", 0, "size=2g")
	blobs := filepath.Join(disk, "blobs")
	if err := errors.Join(os.Mkdir(blobs, 0o700), os.Symlink(blobs, filepath.Join(cache, "blobs"))); err != nil {
		t.Fatal(err)
	}
	for _, q := range m.lock.Packages {
		if out, err := exec.Command("cp", filepath.Join(warm, "blobs", q.SHA256), blobs).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// What is compiled gets there, too. Then the package is lost, and there is room for half of it.
	wantOK(t, build(t, cache, out, "--offline"), cache, out)
	if err := errors.Join(os.Remove(filepath.Join(blobs, p.SHA256)), fill(disk, p.Size/2)); err != nil {
		t.Fatal(err)
	}
	r := build(t, cache, out, "--mirror", m.url)
	wantFull(t, r, filepath.Join(cache, "blobs"))
	wantError(t, r, 1, "package "+p.Name+" "+p.Version)
	wantGolden(t, out)
	wantClean(t, blobs, out)
	if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
		t.Fatal(err)
	}
	wantOK(t, build(t, cache, out, "--mirror", m.url), cache, out)
}

// fill leaves so many bytes of a disk free.
func fill(disk string, free int64) error {
	have, err := diskspace.Free(disk)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(disk, "filler"), make([]byte, max(0, have-free)), 0o600)
}

// TestReadOnlyOutput: a file system that is mounted read-only, with outputs and
// without; and a folder of another user.
func TestReadOnlyOutput(t *testing.T) {
	cache, out := newCache(t), newOutput(t)
	mount(t, out, out, "", unix.MS_BIND, "")
	mount(t, "none", out, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	for _, dir := range []string{out, filepath.Join(out, "new")} {
		r := build(t, cache, dir, "--offline")
		wantError(t, r, 1, "imagegen: output folder "+dir+" cannot be written: ", "read-only file system; give another with -o")
	}
	wantGolden(t, out)
	if err := unix.Unmount(out, 0); err != nil {
		t.Fatal(err)
	}
	wantOK(t, build(t, cache, out, "--offline"), cache, out)
}

// TestReadOnlyCache is a cache that is mounted read-only.
func TestReadOnlyCache(t *testing.T) {
	cache, out := newCache(t), newOutput(t)
	mount(t, cache, cache, "", unix.MS_BIND, "")
	mount(t, "none", cache, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	wantError(t, build(t, cache, out, "--offline"), 1, "imagegen: cache: ", cache, "read-only file system; name a folder that can be written with --cache or KILN_CACHE")
	wantGolden(t, out)
}

// TestAnotherUsersFolder runs as a user who may not write to the output folder.
func TestAnotherUsersFolder(t *testing.T) {
	dir := tempDir(t)
	out, cache, program := filepath.Join(dir, "out"), filepath.Join(dir, "cache"), filepath.Join(dir, "imagegen")
	err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(out, 0o555), os.Mkdir(cache, 0o700), exec.Command("cp", imagegen, program).Run(), os.Chmod(program, 0o755), os.Chmod(cluster, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "build", cluster, "-o", out, "--cache", cache, "--offline")
	cmd.Dir = dir
	// The folder's owner, but without root's right to write nevertheless.
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}},
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true},
	}
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, text)
	}
	wantError(t, result{code: exit.ExitCode(), stderr: string(text)}, 1, "output folder "+out+" cannot be written: ", "permission denied; give another with -o")
	if entries, _ := os.ReadDir(out); len(entries) > 0 || strings.Contains(string(text), "keys and tokens") {
		t.Errorf("it began nevertheless: %v\n%s", entries, text)
	}
}

//go:build boot && bench

package qemutests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/internal/testtools"
)

// manyNodes is how many nodes of one profile are stamped in one go.
const manyNodes = 100

// TestBenchBuild measures imagegen on this host, and beside it what one would do
// without it.
func TestBenchBuild(t *testing.T) {
	imagegen := imagegenPath(t)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "out")
	run(t, imagegen, "init", file)
	caches := ownCache(t, filepath.Join(dir, "cache"))
	build := func(args ...string) usage {
		return timed(t, imagegen, append([]string{"build", file, "-o", out, "--cache", caches}, args...)...)
	}
	build() // makes what is kept: firstboot, the verified archive
	var base usage
	for i := range 2 {
		if err := os.RemoveAll(filepath.Join(caches, "bases")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(out, benchNode+".img")); err != nil {
			t.Fatal(err)
		}
		if u := build("--locked", "--offline"); i == 0 || u.took < base.took {
			base = u
		}
	}
	lock, err := deb.ReadLock(filepath.Join(out, "kiln.lock.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	reference := debianReference(t, lock)
	record(t, "base image, warm caches", base.took.Seconds(), "s", reference.Seconds(), bound{ratio: 0.5})
	record(t, "base image, nothing changed", build("--locked", "--offline").took.Seconds(), "s", 0, bound{value: 2})
	record(t, "peak memory of a build", float64(base.memory)/mib, "MiB", 0, bound{value: 700})

	image := filepath.Join(out, benchNode+".img")
	copied := timed(t, "cp", "--sparse=always", "--reflink=never", image, filepath.Join(dir, "copy.img"))
	one := timed(t, imagegen, "stamp", file, "--node", benchNode, "-o", out, "--cache", caches)
	record(t, "stamp one node", one.took.Seconds(), "s", copied.took.Seconds(), bound{value: 0.5})
	record(t, "stamp one node, memory", float64(one.memory)/mib, "MiB", 0, bound{value: 64})

	many := filepath.Join(dir, "many.yaml")
	writeFile(t, many, manyNodesFile(t, file))
	hundred := timed(t, imagegen, "build", many, "-o", filepath.Join(dir, "many"), "--cache", caches)
	record(t, fmt.Sprintf("%d nodes", manyNodes), hundred.took.Seconds(), "s", manyNodes*copied.took.Seconds(), bound{value: 30})

	record(t, "control-plane image, zstd", float64(compressed(t, image))/1e6, "MB", float64(sumOfParts(t, imagegen, lock))/1e6, bound{value: 220})
}

const (
	mib = 1 << 20
	// benchNode is the node of the file that imagegen init writes.
	benchNode = "kiln-1"
)

// manyNodesFile is the file that imagegen init wrote with many workers more.
func manyNodesFile(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const first = "\nnodes:\n"
	if bytes.Count(b, []byte(first)) != 1 {
		t.Fatalf("%s has no list of nodes to put more into", file)
	}
	var workers strings.Builder
	workers.WriteString(first)
	for i := range manyNodes - 1 {
		fmt.Fprintf(&workers, "  - {name: worker-%d, role: worker, profile: qemu-amd64}\n", i+1)
	}
	return bytes.Replace(b, []byte(first), []byte(workers.String()), 1)
}

// usage is what a program took.
type usage struct {
	took   time.Duration
	memory int64 // the most it had resident, in bytes
}

func timed(t *testing.T, name string, args ...string) usage {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	u := usage{took: time.Since(start)}
	// Linux counts in KiB (getrusage(2)).
	u.memory = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("%s: %.2f s, %d MiB", strings.Join(cmd.Args, " "), u.took.Seconds(), u.memory/mib)
	return u
}

// ownCache is a cache with links to the user's for what is downloaded or compiled.
func ownCache(t *testing.T, dir string) string {
	t.Helper()
	from := os.Getenv("KILN_CACHE")
	if from == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		from = filepath.Join(base, "kiln")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"blobs", "releases", "resolutions", "payload"} {
		if err := os.Symlink(filepath.Join(from, kind), filepath.Join(dir, kind)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// debianReference is how long mmdebstrap and mksquashfs take with the same packages
// of Debian, all of them downloaded before. It is the better of two runs.
func debianReference(t *testing.T, lock *deb.Lock) time.Duration {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatalf("%v: it is the reference of this benchmark; apt-get install mmdebstrap", err)
	}
	mirror, err := deb.FindMirror("", "/etc/apt")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range lock.Packages {
		names = append(names, p.Name)
	}
	debs := filepath.Join(t.TempDir(), "debs")
	if err := os.Mkdir(debs, 0o755); err != nil {
		t.Fatal(err)
	}
	var best time.Duration
	for i := range 3 { // the first downloads
		dir := t.TempDir()
		root, squash := filepath.Join(dir, "root"), filepath.Join(dir, "usr.squashfs")
		args := []string{
			"--variant=essential", "--architectures=" + lock.Arch, "--include=" + strings.Join(names, ","),
			"--skip=download/empty", "--skip=essential/unlink", "--components=" + strings.Join(lock.Components, ","),
			`--setup-hook=mkdir -p "$1"/var/cache/apt/archives/`, "--setup-hook=sync-in " + debs + " /var/cache/apt/archives/",
		}
		if i == 0 {
			args = append(args, "--customize-hook=sync-out /var/cache/apt/archives "+debs)
		}
		u := timed(t, "mmdebstrap", append(args, lock.Suite, root, string(mirror))...)
		start := time.Now()
		if out, err := testtools.Command(t, "mksquashfs", root, squash, "-comp", "zstd", "-quiet", "-no-progress").CombinedOutput(); err != nil {
			t.Fatalf("mksquashfs: %v\n%s", err, out)
		}
		took := u.took + time.Since(start)
		t.Logf("mksquashfs: %.2f s", time.Since(start).Seconds())
		if i == 1 || i > 1 && took < best {
			best = took
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	return best
}

// compressed is the size of a file after zstd.
func compressed(t *testing.T, name string) int64 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := new(counter)
	z, err := zstd.NewWriter(n)
	if err == nil {
		_, err = io.Copy(z, f)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return n.bytes
}

type counter struct{ bytes int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.bytes += int64(len(b))
	return len(b), nil
}

// sumOfParts is the size of what is in an image as it is distributed: Debian's
// packages, and each program of the payload compressed on its own.
func sumOfParts(t *testing.T, imagegen string, lock *deb.Lock) int64 {
	t.Helper()
	var sum int64
	for _, p := range lock.Packages {
		sum += p.Size
	}
	out, err := exec.CommandContext(t.Context(), imagegen, "payload").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && filepath.IsAbs(f[2]) {
			sum += compressed(t, f[2])
		}
	}
	return sum
}

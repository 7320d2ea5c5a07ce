//go:build faults

package faulttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What all tests start from; TestMain makes it.
var (
	imagegen string // the program
	work     string // a folder for everything
	cluster  string // the cluster file
	golden   string // an output folder that nothing disturbed
	warm     string // the cache it was made with: it has all that a build needs
	// images and admin are the digests of the golden outputs, which every build with
	// the same secrets must give.
	goldenFiles map[string]string
	// baseTime is how long a build takes that makes the base, quickTime one that finds it.
	baseTime, quickTime time.Duration
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(work)
	return m.Run()
}

func prepare() (err error) {
	imagegen = os.Getenv("KILN_IMAGEGEN")
	if imagegen == "" {
		return errors.New("KILN_IMAGEGEN names no imagegen: run make test-faults")
	}
	if work, err = os.MkdirTemp("", "kiln-faults-"); err != nil {
		return err
	}
	// Another user is one of the tests.
	if err = os.Chmod(work, 0o755); err != nil {
		return err
	}
	cluster, golden, warm = filepath.Join(work, "cluster.yaml"), filepath.Join(work, "golden"), filepath.Join(work, "warm")
	if out, err := exec.Command(imagegen, "init", cluster).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	home := os.Getenv("KILN_CACHE")
	if home == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		home = filepath.Join(dir, "kiln")
	}
	build := func(cache string, args ...string) error {
		cmd := exec.Command(imagegen, append([]string{"build", cluster, "-o", golden, "--cache", cache, "--quiet"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build that nothing disturbs: %w\n%s", err, out)
		}
		return nil
	}
	// The bases of all earlier builds are not needed.
	kinds := []string{"blobs", "payload", "releases", "resolutions", "unpacked"}
	start := time.Now()
	if err := linkTree(home, warm, kinds...); err != nil {
		return err
	}
	if err := build(warm, "--offline"); err != nil {
		// The user's cache lacks something: it gets it from the network, as any build does.
		if err := errors.Join(os.RemoveAll(warm), build(home), linkTree(home, warm, kinds...), build(warm, "--offline")); err != nil {
			return err
		}
	}
	baseTime = time.Since(start)
	start = time.Now()
	if err := build(warm, "--offline"); err != nil {
		return err
	}
	quickTime = time.Since(start)
	goldenFiles, err = digests(golden)
	fmt.Printf("prepared: %s with the base, %s without\n", baseTime.Round(time.Second), quickTime.Round(100*time.Millisecond))
	return err
}

// linkTree makes dst a copy of the folders kinds of src, by hard links where that
// works. Locks and what is half-made are left out.
func linkTree(src, dst string, kinds ...string) error {
	for _, kind := range kinds {
		err := filepath.WalkDir(filepath.Join(src, kind), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			rel, err := filepath.Rel(src, p)
			if err != nil {
				return err
			}
			to := filepath.Join(dst, rel)
			switch {
			case d.IsDir() && strings.Contains(d.Name(), ".tmp"):
				return fs.SkipDir
			case d.IsDir():
				return os.MkdirAll(to, 0o700)
			case strings.HasSuffix(d.Name(), ".lock"), strings.Contains(d.Name(), ".tmp-"):
				return nil
			}
			if err = os.Link(p, to); errors.Is(err, syscall.EXDEV) {
				err = exec.Command("cp", "-a", p, to).Run()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// newCache is a copy of the warm cache, without the kinds that are given.
func newCache(t *testing.T, without ...string) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "cache")
	all := []string{"bases", "blobs", "payload", "releases", "resolutions", "unpacked"}
	all = slices.DeleteFunc(all, func(k string) bool { return slices.Contains(without, k) })
	if err := errors.Join(os.Mkdir(dir, 0o700), linkTree(warm, dir, all...)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newOutput is an output folder as the golden build left it.
func newOutput(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "out")
	if out, err := exec.Command("cp", "-a", "--sparse=always", golden, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// newSecrets is an output folder with the golden secrets alone: a build in it gives
// the golden images.
func newSecrets(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "out")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(golden, "secrets"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// tempDir is below the work folder: where hard links to the warm cache work.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(work, "t-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// result is how a program ended.
type result struct {
	code int // 128 + the signal if one ended it
	// signaled says that the signal's default action ended the program, which did
	// not catch it.
	signaled bool
	stderr   string
}

// build runs `imagegen build` to its end.
func build(t *testing.T, cache, out string, args ...string) result {
	t.Helper()
	return wait(t, start(t, cache, out, args...))
}

// process is an imagegen that runs.
type process struct {
	*exec.Cmd
	stderr *lockedBuffer
}

// start starts `imagegen build` in a session of its own, as a login shell would.
func start(t *testing.T, cache, out string, args ...string) *process {
	t.Helper()
	p := &process{exec.Command(imagegen, append([]string{"build", cluster, "-o", out, "--cache", cache}, args...)...), &lockedBuffer{}}
	p.Stderr = p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.WaitDelay = 5 * time.Second
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func wait(t *testing.T, p *process) result {
	t.Helper()
	err := p.Wait()
	if err != nil && !errors.As(err, new(*exec.ExitError)) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	status := p.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return result{code: 128 + int(status.Signal()), signaled: true, stderr: p.stderr.String()}
	}
	return result{code: status.ExitStatus(), stderr: p.stderr.String()}
}

// wantOK fails unless the build succeeded with the golden images and left nothing
// half-made.
func wantOK(t *testing.T, r result, cache, out string) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.stderr)
	}
	wantGolden(t, out)
	wantClean(t, cache, out)
}

// wantError fails unless the program ended with the code and said each of the texts.
func wantError(t *testing.T, r result, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s", r.code, code, r.stderr)
	}
	for _, want := range texts {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "goroutine ") {
		t.Errorf("a crash:\n%s", r.stderr)
	}
}

// wantGolden fails unless the folder holds the golden outputs.
func wantGolden(t *testing.T, out string) {
	t.Helper()
	got, err := digests(out)
	if err != nil {
		t.Fatal(err)
	}
	for name, sum := range goldenFiles {
		if got[name] != sum {
			t.Errorf("%s is not the one that an undisturbed build gives (digest %q, want %q)", name, got[name], sum)
		}
	}
	for name := range got {
		if goldenFiles[name] == "" {
			t.Errorf("%s: an undisturbed build leaves no such file", name)
		}
	}
}

// wantClean fails if something half-made is left.
func wantClean(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && strings.Contains(d.Name(), ".tmp") {
				t.Errorf("left: %s", p)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// digests returns the digest of each file of an output folder, but for those that
// differ from build to build.
func digests(dir string) (map[string]string, error) {
	sums := map[string]string{}
	return sums, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "build-times.json" || d.Name() == ".kiln.lock" {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		sums[rel], err = digest(p)
		return err
	})
}

// digest is of a file's size and of the bytes that are not zero, with where they
// are: disk images are holes for the most part.
func digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, size)
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return "", err
		}
		at = data / int64(len(buf)) * int64(len(buf))
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return "", err
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			fmt.Fprintln(h, at)
			h.Write(buf[:n])
		}
		at += int64(len(buf))
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// until waits for a condition.
func until(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("after %s: not yet: %s", limit, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

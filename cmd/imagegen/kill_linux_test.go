package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/internal/build/buildtest"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/internal/testtools"
)

// kills is how often each test kills imagegen.
const kills = 100

// victim runs `imagegen stamp`, to be killed at random instants.
type victim struct {
	dir, out, cache string
	random          *rand.Rand
}

func newVictim(t *testing.T, usrMiB int) *victim {
	t.Helper()
	dir := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	v := &victim{dir: dir, out: filepath.Join(dir, "out"), cache: filepath.Join(dir, "cache"), random: rand.New(rand.NewPCG(seed, 0))}
	if err := buildtest.Prepare(v.cache, v.out, usrMiB); err != nil {
		t.Fatal(err)
	}
	for _, rack := range []string{"a", "b"} {
		text := strings.ReplaceAll(clusterForKills, "RACK", strings.Repeat(rack, 40))
		if err := os.WriteFile(v.cluster(rack), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

const clusterForKills = `apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: kills
nodes:
  - name: kiln-1
    role: control-plane
    profile: qemu-amd64
    address: 10.0.2.15/24
    gateway: 10.0.2.2
    labels: {example.org/rack: RACK}
`

func (v *victim) cluster(rack string) string { return filepath.Join(v.dir, rack+".yaml") }
func (v *victim) image() string              { return filepath.Join(v.out, "kiln-1.img") }

func (v *victim) command(rack string, more ...string) *exec.Cmd {
	args := append([]string{"stamp", v.cluster(rack), "--node", "kiln-1", "-o", v.out, "--cache", v.cache, "--json"}, more...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Args[0] = "imagegen" // see TestMain
	return cmd
}

// run stamps undisturbed and returns the image's digest.
func (v *victim) run(t *testing.T, rack, image string, more ...string) string {
	t.Helper()
	if out, err := v.command(rack, more...).CombinedOutput(); err != nil {
		t.Fatalf("imagegen stamp: %v\n%s", err, out)
	}
	return digestOf(t, image)
}

func digestOf(t *testing.T, image string) string {
	t.Helper()
	d, err := sparse.Digest(image)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// kill sends a signal to a stamp at a random instant after the given step began,
// and returns whether it was done before.
func (v *victim) kill(t *testing.T, sig syscall.Signal, rack, step string, within time.Duration, more ...string) (done bool) {
	t.Helper()
	cmd := v.command(rack, more...)
	events, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	lines := bufio.NewReader(io.TeeReader(events, &said))
	for !strings.Contains(said.String(), `"step":"`+step) {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatalf("no step %q: %v\n%s", step, err, said.String())
		}
	}
	time.Sleep(time.Duration(v.random.Int64N(int64(within))))
	_ = cmd.Process.Signal(sig)
	_, _ = io.Copy(io.Discard, lines)
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); err != nil && code != -1 && code != exitInterrupted {
		t.Fatalf("imagegen stamp: %v\n%s", err, said.String())
	}
	return err == nil
}

// TestKillNewImage kills the stamping of a new image: the earlier image stays until
// the new one is whole, and the next run removes what is left.
func TestKillNewImage(t *testing.T) {
	v := newVictim(t, 24)
	want := map[string]string{"a": v.run(t, "a", v.image()), "b": v.run(t, "b", v.image())}
	first := v.run(t, "a", v.image())
	if want["a"] != first || want["a"] == want["b"] {
		t.Fatalf("digests %v, %s", want, first)
	}
	window := v.stepTime(t, "image of node", v.image())
	now, replaced, left := "a", 0, 0
	for i := range kills {
		next := map[string]string{"a": "b", "b": "a"}[now]
		sig := syscall.SIGKILL
		if i%5 == 4 {
			sig = syscall.SIGINT // Ctrl-C
		}
		done := v.kill(t, sig, next, "image of node", window)
		got := digestOf(t, v.image())
		if got != want[now] && got != want[next] || done && got != want[next] {
			t.Fatalf("kill %d: the image is neither the earlier nor the new one", i)
		}
		rest := leftovers(t, v.out)
		if len(rest) > 0 {
			left++
			if sig == syscall.SIGINT {
				t.Fatalf("kill %d: Ctrl-C leaves %v", i, rest)
			}
		}
		if got == want[next] {
			now = next
			replaced++
		}
		if i%4 == 0 {
			if got := v.run(t, next, v.image()); got != want[next] {
				t.Fatalf("kill %d: the next run does not recover", i)
			}
			if rest := leftovers(t, v.out); len(rest) > 0 {
				t.Fatalf("kill %d: the next run leaves %v", i, rest)
			}
			now = next
		}
	}
	t.Logf("%d kills within %v: %d came too late, %d left a temporary file", kills, window, replaced, left)
	if left == 0 || replaced == kills {
		t.Error("no kill hit")
	}
}

// TestKillExistingImage kills the stamping of an existing image: it holds the old
// stamp or the new one, whole, and the next run makes it as a new image would be.
func TestKillExistingImage(t *testing.T) {
	v := newVictim(t, 1)
	want := map[string]string{"a": v.run(t, "a", v.image())}
	stamps := map[string]string{"a": stampIn(t, v.image())}
	want["b"] = v.run(t, "b", v.image())
	stamps["b"] = stampIn(t, v.image())
	image := filepath.Join(v.dir, "card.img")
	if err := os.Rename(v.image(), image); err != nil {
		t.Fatal(err)
	}
	window := v.stepTime(t, "stamp of node", image, "--image", image)
	v.run(t, "a", image, "--image", image)
	now, replaced, between := "a", 0, 0
	for i := range kills {
		next := map[string]string{"a": "b", "b": "a"}[now]
		done := v.kill(t, syscall.SIGKILL, next, "stamp of node", window, "--image", image)
		got := stampIn(t, image)
		if got != stamps[now] && got != stamps[next] || done && got != stamps[next] {
			t.Fatalf("kill %d: the stamp is neither the old nor the new one", i)
		}
		if d := digestOf(t, image); d != want["a"] && d != want["b"] {
			between++
		}
		if got == stamps[next] {
			now = next
			replaced++
		}
		if i%4 == 0 {
			if got := v.run(t, next, image, "--image", image); got != want[next] {
				t.Fatalf("kill %d: the next run does not recover", i)
			}
			now = next
		}
	}
	t.Logf("%d kills within %v: %d after the new stamp was in force, %d in between", kills, window, replaced, between)
	if between == 0 {
		t.Error("no kill hit")
	}
	v.run(t, now, image, "--image", image)
	volume := filepath.Join(v.dir, "esp")
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(volume, b[espAt:espAt+espLen], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := testtools.Command(t, "fsck.vfat", "-n", volume).CombinedOutput(); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
}

// stepTime returns how long a step of an undisturbed stamp takes.
func (v *victim) stepTime(t *testing.T, step, image string, more ...string) time.Duration {
	t.Helper()
	cmd := v.command("a", more...)
	events, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var begin time.Time
	for sc := bufio.NewScanner(events); sc.Scan(); {
		if begin.IsZero() && strings.Contains(sc.Text(), `"step":"`+step) {
			begin = time.Now()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

func leftovers(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".tmp-") {
			out = append(out, e.Name())
		}
	}
	return out
}

// The boot partition of a small base image.
const espAt, espLen = 1 << 20, 34 << 20

// stampIn returns the config's checksum as the stamp says it, after checking it.
func stampIn(t *testing.T, image string) string {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	volume, err := esp.Open(f, espAt, espLen)
	if err != nil {
		t.Fatal(err)
	}
	files, found, err := volume.Read("kiln")
	if err != nil || !found || len(files) != 2 {
		t.Fatalf("%d files, %v, %v", len(files), found, err)
	}
	if got := string(files["config.ign.sha256"]); got != fmt.Sprintf("%x  config.ign\n", sha256.Sum256(files["config.ign"])) {
		t.Fatalf("the checksum %q is not that of config.ign with %d bytes", got, len(files["config.ign"]))
	}
	return string(files["config.ign.sha256"])
}

// TestStampMemory: how much memory a stamp takes does not depend on the image.
func TestStampMemory(t *testing.T) {
	v := newVictim(t, 100)
	for _, more := range [][]string{nil, {"--image", v.image()}} {
		kib := v.peakMemory(t, more...)
		t.Logf("%v: %d MiB", more, kib>>10)
		if kib > 64<<10 || kib < 1<<10 {
			t.Errorf("stamp %v took %d KiB of memory", more, kib)
		}
	}
}

// peakMemory runs a stamp and returns its largest resident set in KiB. That of
// getrusage(2) would not do: a child's begins with its parent's. So imagegen is held
// up when it prints its result, into a pipe that is full, and /proc is asked.
func (v *victim) peakMemory(t *testing.T, more ...string) (kib int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	cmd := v.command("a", more...)
	cmd.Stdout = w
	events, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	for sc := bufio.NewScanner(events); sc.Scan(); {
		if strings.Contains(sc.Text(), `"event":"done","step":"image of node`) || strings.Contains(sc.Text(), `"event":"done","step":"stamp of node`) {
			break
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatalf("no VmHWM: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return kib
}

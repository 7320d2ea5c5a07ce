//go:build faults

package faulttest

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// makingBase waits until a build with a cache makes a base.
func makingBase(t *testing.T, cache string) {
	t.Helper()
	until(t, "a base is being made", time.Minute, func() bool {
		m, _ := filepath.Glob(filepath.Join(cache, "bases", "*.tmp-*"))
		return len(m) > 0
	})
}

// waiting waits until a build says that it waits for a process.
func waiting(t *testing.T, p *process, pid int) {
	t.Helper()
	until(t, "the second build waits", time.Minute, func() bool {
		return strings.Contains(p.stderr.String(), fmt.Sprintf("waiting for another process (%d), which makes or checks ", pid))
	})
}

// TestTwoBuildsShareACache: two builds at once that need the same base make it once,
// and both give the golden images. A third, of the first's output, is refused.
func TestTwoBuildsShareACache(t *testing.T) {
	cache, a, b := newCache(t, "bases"), newSecrets(t), newSecrets(t)
	first := start(t, cache, a, "--offline")
	makingBase(t, cache)
	second := start(t, cache, b, "--offline")
	third := build(t, cache, a, "--offline", "--quiet")
	wantError(t, third, 1, fmt.Sprintf("another process (%d) writes to output folder %s: wait until it is done, or give another folder with -o", first.Process.Pid, a))
	ra, rb := wait(t, first), wait(t, second)
	wantOK(t, ra, cache, a)
	wantOK(t, rb, cache, b)
	if n := strings.Count(ra.stderr+rb.stderr, "pack /usr  "); n != 1 {
		t.Errorf("the base was made %d times", n)
	}
	wantError(t, rb, 0, fmt.Sprintf("waiting for another process (%d), which makes or checks %s", first.Process.Pid, filepath.Join(cache, "bases")))
}

// TestKilledHolder: Ctrl-C ends a build that waits for another's base; when that
// other one is killed, one that waits makes the base itself.
func TestKilledHolder(t *testing.T) {
	cache, a, b, c := newCache(t, "bases"), newSecrets(t), newSecrets(t), newSecrets(t)
	first := start(t, cache, a, "--offline")
	makingBase(t, cache)
	second := start(t, cache, b, "--offline")
	third := start(t, cache, c, "--offline")
	waiting(t, second, first.Process.Pid)
	waiting(t, third, first.Process.Pid)
	_ = third.Process.Signal(syscall.SIGINT)
	sent := time.Now()
	r := wait(t, third)
	if took := time.Since(sent); r.code != 130 || took > 2*time.Second || !strings.Contains(r.stderr, "imagegen: interrupted: ") {
		t.Errorf("Ctrl-C while waiting: exit code %d after %s\n%s", r.code, took, r.stderr)
	}
	_ = first.Process.Kill()
	if r := wait(t, first); r.code != 137 {
		t.Fatalf("the first was too fast to be killed: exit code %d", r.code)
	}
	r = wait(t, second)
	wantOK(t, r, cache, b)
	wantOK(t, build(t, cache, a, "--offline"), cache, a)
}

package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain makes the test binary a process that locks a file and keeps it.
func TestMain(m *testing.M) {
	if path := os.Getenv("CACHE_TEST_LOCK"); path != "" {
		unlock, err := TryLock(path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		time.Sleep(time.Hour)
		unlock()
	}
	os.Exit(m.Run())
}

// holdLock locks path in another process.
func holdLock(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CACHE_TEST_LOCK="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd
}

func TestLockNamesItsHolderAndEndsWithIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	cmd := holdLock(t, path)
	var held *LockedError
	if _, err := TryLock(path); !errors.As(err, &held) || held.PID != cmd.Process.Pid || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Fatalf("error %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	unlock, err := TryLock(path)
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	unlock()
	if b, _ := os.ReadFile(path); len(b) != 0 {
		t.Errorf("unlocked, the file holds %q", b)
	}
	// Numbers that are not to be believed.
	for _, text := range []string{"", "x", "-1", "0", "999999999999", fmt.Sprint(cmd.Process.Pid)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if pid := holder(f); pid != 0 {
			t.Errorf("%q is process %d", text, pid)
		}
		f.Close()
	}
}

// TestWaitingIsSaidAndEndsWithTheContext: Ctrl-C works while another process makes
// the folder, and that process's end lets this one go on.
func TestWaitingIsSaidAndEndsWithTheContext(t *testing.T) {
	c, key := open(t), Key("x")
	var mu sync.Mutex
	var said []string
	c.Log = func(line string) { mu.Lock(); said = append(said, line); mu.Unlock() }
	if err := os.Mkdir(filepath.Join(c.Path(), "k"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := holdLock(t, filepath.Join(c.Path(), "k", key+".lock"))
	fill := func(string) error { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Dir(ctx, "k", key, fill); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if len(said) != 1 || !strings.Contains(said[0], fmt.Sprintf("waiting for another process (%d)", cmd.Process.Pid)) || !strings.Contains(said[0], key) {
		t.Errorf("said %q", said)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = cmd.Process.Kill() })
	if _, err := c.Dir(t.Context(), "k", key, fill); err != nil {
		t.Error(err)
	}
}

// TestSweep: what killed processes left goes when nobody else uses the cache, and
// not before.
func TestSweep(t *testing.T) {
	c := open(t)
	key := Key("x")
	dir, err := c.Dir(t.Context(), "payload/etcd-amd64", key, func(tmp string) error {
		return os.WriteFile(filepath.Join(tmp, "content.tmp-1"), nil, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := c.TempDir("firstboot")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(c.Path(), "linked")); err != nil {
		t.Fatal(err)
	}
	left := []string{own, filepath.Join(c.Path(), "blobs/."+helloSum+".tmp-1"), dir + ".tmp-12"}
	keep := []string{filepath.Join(dir, "content.tmp-1"), filepath.Join(elsewhere, ".x.tmp-1")}
	for _, p := range append(left[1:], keep[1]) {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exists := func(p string) bool { _, err := os.Lstat(p); return err == nil }
	second, err := Open(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(left, keep...) {
		if !exists(p) {
			t.Errorf("in use, but %s was removed", p)
		}
	}
	if err := errors.Join(c.inUse.Close(), second.inUse.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.Path()); err != nil {
		t.Fatal(err)
	}
	for _, p := range left {
		if exists(p) {
			t.Errorf("%s was left", p)
		}
	}
	for _, p := range keep {
		if !exists(p) {
			t.Errorf("%s was removed", p)
		}
	}
}

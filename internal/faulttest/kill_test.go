//go:build faults

package faulttest

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledAtAnyInstant ends 100 builds at random instants: four fifths find the
// base in the cache, one fifth makes it, and every tenth makes a new cluster. After
// each, every file under a final name is whole and as an undisturbed build makes it;
// the builds after the last give the same bytes and leave nothing.
func TestKilledAtAnyInstant(t *testing.T) {
	rnd := seeded(t)
	quick, whole, fresh := newCache(t), newCache(t, "bases"), newCache(t)
	quickOut, wholeOut := newOutput(t), newSecrets(t)
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGKILL, syscall.SIGTERM}
	codes := map[int]int{}
	for i := range 100 {
		sig := signals[rnd.IntN(len(signals))]
		var code int
		switch {
		case i%10 == 9:
			code = killFresh(t, rnd, fresh, sig)
		case i%5 == 2:
			// The base is made again each time: a build that came to its end made it.
			if err := os.RemoveAll(filepath.Join(whole, "bases")); err != nil {
				t.Fatal(err)
			}
			code = killOne(t, whole, wholeOut, sig, chance(rnd, baseTime/2))
			wantWhole(t, wholeOut, false)
		default:
			code = killOne(t, quick, quickOut, sig, chance(rnd, quickTime))
			wantWhole(t, quickOut, true)
		}
		codes[code]++
		if t.Failed() {
			t.Fatalf("at build %d, after %v", i+1, sig)
		}
	}
	t.Logf("builds by exit code: %v", codes)
	if codes[130] == 0 || codes[137] == 0 {
		t.Error("no build was interrupted, or none killed")
	}
	wantOK(t, build(t, quick, quickOut, "--offline"), quick, quickOut)
	wantOK(t, build(t, whole, wholeOut, "--offline"), whole, wholeOut)
	wantClean(t, fresh)
}

// chance is a time up to more than d: some builds come to their end.
func chance(rnd *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(d + d/4)))
}

// killOne lets a build run for a while, sends it a signal and returns its exit code.
func killOne(t *testing.T, cache, out string, sig syscall.Signal, after time.Duration) int {
	t.Helper()
	p := start(t, cache, out, "--offline")
	time.Sleep(after)
	_ = p.Process.Signal(sig) // it may be done
	sent := time.Now()
	r := wait(t, p)
	took := time.Since(sent)
	switch {
	case r.code == 0, sig == syscall.SIGKILL && r.signaled:
	case r.signaled && r.stderr == "":
		// The program takes a moment to catch signals, and the default is to end: it
		// has begun nothing then.
	case sig != syscall.SIGKILL && r.code == 130 && !r.signaled:
		if !strings.Contains(r.stderr, "imagegen: interrupted: no half-made file has a final name") {
			t.Errorf("interrupted without a word:\n%s", r.stderr)
		}
	default:
		t.Errorf("after %v: exit code %d\n%s", sig, r.code, r.stderr)
	}
	if sig != syscall.SIGKILL && took > 10*time.Second {
		t.Errorf("%v was heeded after %s\n%s", sig, took, r.stderr)
	}
	if sig != syscall.SIGKILL && r.code != 0 && !r.signaled {
		// What is not killed cleans up itself.
		wantClean(t, out)
	}
	return r.code
}

// wantWhole fails if a file under a final name is not the golden one; all says that
// none may be missing.
func wantWhole(t *testing.T, out string, all bool) {
	t.Helper()
	got, err := digests(out)
	if err != nil {
		t.Fatal(err)
	}
	for name, sum := range got {
		if sum != goldenFiles[name] && !strings.Contains(name, ".tmp-") {
			t.Errorf("%s is not whole", name)
		}
	}
	for name := range goldenFiles {
		if all && got[name] == "" {
			t.Errorf("%s is lost", name)
		}
	}
}

// killFresh ends a build of a new cluster: what secrets it has then are whole, and
// the next build goes on with them.
func killFresh(t *testing.T, rnd *rand.Rand, cache string, sig syscall.Signal) int {
	t.Helper()
	out := filepath.Join(tempDir(t), "out")
	defer os.RemoveAll(out)
	// The first half second is when the secrets are made.
	code := killOne(t, cache, out, sig, chance(rnd, time.Second))
	before := readSecrets(t, out)
	if r := build(t, cache, out, "--offline"); r.code != 0 {
		t.Errorf("the build after it: exit code %d\n%s", r.code, r.stderr)
	}
	wantClean(t, out)
	after := readSecrets(t, out)
	for name, b := range before {
		if !bytes.Equal(after[name], b) {
			t.Errorf("%s was made anew: it is lost", name)
		}
	}
	for name, b := range after {
		if key, ok := strings.CutSuffix(name, ".crt"); ok && after[key+".key"] != nil {
			if _, err := tls.X509KeyPair(b, after[key+".key"]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(out, "kiln-1.img")); err != nil {
		t.Error(err)
	}
	return code
}

// readSecrets reads the secrets of an output folder; those in PEM must be whole.
func readSecrets(t *testing.T, out string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	dir := filepath.Join(out, "secrets")
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) || err == nil && (d.IsDir() || strings.HasPrefix(d.Name(), ".")) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if ext := filepath.Ext(p); err == nil && (ext == ".crt" || ext == ".key" || ext == ".pub") {
			if block, rest := pem.Decode(b); block == nil || len(rest) > 0 {
				err = fmt.Errorf("%s is not whole", p)
			}
		}
		rel, _ := filepath.Rel(dir, p)
		files[rel] = b
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

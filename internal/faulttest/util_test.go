//go:build faults

package faulttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// seeded returns a source of chance whose seed is in the test's output, and in
// KILN_SEED to repeat it.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("KILN_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("KILN_SEED=%d", seed)
	h := fnv.New64()
	_, _ = h.Write([]byte(t.Name()))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// removeIndex removes Debian's package indexes, which are the blobs that xz packed.
func removeIndex(t *testing.T, cache string) {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(cache, "blobs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	removed := 0
	for _, name := range blobs {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 6)
		_, _ = f.Read(head)
		f.Close()
		if bytes.Equal(head, []byte("\xfd7zXZ\x00")) {
			removed++
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if removed == 0 {
		t.Fatal("the cache has no index")
	}
}

// lockedBuffer is written to by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

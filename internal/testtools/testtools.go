// Package testtools gives tests the reference tools of the formats Kiln writes:
// Debian's, unpacked into the cache, so that every machine tests with the same.
package testtools

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/hosttools"
)

var tools = sync.OnceValues(func() (*hosttools.Tools, error) {
	c, err := cache.Open("")
	if err != nil {
		return nil, err
	}
	return hosttools.Ensure(context.Background(), hosttools.Reference, hosttools.Options{Cache: c, Now: time.Now()})
})

// Command returns a command of a reference tool. A tool that cannot be had fails
// the test: nothing is skipped.
func Command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	set, err := tools()
	if err != nil {
		t.Fatalf("reference tools: %v", err)
	}
	cmd, err := set.Command(context.Background(), name, args...)
	if err != nil {
		t.Fatalf("reference tool: %v", err)
	}
	return cmd
}

// Path returns where a file of the reference tools' packages lies.
func Path(t testing.TB, abs string) string {
	t.Helper()
	set, err := tools()
	if err != nil {
		t.Fatalf("reference tools: %v", err)
	}
	return set.Path(abs)
}

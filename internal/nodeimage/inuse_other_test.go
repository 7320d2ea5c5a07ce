//go:build !linux

package nodeimage_test

import (
	"os"
	"testing"

	"github.com/kiln-os/kiln/internal/filelock"
)

// use locks f as another imagegen does.
func use(t *testing.T, f *os.File) {
	t.Helper()
	if err := filelock.TryExclusive(f); err != nil {
		t.Fatal(err)
	}
}

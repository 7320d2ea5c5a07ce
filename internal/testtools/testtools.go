// Package testtools gives tests the reference tools of the formats Kiln writes:
// Debian's, unpacked into the cache, so that every machine tests with the same.
package testtools

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
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

// Kernel returns the files of Debian's kernel for an architecture: of the kernel's
// package alone, resolved, verified and unpacked as for an image.
func Kernel(t testing.TB, a arch.Arch) *tree.Tree {
	t.Helper()
	return KernelOf(t, a, hosttools.Suite)
}

// KernelOf is Kernel out of the first of suites that the mirror has it of. The next one is
// asked if the mirror lacks packages that its own index names, or has an index that is out
// of date, and the test's log says so.
func KernelOf(t testing.TB, a arch.Arch, suites ...string) *tree.Tree {
	t.Helper()
	for i, suite := range suites {
		files, err := kernel(t.Context(), a, suite)
		if err == nil {
			return files
		}
		absent := errors.As(err, new(*deb.NotFoundError)) || errors.As(err, new(*deb.StaleError))
		if !absent || i == len(suites)-1 {
			t.Fatalf("kernel %s of %s: %v", a.Kernel, suite, err)
		}
		t.Logf("the kernel is that of %s: %v", suites[i+1], err)
	}
	t.Fatalf("kernel %s: no suite", a.Kernel)
	return nil
}

func kernel(ctx context.Context, a arch.Arch, suite string) (*tree.Tree, error) {
	// What the package depends on makes an initramfs when it is installed.
	return packages(ctx, a, suite, []string{"main"}, deb.Request{Roots: []string{a.Kernel}, Exclude: []string{"kmod", "linux-base", "initramfs-tools"}})
}

// Packages returns the files of packages of Debian's archive and of what they depend on,
// resolved, verified and unpacked as for an image.
func Packages(t testing.TB, a arch.Arch, components []string, req deb.Request) *tree.Tree {
	t.Helper()
	files, err := packages(t.Context(), a, hosttools.Suite, components, req)
	if err != nil {
		t.Fatalf("packages %v: %v", req.Roots, err)
	}
	return files
}

func packages(ctx context.Context, a arch.Arch, suite string, components []string, req deb.Request) (*tree.Tree, error) {
	c, err := cache.Open("")
	if err != nil {
		return nil, err
	}
	mirror, err := deb.FindMirror("", "/etc/apt")
	if err != nil {
		return nil, err
	}
	archive := &deb.Archive{Mirror: mirror, Suite: suite, Components: components, Cache: c, Now: time.Now()}
	lock, err := archive.Resolve(ctx, a.Debian, req)
	if err != nil {
		return nil, err
	}
	files, err := archive.Fetch(ctx, lock, nil)
	if err != nil {
		return nil, err
	}
	return deb.Unpack(ctx, c, lock, files)
}

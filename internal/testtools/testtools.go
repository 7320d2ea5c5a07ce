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
	files, err := kernel(t.Context(), a)
	if err != nil {
		t.Fatalf("kernel %s: %v", a.Kernel, err)
	}
	return files
}

// KernelIfThere is Kernel for what can be tested without this one: the test is skipped if
// the mirror lacks packages that its own index names, or has an index that is out of date.
func KernelIfThere(t testing.TB, a arch.Arch) *tree.Tree {
	t.Helper()
	files, err := kernel(t.Context(), a)
	if errors.As(err, new(*deb.NotFoundError)) || errors.As(err, new(*deb.StaleError)) {
		t.Skipf("kernel %s: %v", a.Kernel, err)
	}
	if err != nil {
		t.Fatalf("kernel %s: %v", a.Kernel, err)
	}
	return files
}

func kernel(ctx context.Context, a arch.Arch) (*tree.Tree, error) {
	// What the package depends on makes an initramfs when it is installed.
	return packages(ctx, a, []string{"main"}, deb.Request{Roots: []string{a.Kernel}, Exclude: []string{"kmod", "linux-base", "initramfs-tools"}})
}

// Packages returns the files of packages of Debian's archive and of what they depend on,
// resolved, verified and unpacked as for an image.
func Packages(t testing.TB, a arch.Arch, components []string, req deb.Request) *tree.Tree {
	t.Helper()
	files, err := packages(t.Context(), a, components, req)
	if err != nil {
		t.Fatalf("packages %v: %v", req.Roots, err)
	}
	return files
}

func packages(ctx context.Context, a arch.Arch, components []string, req deb.Request) (*tree.Tree, error) {
	c, err := cache.Open("")
	if err != nil {
		return nil, err
	}
	mirror, err := deb.FindMirror("", "/etc/apt")
	if err != nil {
		return nil, err
	}
	archive := &deb.Archive{Mirror: mirror, Suite: hosttools.Suite, Components: components, Cache: c, Now: time.Now()}
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

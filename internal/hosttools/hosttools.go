// Package hosttools runs tools of Debian packages without installing them: the
// packages are resolved and verified like those of a node, unpacked into a folder
// of the cache, and started with that folder's own dynamic loader and libraries.
// So a build needs no root and has the same version of a tool on every host.
package hosttools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
)

// Suite is the Debian release that the tools are taken from.
const Suite = "trixie"

// Set is a number of tools that are used together.
type Set []string

// Reference is what tests check the written formats with.
var Reference = Set{"squashfs-tools", "squashfs-tools-ng", "kmod", "gdisk", "fdisk", "dosfstools", "mtools", "cryptsetup-bin", "cpio", "e2fsprogs", "systemd", "systemd-repart", "systemd-zram-generator", "ignition", "binutils", "openssl", "qemu-utils", "xz-utils", "zstd", "tar", "gzip", "nftables", "wpasupplicant", "xorriso", "grub-common", "device-tree-compiler"}

// QEMU is the set that runs a machine of an architecture.
func QEMU(a arch.Arch) Set {
	s := Set{a.QEMU.Package, "qemu-utils", "qemu-system-data", "seabios", "ipxe-qemu"}
	if a.QEMU.FirmwarePackage != "" {
		s = append(s, a.QEMU.FirmwarePackage)
	}
	return s
}

// excluded packages do nothing for a tool that is run from a folder: package
// management, and QEMU's windows and sound.
var excluded = []string{
	"apt", "debconf", "debconf-2.0", "dpkg", "perl", "perl-base", "adduser", "init-system-helpers", "ucf", "sensible-utils",
	"dbus", "dbus-daemon", "default-dbus-system-bus", "dbus-system-bus", "dracut", "linux-base", "python3", "sgml-base", "fontconfig-config",
	"qemu-system-gui", "qemu-system-modules-spice", "qemu-system-modules-opengl", "hicolor-icon-theme", "adwaita-icon-theme",
}

// Options of Ensure.
type Options struct {
	Cache *cache.Cache
	// Mirror is the flag's value; see deb.FindMirror.
	Mirror string
	// Now judges the archive's signatures when packages are resolved.
	Now time.Time
	// Log gets a line when something takes time. It may be nil.
	Log func(string)
	// Keyring replaces Debian's archive keys.
	Keyring []byte
	// Offline takes packages from the cache alone.
	Offline bool
}

// Tools is a folder with tools.
type Tools struct {
	dir  string
	arch arch.Arch
}

// Ensure returns the tools of a set. They are resolved once: as long as the cache
// holds them no network is used.
func Ensure(ctx context.Context, set Set, o Options) (*Tools, error) {
	host, err := arch.Get(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("tools for this host: %w", err)
	}
	t, err := ensure(ctx, set, host, o)
	if errors.As(err, new(*deb.NotFoundError)) {
		// Packages are lost from the cache and replaced in the archive. Nothing asked
		// for exactly these, so newer ones do.
		if err := o.Cache.Forget(ctx, lockKind, lockKey(set, host)); err != nil {
			return nil, err
		}
		t, err = ensure(ctx, set, host, o)
	}
	if err != nil {
		return nil, fmt.Errorf("tools (%s): %w", strings.Join(set, ", "), err)
	}
	return t, nil
}

func ensure(ctx context.Context, set Set, host arch.Arch, o Options) (*Tools, error) {
	lock, err := resolve(ctx, set, host, o)
	if err != nil {
		return nil, err
	}
	digest, err := lock.Digest()
	if err != nil {
		return nil, err
	}
	dir, err := o.Cache.Dir(ctx, "tools", cache.Key("tools", formatVersion, digest), func(tmp string) error { return unpack(ctx, lock, o, tmp) })
	if err != nil {
		return nil, err
	}
	return &Tools{dir: dir, arch: host}, nil
}

// lockKind is the kind of folders with locks in the cache.
const lockKind = "tool-locks"

// lockKey is the lock's key: what was asked for, not what it resolved to.
func lockKey(set Set, host arch.Arch) string {
	return cache.Key(append([]string{"tools-lock", formatVersion, Suite, host.Debian, strings.Join(excluded, " ")}, roots(set)...)...)
}

func roots(set Set) []string {
	r := slices.Clone(set)
	slices.Sort(r)
	return r
}

// resolve returns the lock of the set, from the cache if it was resolved before.
func resolve(ctx context.Context, set Set, host arch.Arch, o Options) (*deb.Lock, error) {
	dir, err := o.Cache.Dir(ctx, lockKind, lockKey(set, host), func(tmp string) error {
		mirror, err := deb.FindMirror(o.Mirror, "/etc/apt")
		if err != nil {
			return err
		}
		a := &deb.Archive{Mirror: mirror, Suite: Suite, Components: []string{"main"}, Cache: o.Cache, Now: o.Now, Keyring: o.Keyring, Offline: o.Offline}
		l, err := a.Resolve(ctx, host.Debian, deb.Request{Roots: roots(set), Exclude: excluded})
		if err != nil {
			return err
		}
		// Fetched at once: the archive moves, and a lock whose packages are gone helps nobody.
		if o.Log != nil {
			o.Log("fetching tools: " + strings.Join(set, ", "))
		}
		if _, err := a.Fetch(ctx, l, nil); err != nil {
			return err
		}
		return l.Write(filepath.Join(tmp, lockFile))
	})
	if err != nil {
		return nil, err
	}
	return deb.ReadLock(filepath.Join(dir, lockFile))
}

// Dir is the folder that stands for / of the packages.
func (t *Tools) Dir() string { return t.dir }

// Path returns where a file of the packages lies, such as /usr/share/OVMF/OVMF_CODE_4M.fd.
func (t *Tools) Path(abs string) string { return filepath.Join(t.dir, filepath.Clean("/"+abs)) }

// LibraryPath lists the folders with libraries.
func (t *Tools) LibraryPath() []string {
	lib := t.Path("/usr/lib/" + t.arch.Triplet)
	return []string{lib, filepath.Join(lib, "systemd"), filepath.Join(lib, "pulseaudio"), t.Path("/usr/lib"), t.Path("/usr/lib64")}
}

// Command returns a command that runs the tool with the given name or path in
// usr/bin, usr/sbin or usr/lib.
func (t *Tools) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	var program string
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/"} {
		p := filepath.Join(t.Path(dir), name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			program = p
			break
		}
	}
	if program == "" {
		return nil, fmt.Errorf("no tool %s in %s", name, t.dir)
	}
	head := make([]byte, 4)
	f, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	_, err = f.Read(head)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if string(head) != "\x7fELF" {
		return nil, fmt.Errorf("tool %s is a script: it cannot be run without being installed", name)
	}
	// --argv0: programs such as depmod find out by it what they are.
	cmd := exec.CommandContext(ctx, t.Path(t.arch.Loader), append([]string{
		"--argv0", name, "--library-path", strings.Join(t.LibraryPath(), ":"), program}, args...)...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "LD_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	return cmd, nil
}

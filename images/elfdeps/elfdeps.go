// Package elfdeps finds the shared libraries that programs of a tree need, so that
// an initramfs or a container image can carry them and nothing else.
package elfdeps

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// Closure returns the sorted paths of everything that the files at roots need to
// be executed or opened: themselves, their ELF interpreters and libraries
// (DT_NEEDED, with DT_RUNPATH or DT_RPATH and $ORIGIN, see ld.so(8)), and the
// symbolic links to files on the way. Roots that are no ELF files are returned as
// they are. In a tree without the links of a merged /usr (/lib64 and the like),
// paths below them are looked for in /usr: whoever uses the result adds the links.
func Closure(t *tree.Tree, roots []string) ([]string, error) {
	w := walker{t: t, done: map[string]bool{}, dirs: libraryDirs(t)}
	for _, r := range roots {
		if err := w.add(r, "the list of programs", nil); err != nil {
			return nil, err
		}
	}
	out := make([]string, 0, len(w.done))
	for p := range w.done {
		out = append(out, p)
	}
	sort.Strings(out)
	return out, nil
}

type walker struct {
	t    *tree.Tree
	done map[string]bool
	dirs []string
}

// libraryDirs are the folders that Debian's dynamic loader searches without a
// configuration: the multiarch folders, then the plain ones.
func libraryDirs(t *tree.Tree) []string {
	var dirs []string
	for _, p := range t.Paths() {
		rest, ok := strings.CutPrefix(p, "usr/lib/")
		if e := t.Get(p); ok && e.Type == tree.Dir && !strings.Contains(rest, "/") && strings.Contains(rest, "-linux-gnu") {
			dirs = append(dirs, p)
		}
	}
	return append(dirs, "usr/lib64", "usr/lib")
}

// add follows p and, if it is an ELF file, what it needs. by names who asked;
// inherited are the folders that its loaders searched: a library which they have
// loaded already meets the need of p too, though p's own path does not lead to it.
func (w *walker) add(p, by string, inherited []string) error {
	p, err := w.links(p, by)
	if err != nil || w.done[p] {
		return err
	}
	w.done[p] = true
	b, err := w.t.ReadFile(p)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("/%s: %w", p, err)
	}
	for _, s := range f.Progs {
		if s.Type != elf.PT_INTERP {
			continue
		}
		raw, err := io.ReadAll(s.Open())
		if err != nil {
			return fmt.Errorf("/%s: interpreter: %w", p, err)
		}
		if err := w.add(strings.TrimRight(string(raw), "\x00"), "/"+p, nil); err != nil {
			return err
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("/%s: %w", p, err)
	}
	var search []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		vals, err := f.DynString(tag)
		if err != nil && !errors.As(err, new(*elf.FormatError)) {
			return fmt.Errorf("/%s: %w", p, err)
		}
		for _, v := range vals {
			for _, d := range strings.Split(v, ":") {
				search = append(search, tree.Clean(strings.ReplaceAll(strings.ReplaceAll(d, "${ORIGIN}", "$ORIGIN"), "$ORIGIN", "/"+path.Dir(p))))
			}
		}
	}
	for _, n := range needed {
		lib, err := w.find(n, slices.Concat(search, w.dirs, inherited), f.FileHeader)
		if err != nil {
			return fmt.Errorf("/%s needs %s: %w", p, n, err)
		}
		if err := w.add(lib, "/"+p, append(search, inherited...)); err != nil {
			return err
		}
	}
	return nil
}

// links records the symbolic links from p to a file and returns the file's path.
func (w *walker) links(p, by string) (string, error) {
	for hops := 0; hops < 40; hops++ {
		p = w.mergeUsr(tree.Clean(p))
		dir, err := w.t.Resolve(path.Dir("/" + p))
		if err != nil {
			return "", err
		}
		p = tree.Clean(dir + "/" + path.Base(p))
		e := w.t.Get(p)
		switch {
		case e == nil:
			return "", fmt.Errorf("no /%s in the tree; %s needs it", p, by)
		case e.Type == tree.Symlink:
			w.done[p] = true
			if strings.HasPrefix(e.Link, "/") {
				p = tree.Clean(e.Link)
			} else {
				p = tree.Clean(path.Join(path.Dir(p), e.Link))
			}
		case e.Type == tree.Hardlink:
			w.done[p] = true
			p = tree.Clean(e.Link)
		case e.Type != tree.File:
			return "", fmt.Errorf("/%s is no file; %s needs it", p, by)
		default:
			return p, nil
		}
	}
	return "", fmt.Errorf("/%s: too many levels of symbolic links", p)
}

// mergeUsr moves a path below /bin, /sbin, /lib or /lib64 to /usr if the tree has
// no such folder or link.
func (w *walker) mergeUsr(p string) string {
	top, _, below := strings.Cut(p, "/")
	switch top {
	case "bin", "sbin", "lib", "lib64":
		if below && w.t.Get(top) == nil {
			return "usr/" + p
		}
	}
	return p
}

// find looks for the library name in dirs; a file for another machine is passed over.
func (w *walker) find(name string, dirs []string, want elf.FileHeader) (string, error) {
	for _, d := range dirs {
		p := w.mergeUsr(tree.Clean(d + "/" + name))
		_, e, err := w.t.Lookup(p)
		if err != nil || e.Type != tree.File {
			continue
		}
		r, err := e.Content.Open()
		if err != nil {
			return "", err
		}
		head := make([]byte, 20)
		_, err = io.ReadFull(r, head)
		r.Close()
		if err == nil && elf.Class(head[elf.EI_CLASS]) == want.Class && elf.Machine(want.ByteOrder.Uint16(head[18:])) == want.Machine {
			return p, nil
		}
	}
	return "", fmt.Errorf("not found in %s", strings.Join(dirs, ", "))
}

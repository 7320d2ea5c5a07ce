package release

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"github.com/kiln-os/kiln/internal/arch"
)

// verify fails if a file is not the program that it is said to be: a Linux program
// for the architecture, built from the group's sources, of the version. Nothing is
// run.
func verify(r io.ReaderAt, size int64, a arch.Arch, g group, version string) error {
	if err := checkELF(r, a); err != nil {
		return err
	}
	info, err := buildinfo.Read(r)
	if err != nil && len(g.modules) > 0 {
		return fmt.Errorf("it is no program made by Go (%w), as those of %s are", err, g.name)
	}
	if err == nil {
		for _, s := range info.Settings {
			if s.Key == "GOOS" && s.Value != "linux" || s.Key == "GOARCH" && s.Value != a.Go {
				return fmt.Errorf("its build information says %s=%s", s.Key, s.Value)
			}
		}
		if known, err := moduleVersion(info, g, version); known || err != nil {
			return err
		}
	}
	// Official builds are often made from a checkout, which leaves no version in the
	// build information: then it is where the program itself takes it from.
	found, err := hasVersion(io.NewSectionReader(r, 0, size), version)
	if err == nil && !found {
		err = fmt.Errorf("it does not have the text %s anywhere: it is of another version", strings.TrimPrefix(version, "v"))
	}
	return err
}

func checkELF(r io.ReaderAt, a arch.Arch) error {
	f, err := elf.NewFile(r)
	if err != nil {
		var head [4]byte
		_, _ = r.ReadAt(head[:], 0)
		return fmt.Errorf("it is no ELF program (it begins with %q): an archive has members", head)
	}
	defer f.Close()
	if f.Machine != a.ELFMachine || f.Class != a.ELFClass || f.ByteOrder.String() != "LittleEndian" {
		return fmt.Errorf("it is for %s (%s, %s); %s is %s", f.Machine, f.Class, f.ByteOrder, a.Go, a.ELFMachine)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Errorf("it is no program but of ELF type %s", f.Type)
	}
	return nil
}

// moduleVersion compares the version of the group's module in the build information,
// and reports whether there is one.
func moduleVersion(info *debug.BuildInfo, g group, version string) (known bool, err error) {
	if len(g.modules) == 0 || info.Main.Path == "" {
		return false, nil
	}
	m := moduleOf(info, g)
	if m == nil {
		return true, fmt.Errorf("it is built from %s, not from %s", info.Main.Path, strings.Join(g.modules, " or "))
	}
	v, _, _ := strings.Cut(m.Version, "+") // +dirty, +incompatible
	if !semver.IsValid(v) || module.IsPseudoVersion(v) {
		return false, nil
	}
	if !sameVersion(v, version) {
		return true, fmt.Errorf("it is of version %s of %s", v, m.Path)
	}
	return true, nil
}

// moduleOf returns the module that a program of the group is made of: its main one,
// which may lie below the group's, or, where another wraps it, one that it requires.
func moduleOf(info *debug.BuildInfo, g group) *debug.Module {
	for _, prefix := range g.modules {
		if info.Main.Path == prefix || strings.HasPrefix(info.Main.Path, prefix+"/") {
			return &info.Main
		}
	}
	for _, path := range g.modules {
		for _, m := range info.Deps {
			if base, _, _ := module.SplitPathVersion(m.Path); base != path {
				continue
			}
			if m.Replace != nil {
				return m.Replace
			}
			return m
		}
	}
	return nil
}

// hasVersion looks for a version, with or without its v, that no digit or dot extends.
func hasVersion(r io.Reader, version string) (bool, error) {
	text := []byte(strings.TrimPrefix(version, "v"))
	b := bufio.NewReaderSize(r, 1<<20)
	var before byte
	for {
		// A window that has room for two bytes after the text.
		window, err := b.Peek(1 << 20)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		for i := 0; ; {
			n := bytes.Index(window[i:], text)
			if n < 0 {
				break
			}
			start, end := i+n, i+n+len(text)
			if end+2 > len(window) && err == nil {
				break // the next window has it with what follows
			}
			prev := before
			if start > 0 {
				prev = window[start-1]
			}
			if !isDigit(prev) && prev != '.' && !extends(window[end:]) {
				return true, nil
			}
			i = start + 1
		}
		if err != nil {
			return false, nil
		}
		step := len(window) - len(text) - 2
		before = window[step-1]
		if _, err := b.Discard(step); err != nil {
			return false, err
		}
	}
}

// extends reports whether what follows a version makes it another: a digit, or a dot
// and a digit.
func extends(rest []byte) bool {
	rest = bytes.TrimPrefix(rest, []byte("."))
	return len(rest) > 0 && isDigit(rest[0])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

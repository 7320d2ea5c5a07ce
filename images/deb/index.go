package deb

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Package is a binary package of an index.
type Package struct {
	Name, Version, Arch string
	Filename, SHA256    string
	Size                int64 // bytes of the .deb
	Essential           bool
	preDepends, depends string
	provides            string
}

// Index holds the packages of a suite for one architecture.
type Index struct {
	byName    map[string][]*Package
	providers map[string][]provider // of virtual names
}

// provider is a package that provides a name, possibly in a version.
type provider struct {
	*Package
	version string
}

func newIndex() *Index {
	return &Index{byName: map[string][]*Package{}, providers: map[string][]provider{}}
}

// maxLine bounds a line of an index; Provides of a large package has some 100 KB.
const maxLine = 4 << 20

// read adds the stanzas of a Packages file (deb-control(5)).
func (ix *Index) read(r io.Reader) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 1<<16), maxLine)
	var p Package
	var last *string
	flush := func() error {
		if p == (Package{}) {
			return nil
		}
		q := p
		p, last = Package{}, nil
		if q.Name == "" || q.Version == "" || q.Filename == "" || len(q.SHA256) != 64 || q.Size <= 0 {
			return fmt.Errorf("package %q: name, version, file name, size or SHA-256 is missing", q.Name)
		}
		if strings.Contains("/"+q.Filename+"/", "/../") {
			return fmt.Errorf("package %s: file name %q leaves the archive", q.Name, q.Filename)
		}
		ix.add(&q)
		return nil
	}
	for n := 1; sc.Scan(); n++ {
		l := sc.Text()
		if l == "" {
			if err := flush(); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			continue
		}
		if l[0] == ' ' || l[0] == '\t' {
			if last != nil {
				*last += " " + strings.TrimSpace(l)
			}
			continue
		}
		k, v, ok := strings.Cut(l, ":")
		if !ok {
			return fmt.Errorf("line %d: %q is no field", n, l)
		}
		v = strings.TrimSpace(v)
		last = nil
		switch k {
		case "Package":
			p.Name = v
		case "Version":
			p.Version = v
		case "Architecture":
			p.Arch = v
		case "Filename":
			p.Filename = v
		case "SHA256":
			p.SHA256 = strings.ToLower(v)
		case "Essential":
			p.Essential = v == "yes"
		case "Depends":
			p.depends, last = v, &p.depends
		case "Pre-Depends":
			p.preDepends, last = v, &p.preDepends
		case "Provides":
			p.provides, last = v, &p.provides
		case "Size":
			size, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return fmt.Errorf("line %d: size %q: %w", n, v, err)
			}
			p.Size = size
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return flush()
}

func (ix *Index) add(p *Package) {
	ix.byName[p.Name] = append(ix.byName[p.Name], p)
	if p.provides == "" {
		return
	}
	for _, s := range strings.Split(p.provides, ",") {
		name, version, _ := strings.Cut(strings.TrimSpace(s), "(")
		name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
		if name == "" || name == p.Name {
			continue
		}
		// Only "=" is possible here (Debian Policy, section 7.5).
		version = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(strings.TrimRight(version, ") ")), "="))
		ix.providers[name] = append(ix.providers[name], provider{p, version})
	}
}

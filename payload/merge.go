package payload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Programs of one project share most of their code. Merged into one file that runs
// the one whose name it is called by, they take the place of the largest alone, on a
// disk and in memory. Package main cannot be imported, so the go command is shown
// copies of the packages under other names, by its flag -overlay.

// mergedDir is the folder below a component's that exists in the overlay only.
const mergedDir = "merged"

// The two words that make a package a program.
var (
	packageMain = regexp.MustCompile(`(?m)^package main\b`)
	funcMain    = regexp.MustCompile(`(?m)^func main\(\)`)
)

// dispatcher is the main package of a merged program; its imports and table are put in.
const dispatcher = `package main

import (
	"fmt"
	"os"
	"path/filepath"

%s)

var programs = map[string]func(){
%s}

func main() {
	run, ok := programs[filepath.Base(os.Args[0])]
	if !ok && len(os.Args) > 1 {
		if run, ok = programs[os.Args[1]]; ok {
			os.Args = os.Args[1:]
		}
	}
	if !ok {
		fmt.Fprintf(os.Stderr, "usage: %%s PROGRAM [ARGUMENT]...\nPROGRAM is one of %s\n", filepath.Base(os.Args[0]))
		os.Exit(2)
	}
	run()
}
`

// files are what is compiled into one file each: the programs of c by the one
// whose file they are in, in the order of c's.
func (c Component) files() [][]Program {
	var out [][]Program
	at := map[string]int{}
	for _, p := range c.Programs {
		if i, ok := at[p.In]; ok && p.In != "" {
			out[i] = append(out[i], p)
			continue
		}
		at[p.Name] = len(out)
		out = append(out, []Program{p})
	}
	return out
}

// merge writes the sources of one program that is all of list, and an overlay of
// the go command with them, into dir. It returns the overlay's path and the package.
func merge(ctx context.Context, o Options, c Component, list []Program, dir string) (overlay, pkg string, err error) {
	replace := map[string]string{}
	add := func(virtual string, text []byte) error {
		real := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		replace[filepath.Join(o.SourceDir, c.Name, mergedDir, virtual)] = real
		return os.WriteFile(real, text, 0o600)
	}
	var imports, table strings.Builder
	var names []string
	for i, p := range list {
		args := append([]string{"list", "-mod=readonly"}, c.modfile(o)...)
		args = append(args, "-f", "{{.Dir}}{{range .GoFiles}}\n{{.}}{{end}}", p.Package)
		out, err := run(command(ctx, o, filepath.Join(o.SourceDir, c.Name), args...))
		if err != nil {
			return "", "", err
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		entry := false
		for _, name := range lines[1:] {
			text, err := os.ReadFile(filepath.Join(lines[0], name))
			if err != nil {
				return "", "", err
			}
			entry = entry || funcMain.Match(text)
			text = packageMain.ReplaceAll(text, []byte("package program"))
			text = funcMain.ReplaceAll(text, []byte("func Main()"))
			if err := add(filepath.Join(p.Name, name), text); err != nil {
				return "", "", err
			}
		}
		if !entry {
			return "", "", fmt.Errorf("%s has no function main to merge", p.Package)
		}
		fmt.Fprintf(&imports, "\tp%d %q\n", i, "github.com/kiln-os/kiln/payload/"+c.Module+"/"+mergedDir+"/"+p.Name)
		fmt.Fprintf(&table, "\t%q: p%d.Main,\n", p.Name, i)
		names = append(names, p.Name)
	}
	if err := add("main.go", fmt.Appendf(nil, dispatcher, &imports, &table, strings.Join(names, ", "))); err != nil {
		return "", "", err
	}
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(map[string]any{"Replace": replace}); err != nil {
		return "", "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, "./" + mergedDir, os.WriteFile(overlay, text.Bytes(), 0o600)
}

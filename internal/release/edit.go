package release

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/diag"
)

// editor changes single values of a manifest's text, so that comments and everything
// else in it stay as they were written.
type editor struct {
	m     *Manifest
	edits []edit
	err   error
}

// edit replaces width characters of a line, or, with width -1, adds a line after it.
type edit struct {
	line, column, width int // from 1
	text                string
}

func (e *editor) fail(n *yaml.Node, why string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s:%d:%d: %s", e.m.File, n.Line, n.Column, why)
	}
}

// set gives the key of the mapping at p a value: the one that is there is replaced, a
// new one stands below the key after.
func (e *editor) set(p diag.Path, after, key, value string) {
	if _, n, ok := e.m.doc.Lookup(p.Child(key)); ok {
		if n.Value != value {
			e.replace(p.Child(key), value)
		}
		return
	}
	k, n, ok := e.m.doc.Lookup(p.Child(after))
	if !ok {
		return
	}
	_, mapping, _ := e.m.doc.Lookup(p)
	if mapping.Style&yaml.FlowStyle != 0 || n.Line != k.Line || !e.isWhole(n) {
		e.fail(k, "write the entry with one key a line, so that imagegen can add "+key)
		return
	}
	e.edits = append(e.edits, edit{n.Line, k.Column, -1, key + ": " + value})
}

// replace changes the scalar at p.
func (e *editor) replace(p diag.Path, value string) {
	_, n, ok := e.m.doc.Lookup(p)
	if !ok {
		return
	}
	if !e.isWhole(n) {
		e.fail(n, "write the value on one line, so that imagegen can change it")
		return
	}
	e.edits = append(e.edits, edit{n.Line, n.Column, e.width(n), value})
}

func (e *editor) width(n *yaml.Node) int {
	w := utf8.RuneCountInString(n.Value)
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		w += 2
	}
	return w
}

// isWhole reports whether the text of a scalar is its value, perhaps in quotes.
func (e *editor) isWhole(n *yaml.Node) bool {
	line := []rune(e.lines()[n.Line-1])
	if n.Kind != yaml.ScalarNode || n.Column-1+e.width(n) > len(line) {
		return false
	}
	text := string(line[n.Column-1 : n.Column-1+e.width(n)])
	return text == n.Value || text == `"`+n.Value+`"` || text == "'"+n.Value+"'"
}

func (e *editor) lines() []string { return strings.Split(string(e.m.raw), "\n") }

// apply returns the changed text.
func (e *editor) apply() ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	lines := e.lines()
	// From the end, so that what is changed does not move what is still to change;
	// lines that are added after the same line keep their order.
	edits := slices.Clone(e.edits)
	slices.Reverse(edits)
	slices.SortStableFunc(edits, func(a, b edit) int { return b.line - a.line })
	for _, c := range edits {
		line := lines[c.line-1]
		end := ""
		if strings.HasSuffix(line, "\r") {
			end = "\r"
		}
		if c.width < 0 {
			lines = slices.Insert(lines, c.line, strings.Repeat(" ", c.column-1)+c.text+end)
			continue
		}
		r := []rune(line)
		lines[c.line-1] = string(r[:c.column-1]) + c.text + string(r[c.column-1+c.width:])
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// write puts the changed text into the manifest's file if it is a whole manifest, and
// if the file is still the one that was read.
func (e *editor) write() error {
	text, err := e.apply()
	if err != nil {
		return err
	}
	if _, mistakes := parse(e.m.File, text, false); len(mistakes) > 0 {
		return fmt.Errorf("with its digests the manifest would not be whole: %w", mistakes)
	}
	now, err := os.ReadFile(e.m.File)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, e.m.raw) {
		return fmt.Errorf("%s was changed in the meantime; run pin again", e.m.File)
	}
	st, err := os.Stat(e.m.File)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(e.m.File, text, st.Mode().Perm())
}

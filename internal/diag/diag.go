// Package diag collects mistakes in a file a person wrote and shows them all at
// once: file, line, column, path, what is wrong, what would be right, and the
// source line underlined.
package diag

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mistake is one thing wrong with a file.
type Mistake struct {
	File string `json:"file"`
	// Line and Column count from 1; Column counts characters. 0 means the whole file.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Path is the place in the document: nodes[0].address.
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	// Want says what would be right.
	Want string `json:"want,omitempty"`
	// Source is the line the mistake is in, Width the number of characters to underline.
	Source string `json:"source,omitempty"`
	Width  int    `json:"-"`
}

// Error implements error in one line: file:line:column: path: message; want.
func (m Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", m.Line, m.Column)
	}
	b.WriteString(": ")
	if m.Path != "" {
		b.WriteString(m.Path + ": ")
	}
	b.WriteString(m.Message)
	if m.Want != "" {
		b.WriteString("; " + m.Want)
	}
	return b.String()
}

// print writes the mistake with its source line underlined.
func (m Mistake) print(w io.Writer) error {
	if _, err := fmt.Fprintln(w, m.Error()); err != nil {
		return err
	}
	if strings.TrimSpace(m.Source) == "" || m.Column < 1 {
		return nil
	}
	number := fmt.Sprintf("%5d", m.Line)
	_, err := fmt.Fprintf(w, "%s | %s\n%s | %s\n", number, m.Source, strings.Repeat(" ", len(number)), m.underline())
	return err
}

// underline is the line below Source: tabs stay tabs, so that it is aligned
// wherever tab stops are.
func (m Mistake) underline() string {
	var b strings.Builder
	col := 1
	for _, r := range m.Source {
		if col == m.Column {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
		col++
	}
	width := min(m.Width, utf8.RuneCountInString(m.Source)-m.Column+1)
	b.WriteString("^" + strings.Repeat("~", max(width-1, 0)))
	return b.String()
}

// List is the mistakes of one run. Its JSON form is an array of Mistake.
type List []Mistake

// Add appends a mistake.
func (l *List) Add(m Mistake) { *l = append(*l, m) }

// Sort orders by file and position and drops exact duplicates.
func (l *List) Sort() {
	slices.SortStableFunc(*l, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	*l = slices.Compact(*l)
}

// Print writes all mistakes, sorted, each with its source line underlined.
func (l List) Print(w io.Writer) error {
	l = slices.Clone(l)
	l.Sort()
	for _, m := range l {
		if err := m.print(w); err != nil {
			return err
		}
	}
	return nil
}

// Err is nil for an empty List, else the List as an error.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// Error implements error: one line per mistake.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, m := range l {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

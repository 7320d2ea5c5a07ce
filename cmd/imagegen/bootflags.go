package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// perNode is a flag with a positive number for all nodes, or NODE=NUMBER for one.
type perNode struct {
	unit string
	all  int
	one  map[string]int
}

// Set implements pflag.Value.
func (p *perNode) Set(s string) error {
	name, number, named := strings.Cut(s, "=")
	if !named {
		number = s
	}
	n, err := strconv.Atoi(number)
	if err != nil || n <= 0 || n > 1<<20 || named && name == "" {
		return fmt.Errorf("want a positive number of %s, or NODE=NUMBER", p.unit)
	}
	if !named {
		p.all = n
		return nil
	}
	if p.one == nil {
		p.one = map[string]int{}
	}
	p.one[name] = n
	return nil
}

// String implements pflag.Value.
func (p *perNode) String() string {
	var out []string
	if p.all > 0 {
		out = append(out, strconv.Itoa(p.all))
	}
	for _, n := range p.nodes() {
		out = append(out, fmt.Sprintf("%s=%d", n, p.one[n]))
	}
	return strings.Join(out, " ")
}

// Type implements pflag.Value.
func (p *perNode) Type() string { return "number" }

// nodes are those that have a number of their own, sorted.
func (p *perNode) nodes() []string {
	var out []string
	for n := range p.one {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// of returns a node's number.
func (p *perNode) of(node string, otherwise int) int {
	if n := p.one[node]; n > 0 {
		return n
	}
	if p.all > 0 {
		return p.all
	}
	return otherwise
}

// lineWriter passes lines on.
type lineWriter func(string)

// Write implements io.Writer; it gets whole lines.
func (w lineWriter) Write(b []byte) (int, error) {
	for _, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		w(line)
	}
	return len(b), nil
}

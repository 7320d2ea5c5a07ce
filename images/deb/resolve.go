package deb

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"pault.ag/go/debian/version"
)

// Request says what to resolve.
type Request struct {
	// Roots are names of packages. Essential packages are not added by themselves.
	Roots []string
	// Exclude names packages that are never taken. They count as installed: a
	// dependency on one, or on what it provides, is met.
	Exclude []string
	// Prefer decides which package meets a virtual dependency.
	Prefer map[string]string
}

// Resolve returns the closure of the roots over Pre-Depends and Depends, sorted
// by name. A dependency with alternatives is met by a package that is in the
// closure already, else by the preferred one, else by the first there is. A
// package is there in one version. Conflicts and Breaks are not looked at.
func (ix *Index) Resolve(req Request) ([]Package, error) {
	r := resolver{ix: ix, req: req, chosen: map[string]*choice{}, excluded: map[string]bool{}}
	for _, e := range req.Exclude {
		r.excluded[e] = true
	}
	// Roots first, so that they decide alternatives.
	for _, name := range req.Roots {
		if r.excluded[name] {
			return nil, fmt.Errorf("package %s is asked for and excluded", name)
		}
		p := ix.best(name, relation{})
		if p == nil {
			return nil, fmt.Errorf("no package %s in the archive", name)
		}
		r.take(p, nil)
	}
	for len(r.queue) > 0 {
		c := r.queue[0]
		r.queue = r.queue[1:]
		for _, field := range []string{c.preDepends, c.depends} {
			deps, err := parseRelations(field)
			if err != nil {
				return nil, fmt.Errorf("package %s: %w", c.Name, err)
			}
			for _, d := range deps {
				if err := r.meet(c, d); err != nil {
					return nil, err
				}
			}
		}
	}
	out := make([]Package, 0, len(r.chosen))
	for _, c := range r.chosen {
		out = append(out, *c.Package)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

type resolver struct {
	ix       *Index
	req      Request
	chosen   map[string]*choice
	excluded map[string]bool
	queue    []*choice
}

// choice is a package of the closure and the one that brought it, nil for a root.
type choice struct {
	*Package
	by *choice
}

// String is the way from a root to the package.
func (c *choice) String() string {
	s := c.Name + " " + c.Version
	for b := c.by; b != nil; b = b.by {
		s += ", needed by " + b.Name
	}
	return s
}

func (r *resolver) take(p *Package, by *choice) {
	if r.chosen[p.Name] == nil {
		c := &choice{p, by}
		r.chosen[p.Name] = c
		r.queue = append(r.queue, c)
	}
}

// free tells whether the package is or can be in the closure, in this version.
func (r *resolver) free(p *Package) bool {
	c := r.chosen[p.Name]
	return !r.excluded[p.Name] && (c == nil || c.Package == p)
}

// meet makes sure that one of the alternatives is in the closure.
func (r *resolver) meet(by *choice, alternatives []relation) error {
	for _, d := range alternatives {
		if c := r.chosen[d.name]; r.excluded[d.name] || c != nil && d.allows(c.Version) {
			return nil
		}
		for _, p := range r.ix.providers[d.name] {
			if c := r.chosen[p.Name]; d.allowsProvided(p.version) && (r.excluded[p.Name] || c != nil && c.Package == p.Package) {
				return nil
			}
		}
	}
	for _, d := range alternatives {
		if p := r.preferred(d); p != nil {
			r.take(p, by)
			return nil
		}
		if p := r.ix.best(d.name, d); p != nil && r.free(p) {
			r.take(p, by)
			return nil
		}
		for _, p := range sortedByName(r.ix.providers[d.name]) {
			if d.allowsProvided(p.version) && r.free(p.Package) {
				r.take(p.Package, by)
				return nil
			}
		}
	}
	var missing []string
	for _, d := range alternatives {
		s := d.String()
		if c := r.chosen[d.name]; c != nil {
			s += fmt.Sprintf(" (chosen is %s)", c)
		} else if p := r.ix.best(d.name, relation{}); p != nil {
			s += " (the archive has " + p.Version + ")"
		}
		missing = append(missing, s)
	}
	return fmt.Errorf("package %s needs %s, which cannot be had", by, strings.Join(missing, " | "))
}

// preferred returns the package that the request prefers for a relation, if it
// meets the relation.
func (r *resolver) preferred(d relation) *Package {
	want := r.req.Prefer[d.name]
	if want == "" {
		return nil
	}
	if want == d.name {
		if p := r.ix.best(want, d); p != nil && r.free(p) {
			return p
		}
		return nil
	}
	for _, p := range r.ix.providers[d.name] {
		if p.Name == want && d.allowsProvided(p.version) && r.free(p.Package) {
			return p.Package
		}
	}
	return nil
}

func sortedByName(ps []provider) []provider {
	ps = slices.Clone(ps)
	slices.SortStableFunc(ps, func(a, b provider) int { return strings.Compare(a.Name, b.Name) })
	return ps
}

// best returns the newest version of a package that the relation allows.
func (ix *Index) best(name string, d relation) *Package {
	var best *Package
	for _, p := range ix.byName[name] {
		if d.allows(p.Version) && (best == nil || compare(p.Version, best.Version) > 0) {
			best = p
		}
	}
	return best
}

// relation is one alternative of a dependency: a name and possibly a version.
type relation struct{ name, op, version string }

func (d relation) String() string {
	if d.op == "" {
		return d.name
	}
	return fmt.Sprintf("%s (%s %s)", d.name, d.op, d.version)
}

func (d relation) allows(v string) bool {
	if d.op == "" {
		return true
	}
	c := compare(v, d.version)
	switch d.op {
	case ">=":
		return c >= 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">>":
		return c > 0
	case "<<":
		return c < 0
	}
	return false
}

// allowsProvided tells whether a Provides meets the relation: a relation with a
// version is met only by a Provides with one (Debian Policy, section 7.5).
func (d relation) allowsProvided(v string) bool {
	return d.op == "" || v != "" && d.allows(v)
}

// compare orders Debian versions; one that does not parse is older than any.
func compare(a, b string) int {
	x, errA := version.Parse(a)
	y, errB := version.Parse(b)
	switch {
	case errA != nil && errB != nil:
		return strings.Compare(a, b)
	case errA != nil:
		return -1
	case errB != nil:
		return 1
	}
	return version.Compare(x, y)
}

var relationForm = regexp.MustCompile(`^([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(>=|<=|>>|<<|=)\s*([^\s)]+)\s*\))?\s*(?:\[[^]]*\])?\s*(?:<[^>]*>\s*)*$`)

// parseRelations reads a Depends field (Debian Policy, section 7.1).
func parseRelations(field string) ([][]relation, error) {
	var out [][]relation
	for _, group := range strings.Split(field, ",") {
		if group = strings.TrimSpace(group); group == "" {
			continue
		}
		var alts []relation
		for _, s := range strings.Split(group, "|") {
			m := relationForm.FindStringSubmatch(strings.TrimSpace(s))
			if m == nil {
				return nil, fmt.Errorf("%q is no dependency", s)
			}
			alts = append(alts, relation{m[1], m[2], m[3]})
		}
		out = append(out, alts)
	}
	return out, nil
}

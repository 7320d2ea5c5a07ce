package deb

import (
	"fmt"
	"regexp"
	"sort"
	"strings"

	"pault.ag/go/debian/version"
)

// Request says what to resolve.
type Request struct {
	Roots []string
	// Exclude names packages that are never taken; a dependency on one counts as met.
	Exclude []string
	// Prefer decides which package meets a virtual dependency.
	Prefer map[string]string
}

// Resolve returns the closure of the roots over Pre-Depends and Depends, sorted
// by name. A dependency with alternatives is met by a package that is in the
// closure already, else by the preferred one, else by the first there is.
func (ix *Index) Resolve(req Request) ([]Package, error) {
	r := resolver{ix: ix, req: req, chosen: map[string]*Package{}, excluded: map[string]bool{}}
	for _, e := range req.Exclude {
		r.excluded[e] = true
	}
	// Roots first, so that they decide alternatives.
	for _, name := range req.Roots {
		p := ix.best(name, relation{})
		if p == nil {
			return nil, fmt.Errorf("no package %s in the archive", name)
		}
		r.take(p)
	}
	for len(r.queue) > 0 {
		p := r.queue[0]
		r.queue = r.queue[1:]
		for _, field := range []string{p.preDepends, p.depends} {
			deps, err := parseRelations(field)
			if err != nil {
				return nil, fmt.Errorf("package %s: %w", p.Name, err)
			}
			for _, d := range deps {
				if err := r.meet(p, d); err != nil {
					return nil, err
				}
			}
		}
	}
	out := make([]Package, 0, len(r.chosen))
	for _, p := range r.chosen {
		out = append(out, *p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

type resolver struct {
	ix       *Index
	req      Request
	chosen   map[string]*Package
	excluded map[string]bool
	queue    []*Package
}

func (r *resolver) take(p *Package) {
	if r.chosen[p.Name] == nil {
		r.chosen[p.Name] = p
		r.queue = append(r.queue, p)
	}
}

// meet makes sure that one of the alternatives is in the closure.
func (r *resolver) meet(by *Package, alternatives []relation) error {
	for _, d := range alternatives {
		if p := r.chosen[d.name]; p != nil && d.allows(p.Version) || r.excluded[d.name] {
			return nil
		}
		for _, p := range r.ix.providers[d.name] {
			if r.chosen[p.Name] == p && d.op == "" {
				return nil
			}
		}
	}
	for _, d := range alternatives {
		if want := r.req.Prefer[d.name]; want != "" {
			if p := r.ix.best(want, relation{}); p != nil && !r.excluded[want] {
				r.take(p)
				return nil
			}
		}
		if p := r.ix.best(d.name, d); p != nil {
			r.take(p)
			return nil
		}
		// A versioned dependency may be met by a versioned Provides; the archive's consistency is trusted there.
		for _, p := range sortedByName(r.ix.providers[d.name]) {
			if !r.excluded[p.Name] {
				r.take(p)
				return nil
			}
		}
	}
	var names []string
	for _, d := range alternatives {
		names = append(names, d.String())
	}
	return fmt.Errorf("package %s %s needs %s, and the archive has none of them", by.Name, by.Version, strings.Join(names, " | "))
}

func sortedByName(ps []*Package) []*Package {
	ps = append([]*Package(nil), ps...)
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Name < ps[j].Name })
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

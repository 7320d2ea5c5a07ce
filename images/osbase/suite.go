package osbase

import (
	"fmt"
	"slices"
	"strings"
)

// DefaultSuite is the release of Debian that nodes are made of unless told otherwise.
const DefaultSuite = "trixie"

// Suite is a release of Debian that nodes can be made of, and how its packages differ
// from those of the default one.
type Suite struct {
	Name string
	// Absent are names of Packages that the suite does not have: their files are part
	// of other packages there, which are in the list as well.
	Absent []string
	// Excluded are left out besides the list of that name: names with a version in them.
	Excluded []string
}

var suites = []Suite{
	{Name: DefaultSuite, Excluded: []string{"perl-modules-5.40"}},
	{Name: "forky", Excluded: []string{"perl-modules-5.42"}},
}

// Suites lists the names of all suites, the default one first.
func Suites() []string {
	var names []string
	for _, s := range suites {
		names = append(names, s.Name)
	}
	return names
}

// GetSuite returns the suite with the given name.
func GetSuite(name string) (Suite, error) {
	for _, s := range suites {
		if s.Name == name {
			return s, nil
		}
	}
	return Suite{}, fmt.Errorf("nodes cannot be made of Debian's suite %q; Kiln knows the packages of %s", name, strings.Join(Suites(), ", "))
}

// Roots are the packages that every node has.
func (s Suite) Roots() []string {
	return slices.DeleteFunc(slices.Clone(Packages), func(p string) bool { return slices.Contains(s.Absent, p) })
}

// Exclude names all packages that are never part of a node.
func (s Suite) Exclude() []string { return slices.Concat(Excluded, s.Excluded) }

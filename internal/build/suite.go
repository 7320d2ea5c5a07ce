package build

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/profiles"
)

// suiteOf is the release of Debian that the nodes of a profile are made of. What is said
// for this build comes before what the cluster file says, and that before the profile.
func suiteOf(o Options, p profiles.Profile) (osbase.Suite, error) {
	return osbase.GetSuite(cmp.Or(o.Suite, o.Cluster.Debian.Suite, p.Suite, osbase.DefaultSuite))
}

// staleHint adds to an error that the mirror's copy of a suite is out of date what may help.
func staleHint(err error, s osbase.Suite) error {
	if !errors.As(err, new(*deb.StaleError)) {
		return err
	}
	others := slices.DeleteFunc(osbase.Suites(), func(n string) bool { return n == s.Name })
	return fmt.Errorf("%w; wait until the mirror has caught up, take another one with --mirror, or another suite (%s) with --suite or debian.suite in the cluster file", err, strings.Join(others, ", "))
}

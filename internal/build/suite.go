package build

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/profiles"
)

// suiteOf is the release of Debian that the nodes of a profile are made of. What is said
// for this build comes before what the cluster file says, and that before the profile.
func suiteOf(o Options, p profiles.Profile) (osbase.Suite, error) {
	return osbase.GetSuite(cmp.Or(o.Suite, o.Cluster.Debian.Suite, p.Suite, osbase.DefaultSuite))
}

// archiveDate is the day as of which the archive is judged, the zero time for now.
func archiveDate(o Options) (time.Time, error) {
	s := cmp.Or(o.ArchiveDate, o.Cluster.Debian.Date)
	if s == "" {
		return time.Time{}, nil
	}
	return deb.ParseDay(s)
}

// staleHint adds to an error that the mirror's copy of a suite is out of date what may help.
func staleHint(err error, s osbase.Suite) error {
	var stale *deb.StaleError
	if !errors.As(err, &stale) {
		return err
	}
	past := ""
	if !stale.ValidUntil.IsZero() {
		past = fmt.Sprintf("; if it is meant to be of a day that is past, name one before %s with --archive-date or debian.date in the cluster file", stale.ValidUntil.Format(time.DateOnly))
	}
	others := slices.DeleteFunc(osbase.Suites(), func(n string) bool { return n == s.Name })
	return fmt.Errorf("%w; wait until the mirror has caught up, take another one with --mirror, or another suite (%s) with --suite or debian.suite in the cluster file%s", err, strings.Join(others, ", "), past)
}

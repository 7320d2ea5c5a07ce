//go:build boot

package qemutests

import (
	"bytes"
	"io"
	"os/exec"
	"regexp"
	"testing"

	"github.com/kiln-os/kiln/images/osbase"
)

// What imagegen says of a mirror that has not all of a suite for an architecture, and of
// a suite whose time has run out.
var (
	incomplete = regexp.MustCompile(`is not on the mirror any more|is not the one that its signed InRelease names|the mirror has no dists/`)
	expired    = regexp.MustCompile(`dated (\d{4}-\d\d-\d\d)T\S*, it was valid until`)
)

// buildAnySuite runs imagegen with args for a build, of the first suite that the mirror
// has whole: mirrors copy the smaller architectures last, if at all. One whose time has
// run out is taken as of its own day. The log says which one it is; any other failure
// fails the test.
func buildAnySuite(t *testing.T, imagegen string, args ...string) {
	t.Helper()
	anySuite(t, imagegen, args...)
}

// anySuite is buildAnySuite that returns the flags which name the suite.
func anySuite(t *testing.T, imagegen string, args ...string) []string {
	t.Helper()
	build := func(more ...string) (ok bool, said string) {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), imagegen, append(args, more...)...)
		cmd.Stdout = io.MultiWriter(&out, t.Output())
		cmd.Stderr = cmd.Stdout
		err := cmd.Run()
		if err != nil && !incomplete.MatchString(out.String()) && !expired.MatchString(out.String()) {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		return err == nil, out.String()
	}
	for _, suite := range osbase.Suites() {
		flags, asOf := []string{"--suite", suite}, "now"
		ok, said := build(flags...)
		if day := expired.FindStringSubmatch(said); !ok && day != nil {
			asOf = day[1]
			flags = append(flags, "--archive-date", asOf)
			ok, _ = build(flags...)
		}
		if ok {
			t.Logf("the node is of Debian %s as of %s", suite, asOf)
			return flags
		}
		t.Logf("the mirror has not all of Debian %s", suite)
	}
	t.Fatalf("the mirror has all of none of %v", osbase.Suites())
	return nil
}

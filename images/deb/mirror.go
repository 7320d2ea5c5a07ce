// Package deb reads a Debian archive: it verifies the signed index of a suite,
// resolves the closure of packages, fetches them by digest and unpacks them into
// a tree, without dpkg or apt and without running anything (Debian Policy Manual;
// deb(5), deb-control(5), sources.list(5)).
package deb

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// FindMirror returns the base URL of a Debian mirror, without a slash at its end:
// flag if it is set, else $KILN_MIRROR, else the first archive of Debian in apt's
// sources below aptDir (/etc/apt): one whose URL ends in /debian, or else one that
// serves a suite named like a release of Debian.
func FindMirror(flag, aptDir string) (string, error) {
	for _, m := range []string{flag, os.Getenv("KILN_MIRROR")} {
		if m == "" {
			continue
		}
		u, ok := baseURL(m)
		if !ok {
			return "", fmt.Errorf("mirror %q is no http or https URL", m)
		}
		return u, nil
	}
	all, err := aptSources(aptDir)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if strings.HasSuffix(s.uri, "/debian") {
			return s.uri, nil
		}
	}
	for _, s := range all {
		if slices.ContainsFunc(s.suites, func(suite string) bool { return slices.Contains(releases, suite) }) {
			return s.uri, nil
		}
	}
	return "", fmt.Errorf("no Debian mirror: give --mirror URL or set KILN_MIRROR to the URL above dists/; apt's configuration in %s names none", aptDir)
}

// releases are names that suites of Debian's main archive have; those of the
// security and backports archives have a suffix.
var releases = []string{"bullseye", "bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable", "oldstable", "oldoldstable"}

// baseURL removes slashes at the end of an http or https URL.
func baseURL(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", false
	}
	return strings.TrimRight(s, "/"), true
}

// source is one http or https URI of binary packages in apt's configuration.
type source struct {
	uri    string // without a slash at its end
	suites []string
}

// aptSources reads all of apt's sources in the order in which apt does (sources.list(5)).
func aptSources(aptDir string) ([]source, error) {
	files := []string{filepath.Join(aptDir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		m, err := filepath.Glob(filepath.Join(aptDir, "sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, m...)
	}
	sort.Strings(files[1:])
	var all []source
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("apt's sources: %w", err)
		}
		if strings.HasSuffix(name, ".sources") {
			all = append(all, stanzaSources(string(b))...)
		} else {
			all = append(all, lineSources(string(b))...)
		}
	}
	return all, nil
}

// lineSources reads the form with one source a line: deb [options] uri suite component…
func lineSources(text string) []source {
	var out []source
	for _, l := range strings.Split(text, "\n") {
		l, _, _ = strings.Cut(l, "#")
		f := strings.Fields(l)
		if len(f) == 0 || f[0] != "deb" {
			continue
		}
		f = f[1:]
		if len(f) > 0 && strings.HasPrefix(f[0], "[") {
			end := slices.IndexFunc(f, func(s string) bool { return strings.HasSuffix(s, "]") })
			f = f[end+1:]
		}
		if len(f) < 2 {
			continue
		}
		if u, ok := baseURL(f[0]); ok {
			out = append(out, source{u, []string{f[1]}})
		}
	}
	return out
}

// stanzaSources reads the form with a stanza of fields for each source (deb822(5)).
func stanzaSources(text string) []source {
	var out []source
	fields, last := map[string]string{}, ""
	flush := func() {
		off := slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(strings.TrimSpace(fields["enabled"])))
		if !off && slices.Contains(strings.Fields(fields["types"]), "deb") {
			for _, u := range strings.Fields(fields["uris"]) {
				if u, ok := baseURL(u); ok {
					out = append(out, source{u, strings.Fields(fields["suites"])})
				}
			}
		}
		fields, last = map[string]string{}, ""
	}
	for _, l := range strings.Split(text, "\n") {
		switch {
		case strings.TrimSpace(l) == "":
			flush()
		case l[0] == '#': // also between the lines of a field
		case l[0] == ' ' || l[0] == '\t':
			fields[last] += l
		default:
			k, v, _ := strings.Cut(l, ":")
			last = strings.ToLower(k)
			fields[last] = v
		}
	}
	flush()
	return out
}

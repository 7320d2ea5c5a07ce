// Package deb reads a Debian archive: it verifies the signed index of a suite,
// resolves the closure of packages, fetches them by digest and unpacks them into
// a tree, without dpkg or apt and without running anything (Debian Policy Manual;
// deb(5), deb-control(5), sources.list(5)).
package deb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// FindMirror returns the base URL of a Debian mirror, without a slash at its end:
// flag if it is set, else $KILN_MIRROR, else the first archive of Debian in apt's
// sources below aptDir (/etc/apt).
func FindMirror(flag, aptDir string) (string, error) {
	for _, m := range []string{flag, os.Getenv("KILN_MIRROR")} {
		if m == "" {
			continue
		}
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", fmt.Errorf("mirror %q is no http or https URL", m)
		}
		return strings.TrimRight(m, "/"), nil
	}
	files := []string{filepath.Join(aptDir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		m, err := filepath.Glob(filepath.Join(aptDir, "sources.list.d", pattern))
		if err != nil {
			return "", err
		}
		sort.Strings(m)
		files = append(files, m...)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, uri := range sourceURIs(string(b), strings.HasSuffix(name, ".sources")) {
			if strings.HasSuffix(uri, "/debian") {
				return uri, nil
			}
		}
	}
	return "", errors.New("no Debian mirror: give --mirror URL or set KILN_MIRROR to the URL above dists/; apt's configuration on this machine names none")
}

// sourceURIs lists the URIs of binary packages in a file of apt sources, in either form.
func sourceURIs(text string, deb822 bool) []string {
	var out []string
	add := func(u string) {
		if strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") {
			out = append(out, strings.TrimRight(u, "/"))
		}
	}
	if !deb822 {
		for _, l := range strings.Split(text, "\n") {
			l, _, _ = strings.Cut(l, "#")
			f := strings.Fields(l)
			if len(f) < 3 || f[0] != "deb" {
				continue
			}
			f = f[1:]
			if strings.HasPrefix(f[0], "[") {
				for len(f) > 1 && !strings.HasSuffix(f[0], "]") {
					f = f[1:]
				}
				f = f[1:]
			}
			if len(f) > 0 {
				add(f[0])
			}
		}
		return out
	}
	var types, uris []string
	enabled := true
	flush := func() {
		for _, t := range types {
			if t == "deb" && enabled {
				for _, u := range uris {
					add(u)
				}
			}
		}
		types, uris, enabled = nil, nil, true
	}
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		l := sc.Text()
		if strings.TrimSpace(l) == "" {
			flush()
			continue
		}
		k, v, _ := strings.Cut(l, ":")
		switch strings.ToLower(k) {
		case "types":
			types = strings.Fields(v)
		case "uris":
			uris = strings.Fields(v)
		case "enabled":
			enabled = strings.TrimSpace(v) != "no"
		}
	}
	flush()
	return out
}

// NotFoundError says that the mirror does not have a file.
type NotFoundError struct{ Path string }

func (e *NotFoundError) Error() string { return "the mirror has no " + e.Path }

// client limits how long a silent mirror is waited for, not how long a file takes.
var client = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	ResponseHeaderTimeout: 60 * time.Second,
	MaxIdleConnsPerHost:   8,
}}

// get opens a file of the mirror. Failures that may pass are tried three times.
func get(ctx context.Context, mirror, path string) (io.ReadCloser, error) {
	var last error
	for try := range 3 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Duration(try) * 2 * time.Second):
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, mirror+"/"+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		switch {
		case err != nil:
			last = err
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		case resp.StatusCode == http.StatusOK:
			return resp.Body, nil
		default:
			resp.Body.Close()
			if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
				return nil, &NotFoundError{path}
			}
			last = fmt.Errorf("%s: the mirror answers %s", path, resp.Status)
			if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
				return nil, last
			}
		}
	}
	return nil, last
}

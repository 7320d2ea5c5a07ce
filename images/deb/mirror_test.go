package deb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindMirror(t *testing.T) {
	const (
		list    = "sources.list"
		listD   = "sources.list.d/a.list"
		sources = "sources.list.d/debian.sources"
	)
	for _, c := range []struct {
		name, flag, env string
		apt             map[string]string
		want, err       string
	}{
		{name: "flag", flag: "https://flag.example.org/debian/", env: "http://env.example.org/debian", want: "https://flag.example.org/debian"},
		{name: "environment", env: "http://env.example.org/d", apt: map[string]string{list: "deb http://apt.example.org/debian trixie main"}, want: "http://env.example.org/d"},
		{name: "no URL", flag: "/srv/debian", err: "no http or https URL"},
		{name: "no host", flag: "http:///debian", err: "no http or https URL"},
		{name: "no sources", err: "KILN_MIRROR"},
		{name: "a line", apt: map[string]string{list: "# deb http://no.example.org/debian x main\ndeb-src http://src.example.org/debian x main\ndeb http://a.example.org/debian/ bookworm main # c\n"}, want: "http://a.example.org/debian"},
		{name: "options", apt: map[string]string{listD: "deb [arch=amd64 signed-by=/k.gpg] http://a.example.org/debian bookworm main"}, want: "http://a.example.org/debian"},
		{name: "spaced options", apt: map[string]string{listD: "deb [ arch=amd64 ] http://a.example.org/debian bookworm main"}, want: "http://a.example.org/debian"},
		{name: "open options", apt: map[string]string{listD: "deb [arch=amd64"}, err: "KILN_MIRROR"},
		{name: "security first", apt: map[string]string{list: "deb http://a.example.org/debian-security bookworm-security main\ndeb http://b.example.org/debian bookworm main"}, want: "http://b.example.org/debian"},
		{name: "only a foreign archive", apt: map[string]string{listD: "deb https://apt.example.org/tool bookworm-tool main"}, err: "KILN_MIRROR"},
		{name: "by its suite", apt: map[string]string{listD: "deb https://apt.example.org/tool tool main\ndeb http://mirror.example.org/d13/ trixie main"}, want: "http://mirror.example.org/d13"},
		{name: "no host in a line", apt: map[string]string{list: "deb http:// bookworm main\ndeb http:///debian bookworm main"}, err: "KILN_MIRROR"},
		{name: "other transports", apt: map[string]string{listD: "deb cdrom:[x] bookworm main\ndeb file:/srv/debian bookworm main"}, err: "KILN_MIRROR"},
		{
			name: "a stanza", apt: map[string]string{sources: "Types: deb deb-src\n# http://old.example.org/debian\nURIs: http://a.example.org/debian\nSuites: bookworm\n"},
			want: "http://a.example.org/debian",
		},
		{
			name: "disabled, sources only, several lines", apt: map[string]string{sources: "Enabled: No\nTypes: deb\nURIs: http://a.example.org/debian\nSuites: x\n\n" +
				"Types: deb-src\nURIs: http://b.example.org/debian\nSuites: x\n\ntypes: deb\nuris:\n http://c.example.org/other\n# between\n http://d.example.org/debian/\nsuites: x"},
			want: "http://d.example.org/debian",
		},
		{name: "Windows line ends", apt: map[string]string{sources: "Types: deb\r\nURIs: http://a.example.org/debian\r\nSuites: bookworm\r\n"}, want: "http://a.example.org/debian"},
	} {
		dir := t.TempDir()
		for name, text := range c.apt {
			p := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("KILN_MIRROR", c.env)
		got, err := FindMirror(c.flag, dir)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [arch=amd64] http://a.example.org/debian trixie main\n")
	f.Add("deb [ x\ndeb ] y\ndeb []")
	f.Add("Types: deb\nURIs: http://a.example.org/debian\n http://b.example.org\nSuites: trixie\n\n x\n:\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(lineSources(text), stanzaSources(text)...) {
			if u, ok := baseURL(s.uri); !ok || u != s.uri {
				t.Errorf("URI %q", s.uri)
			}
		}
	})
}

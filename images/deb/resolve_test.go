package deb

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// index reads packages written as "name version; Field: value; …".
func index(t testing.TB, packages ...string) *Index {
	t.Helper()
	var b strings.Builder
	for _, p := range packages {
		parts := strings.Split(p, "; ")
		name, version, _ := strings.Cut(parts[0], " ")
		fmt.Fprintf(&b, "Package: %s\nVersion: %s\nFilename: pool/%s.deb\nSize: 1\nSHA256: %064d\n%s\n\n", name, version, name, 0, strings.Join(parts[1:], "\n"))
	}
	ix := newIndex()
	if err := ix.read(strings.NewReader(strings.ReplaceAll(b.String(), "\n\n\n", "\n\n"))); err != nil {
		t.Fatal(err)
	}
	return ix
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		name     string
		packages []string
		req      Request
		want     string // names, or what the error says
		fails    bool
	}{
		{name: "closure", packages: []string{"a 1; Pre-Depends: b; Depends: c", "b 1; Depends: d", "c 1", "d 1; Depends: a", "e 1"}, req: Request{Roots: []string{"a"}}, want: "a b c d"},
		{name: "newest", packages: []string{"a 1.9", "a 1.10", "a 1.10~rc1"}, req: Request{Roots: []string{"a"}}, want: "a"},
		{name: "version met", packages: []string{"a 1; Depends: b (>= 1:1.0), b (<< 2:0)", "b 1:1.0-1"}, req: Request{Roots: []string{"a"}}, want: "a b"},
		{name: "version not met", packages: []string{"a 1; Depends: b", "b 2; Depends: c (>= 2.0)", "c 2.0~rc1"}, req: Request{Roots: []string{"a"}}, want: "b 2, needed by a needs c (>= 2.0) (the archive has 2.0~rc1)", fails: true},
		{name: "one version of a package", packages: []string{"a 1; Depends: b, c", "b 1", "b 2", "c 1; Depends: b (<< 2)"}, req: Request{Roots: []string{"a"}}, want: "c 1, needed by a needs b (<< 2) (chosen is b 2, needed by a)", fails: true},
		{name: "missing", packages: []string{"a 1; Depends: x | y (= 1)"}, req: Request{Roots: []string{"a"}}, want: "a 1 needs x | y (= 1), which cannot be had", fails: true},
		{name: "missing root", req: Request{Roots: []string{"a"}}, want: "no package a", fails: true},
		{name: "excluded root", packages: []string{"a 1"}, req: Request{Roots: []string{"a"}, Exclude: []string{"a"}}, want: "asked for and excluded", fails: true},
		{name: "first alternative", packages: []string{"a 1; Depends: b | c", "b 1", "c 1"}, req: Request{Roots: []string{"a"}}, want: "a b"},
		{name: "alternative that is there", packages: []string{"a 1; Depends: b | c", "b 1", "c 1"}, req: Request{Roots: []string{"a", "c"}}, want: "a c"},
		{name: "alternative in a version", packages: []string{"a 1; Depends: b (>= 2) | c", "b 1", "c 1"}, req: Request{Roots: []string{"a"}}, want: "a c"},
		{name: "virtual", packages: []string{"a 1; Depends: v", "z 1; Provides: v", "b 1; Provides: u, v"}, req: Request{Roots: []string{"a"}}, want: "a b"},
		{name: "virtual, there", packages: []string{"a 1; Depends: v", "z 1; Provides: v", "b 1; Provides: v"}, req: Request{Roots: []string{"a", "z"}}, want: "a z"},
		{name: "virtual, preferred", packages: []string{"a 1; Depends: v", "z 1; Provides: v", "b 1; Provides: v"}, req: Request{Roots: []string{"a"}, Prefer: map[string]string{"v": "z"}}, want: "a z"},
		{name: "preferred does not meet it", packages: []string{"a 1; Depends: v", "z 1", "b 1; Provides: v"}, req: Request{Roots: []string{"a"}, Prefer: map[string]string{"v": "z"}}, want: "a b"},
		{name: "virtual with a version", packages: []string{"a 1; Depends: v (>= 2)", "b 1; Provides: v", "c 1; Provides: v (= 1)", "d 1; Provides: w, v (= 2.5)"}, req: Request{Roots: []string{"a"}}, want: "a d"},
		{name: "virtual without the version", packages: []string{"a 1; Depends: v (>= 2)", "b 1; Provides: v"}, req: Request{Roots: []string{"a"}}, want: "needs v (>= 2)", fails: true},
		{name: "excluded", packages: []string{"a 1; Depends: b (>= 9), c", "b 1; Depends: d", "c 1", "d 1"}, req: Request{Roots: []string{"a"}, Exclude: []string{"b"}}, want: "a c"},
		{name: "excluded provides", packages: []string{"a 1; Depends: v", "b 1; Provides: v", "c 1; Provides: v"}, req: Request{Roots: []string{"a"}, Exclude: []string{"c"}}, want: "a"},
		{name: "excluded, not in the archive", packages: []string{"a 1; Depends: b"}, req: Request{Roots: []string{"a"}, Exclude: []string{"b"}}, want: "a"},
		{name: "architecture qualifiers", packages: []string{"a 1; Depends: b:any (>= 1), v:any", "b 1", "c 1; Provides: v:amd64 (= 3)"}, req: Request{Roots: []string{"a"}}, want: "a b c"},
		{name: "no dependency", packages: []string{"a 1; Depends: B ("}, req: Request{Roots: []string{"a"}}, want: "package a:", fails: true},
	} {
		ix := index(t, c.packages...)
		ps, err := ix.Resolve(c.req)
		if c.fails {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
			}
			continue
		}
		var names []string
		for _, p := range ps {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, got, err, c.want)
		}
	}
	if ps, _ := index(t, "a 1.9", "a 1.10", "a 1.10~rc1").Resolve(Request{Roots: []string{"a"}}); ps[0].Version != "1.10" {
		t.Errorf("newest of a is %s", ps[0].Version)
	}
}

func TestReadIndex(t *testing.T) {
	sum := strings.Repeat("A", 64)
	good := "Package: a\nVersion: 1\nArchitecture: all\nFilename: pool/a.deb\nSize: 7\nSHA256: " + sum + "\nEssential: yes\nDepends: b,\n c\nDescription: x\n y\nProvides: v\n"
	ix := newIndex()
	if err := ix.read(strings.NewReader("\n" + good + "\n\n" + strings.ReplaceAll(good, "Package: a", "Package: b"))); err != nil {
		t.Fatal(err)
	}
	want := Package{Name: "a", Version: "1", Arch: "all", Filename: "pool/a.deb", SHA256: strings.ToLower(sum), Size: 7, Essential: true, depends: "b, c", provides: "v"}
	if got := *ix.byName["a"][0]; !reflect.DeepEqual(got, want) || len(ix.byName["b"]) != 1 || len(ix.providers["v"]) != 2 {
		t.Errorf("read %+v, want %+v", got, want)
	}
	for name, c := range map[string][2]string{
		"no version":         {"Version: 1\n", ""},
		"no digest":          {"SHA256: " + sum + "\n", ""},
		"no size":            {"Size: 7\n", ""},
		"size is no number":  {"Size: 7", "Size: seven"},
		"size is negative":   {"Size: 7", "Size: -7"},
		"leaves the archive": {"pool/a.deb", "pool/../../a.deb"},
		"no field":           {"Essential: yes", "Essential"},
	} {
		if err := newIndex().read(strings.NewReader(strings.Replace(good, c[0], c[1], 1))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseRelations(t *testing.T) {
	got, err := parseRelations("a (>= 1.0) | b:any, c [amd64 !arm64] <!nocheck>,d(<<2~),")
	want := [][]relation{{{"a", ">=", "1.0"}, {"b", "", ""}}, {{"c", "", ""}}, {{"d", "<<", "2~"}}}
	if err != nil || !slices.EqualFunc(got, want, slices.Equal[[]relation]) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add("Package: a\nVersion: 1\nFilename: pool/a.deb\nSize: 7\nSHA256: " + strings.Repeat("0", 64) + "\nDepends: b (>= 1) | c\nProvides: v (= 1), w\n")
	f.Add(" \n:\n\n\nPackage:\n")
	f.Fuzz(func(t *testing.T, text string) {
		ix := newIndex()
		if ix.read(strings.NewReader(text)) != nil {
			return
		}
		for name := range ix.byName {
			ps, err := ix.Resolve(Request{Roots: []string{name}})
			if err == nil && !slices.ContainsFunc(ps, func(p Package) bool { return p.Name == name }) {
				t.Errorf("closure of %q without it", name)
			}
		}
	})
}

package diag

import (
	"encoding/json"
	"strings"
	"testing"
)

const sample = "name: demo\n" +
	"nodes:\n" +
	"  - name: \"kiln-1\"\n" +
	"\taddress: x\n"

const good = `name: démo # comment
nodes:
  - name: "kiln-1"
    labels: {example.org/rack: r1}
  - name: kiln-2
empty:
`

func TestPositions(t *testing.T) {
	d, list := Parse("cluster.yaml", []byte(good))
	if len(list) != 0 {
		t.Fatal(list)
	}
	for _, tc := range []struct {
		m    Mistake
		want string
		line string
	}{
		{d.At(Path{"name"}, "bad", ""), "cluster.yaml:1:7: name: bad", "      ^~~~"},
		{d.AtKey(Path{"name"}, "bad", "x"), "cluster.yaml:1:1: name: bad; x", "^~~~"},
		{d.At(Path{"nodes", 0, "name"}, "bad", ""), "cluster.yaml:3:11: nodes[0].name: bad", "          ^~~~~~~~"},
		{d.At(Path{"nodes", 0, "labels", "example.org/rack"}, "bad", ""), `cluster.yaml:4:32: nodes[0].labels["example.org/rack"]: bad`, strings.Repeat(" ", 31) + "^~"},
		{d.At(Path{"nodes", 1, "role"}, "missing", ""), "cluster.yaml:5:5: nodes[1].role: missing", "    ^"},
		{d.At(Path{"empty"}, "bad", ""), "cluster.yaml:6:1: empty: bad", "^~~~~"},
		{d.At(Path{"nodes"}, "bad", ""), "cluster.yaml:2:1: nodes: bad", "^~~~~"},
		{d.At(Path{"kind"}, "missing", ""), "cluster.yaml:1:1: kind: missing", "^"},
	} {
		if got := tc.m.Error(); got != tc.want {
			t.Errorf("%s\nwant %s", got, tc.want)
		}
		if got := tc.m.underline(); got != tc.line {
			t.Errorf("%s underlines\n%s|\n%s|\nwant\n%s|", tc.want, tc.m.Source, got, tc.line)
		}
	}
	if !d.Has(Path{"nodes", 1}) || d.Has(Path{"nodes", 2}) || d.Has(Path{"empty"}) {
		t.Error("Has is wrong")
	}
}

func TestWhatIsNoPlainDocument(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"syntax":     {sample, "f:4:"},
		"empty":      {"", "f: the file is empty"},
		"two":        {"a: 1\n---\nb: 2\n", "f:3:1: a second YAML document"},
		"alias":      {"a: &x 1\nb: *x\n", "f:1:4: anchors are not supported; write the value out\nf:2:4: aliases"},
		"cycle":      {"a: &x [*x]\n", "anchors are not supported"},
		"tag":        {"a: !!str 1\n", "f:1:4: tags"},
		"merge":      {"<<: {a: 1}\n", "f:1:1: merge keys"},
		"not UTF-8":  {"a: \xff\n", "UTF-8"},
		"tab indent": {"a:\n\tb: 1\n", "f:2:"},
	} {
		d, list := Parse("f", []byte(tc.text))
		if !strings.Contains(list.Error(), tc.want) {
			t.Errorf("%s: got %q, want %q", name, list.Error(), tc.want)
		}
		if d.Root != nil {
			t.Errorf("%s: there is a document", name)
		}
	}
}

func TestPrintSortsAndUnderlines(t *testing.T) {
	d, _ := Parse("c.yaml", []byte(good))
	var l List
	l.Add(d.At(Path{"nodes", 1, "name"}, "taken", "choose another"))
	l.Add(d.At(Path{"name"}, "bad", ""))
	l.Add(d.At(Path{"nodes", 1, "name"}, "taken", "choose another"))
	var out strings.Builder
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `c.yaml:1:7: name: bad
    1 | name: démo # comment
      |       ^~~~
c.yaml:5:11: nodes[1].name: taken; choose another
    5 |   - name: kiln-2
      |           ^~~~~~
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	b, err := json.Marshal(l)
	if err != nil || !strings.Contains(string(b), `{"file":"c.yaml","line":1,"column":7,"path":"name","message":"bad","source":"name: démo # comment"}`) {
		t.Errorf("%s, %v", b, err)
	}
	if l.Err() == nil || List(nil).Err() != nil {
		t.Error("Err")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(sample))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("- !!binary |\n  aGk=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, list := Parse("f", b)
		list.Add(d.At(Path{"nodes", 0, "name"}, "m", ""))
		list.Add(d.AtKey(Path{"nodes"}, "m", ""))
		var out strings.Builder
		if err := list.Print(&out); err != nil {
			t.Fatal(err)
		}
	})
}

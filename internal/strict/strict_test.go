package strict

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/diag"
)

type document struct {
	Name  string            `json:"name"`
	Size  int64             `json:"size"`
	Items []item            `json:"items"`
	Map   map[string]string `json:"map"`
}

type item struct {
	URL string `json:"url"`
}

func decode(text string) (document, diag.List) {
	doc, list := diag.Parse("f", []byte(text))
	var d document
	if doc.Root == nil {
		return d, list
	}
	dec := Decoder{Doc: doc, List: &list}
	dec.Decode(&d, "a document", "want name")
	return d, list
}

func TestEveryMistakeCostsItsOwnValueOnly(t *testing.T) {
	d, list := decode("name: 1\nsize: many\nitems:\n- ur: x\n- {url: y}\n- {url: y, url: z}\nmap: {a: b}\n")
	const want = `f:1:7: name: is a number, not text; put it in quotes: "1"
f:2:7: size: is text, not a whole number
f:4:3: items[0].ur: unknown key "ur"; did you mean url?
f:6:12: items[2].url: key "url" is there twice; the first one is in line 6`
	if got := list.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(d.Items) != 3 || d.Items[1].URL != "y" || d.Items[2].URL != "y" || d.Map["a"] != "b" {
		t.Errorf("%+v", d)
	}
	if d, list := decode("size: 9007199254740993\n"); len(list) != 0 || d.Size != 9007199254740993 {
		t.Errorf("%d, %v", d.Size, list)
	}
	if _, list := decode("[1]"); !strings.Contains(list.Error(), "a document is a mapping, this is a list") {
		t.Error(list)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("name: x\nsize: 0x1f\nitems: [{url: y}]\n")
	f.Add("items: [[], {}, null]\nmap: {1: 2}\n")
	f.Fuzz(func(_ *testing.T, text string) { decode(text) })
}

package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNothingPrintsIt(t *testing.T) {
	const plain = "hunter2-hunter2"
	v := FromString(plain)
	type wrap struct{ V Value }
	type hidden struct{ v Value }
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%T"} {
		fmt.Fprintf(&out, verb, v)
		fmt.Fprintf(&out, verb, &v)
		fmt.Fprintf(&out, verb, wrap{v})
		fmt.Fprintf(&out, verb, hidden{v})
		fmt.Fprintf(&out, verb, []any{&hidden{v}, map[string]Value{"k": v}})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v, "w", wrap{v})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v, "w", wrap{v})
	hex := fmt.Sprintf("%x", plain)
	dec := strings.Trim(fmt.Sprint([]byte(plain)), "[]")
	for _, bad := range []string{plain, hex, strings.ToUpper(hex), dec} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("output shows the secret as %q", bad)
		}
	}
	if b, err := json.Marshal(wrap{v}); err == nil {
		t.Errorf("json.Marshal succeeded with %s", b)
	}
}

func TestRoundTrip(t *testing.T) {
	var w struct{ V Value }
	if err := json.Unmarshal([]byte(`{"V":"abc"}`), &w); err != nil {
		t.Fatal(err)
	}
	if w.V.RevealString() != "abc" || !w.V.Equal(FromString("abc")) || w.V.Equal(FromString("abd")) {
		t.Error("value is not what was decoded")
	}
	b := w.V.Reveal()
	b[0] = 'x'
	if w.V.RevealString() != "abc" {
		t.Error("Reveal does not copy")
	}
}

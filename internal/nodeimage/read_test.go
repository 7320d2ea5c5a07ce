package nodeimage

import (
	"strings"
	"testing"
)

func TestHostname(t *testing.T) {
	for config, want := range map[string]string{
		`{"storage":{"files":[{"path":"/etc/motd"},{"path":"/etc/hostname","contents":{"source":"data:,kiln-1%0A"}}]}}`: "kiln-1",
		`{"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:;base64,a2lsbi0yCg=="}}]}}`:            "kiln-2",
	} {
		if got, err := hostname([]byte(config)); err != nil || got != want {
			t.Errorf("%s: %q, %v", config, got, err)
		}
	}
	for config, want := range map[string]string{
		"secret": "is damaged",
		`{"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"secret"}}]}}`: "is damaged",
		`{"storage":{"files":[]}}`: "names no node",
	} {
		if _, err := hostname([]byte(config)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func FuzzHostname(f *testing.F) {
	f.Add([]byte(`{"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,kiln-1%0A"}}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if name, err := hostname(b); err != nil && name != "" {
			t.Errorf("%q and %v", name, err)
		}
	})
}

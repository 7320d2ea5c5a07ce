package keepalived

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestGolden(t *testing.T) {
	for name, c := range map[string]Config{
		"first-v4.conf": {VirtualIP: netip.MustParseAddr("10.0.2.100"), RouterID: 100, NodeName: "kiln-1", Address: netip.MustParseAddr("10.0.2.15")},
		"third-v6.conf": {VirtualIP: netip.MustParseAddr("fd00::100"), RouterID: 1, NodeName: "kiln-3", Address: netip.MustParseAddr("fd00::17"), Rank: 2},
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, c.Marshal(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Marshal(); string(got) != string(want) {
			t.Errorf("%s changed (go test -update writes it):\n%s", path, got)
		}
	}
}

// Whoever is ready has the same priority, above that of all who are not, however many
// there are.
func TestPriorities(t *testing.T) {
	for rank, want := range map[int][2]string{0: {"priority 100", "weight 100"}, 1: {"priority 99", "weight 101"}, 98: {"priority 2", "weight 198"}, 150: {"priority 1", "weight 199"}} {
		text := string(Config{VirtualIP: netip.MustParseAddr("10.0.2.100"), RouterID: 1, Rank: rank}.Marshal())
		for _, line := range want {
			if !strings.Contains(text, "    "+line+"\n") {
				t.Errorf("rank %d has no %s:\n%s", rank, line, text)
			}
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
)

func TestNodeName(t *testing.T) {
	for name, tc := range map[string]struct {
		plan, platform string // platform "-": no file
		from           bool
		want, err      string
	}{
		"plan's":      {plan: "Kiln-1 ", platform: "other", want: "kiln-1"},
		"platform's":  {plan: "workers", platform: "ip-10-0-0-1.ec2.internal\n", from: true, want: "ip-10-0-0-1.ec2.internal"},
		"none":        {plan: "workers", platform: "-", from: true, err: "it has given no name"},
		"no name":     {plan: "workers", platform: "a_b", from: true, err: `platform-name "a_b"`},
		"no name, it": {plan: "a_b", platform: "-", err: `boot plan: node.name "a_b"`},
	} {
		paths := host.Paths{Root: t.TempDir()}
		if tc.platform != "-" {
			if err := os.MkdirAll(filepath.Dir(paths.PlatformName()), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(paths.PlatformName(), []byte(tc.platform), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := nodeName(bootplan.Plan{Node: bootplan.Node{Name: tc.plan, NameFromPlatform: tc.from}}, paths)
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

package profiles

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryProfileLoads(t *testing.T) {
	names := Names()
	if !slices.Contains(names, "qemu-amd64") {
		t.Errorf("names %v", names)
	}
	for _, n := range names {
		p, err := Load(n)
		if err != nil {
			t.Error(err)
		}
		if p.Name != n || !strings.HasSuffix(n, "-"+p.Arch) && p.Arch == "" {
			t.Errorf("profile %+v", p)
		}
	}
}

func TestUnknownProfile(t *testing.T) {
	for _, n := range []string{"qemu", "", "../profiles/qemu-amd64", "qemu-amd64.yaml"} {
		if _, err := Load(n); err == nil || !strings.Contains(err.Error(), "qemu-amd64") {
			t.Errorf("%q: error %v does not list what there is", n, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	good, err := files.ReadFile("qemu-amd64.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"unknown key":  {"arch: amd64", "arch: amd64\ncolour: red", "colour"},
		"arch":         {"arch: amd64", "arch: x86_64", "unknown architecture"},
		"no kernel":    {"kernel: linux", "kernel: ''\n#", "Debian package"},
		"argument":     {"console=tty0", "a b", "kernel argument"},
		"platform":     {"ignitionPlatform: qemu", "ignitionPlatform: ''", "ignitionPlatform"},
		"small ESP":    {"espMiB: 512", "espMiB: 32", "FAT32"},
		"small verity": {"verityMiB: 16", "verityMiB: 12", "hash tree"},
		"small disk":   {"minimumMiB: 8192", "minimumMiB: 4000", "minimumMiB"},
	} {
		_, err := parse("x", []byte(strings.Replace(string(good), tc.old, tc.new, 1)))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v does not say %q", name, err, tc.want)
		}
	}
}

package units

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

// TestZramOnlyWhereAsked: what a machine has that swaps to memory, and no other.
func TestZramOnlyWhereAsked(t *testing.T) {
	plain, zram := tree.New(), tree.New()
	v := vars()
	if err := System(plain, v); err != nil {
		t.Fatal(err)
	}
	v.Zram = "lz4"
	if err := System(zram, v); err != nil {
		t.Fatal(err)
	}
	more := slices.DeleteFunc(zram.Paths(), func(p string) bool {
		e := zram.Get(p)
		return e.Type == tree.Dir || plain.Get(p) != nil
	})
	if want := []string{"usr/lib/sysctl.d/91-kiln-zram.conf", zramConf}; !slices.Equal(more, want) {
		t.Errorf("swap in memory brings %v, want %v", more, want)
	}
}

const zramConf = "usr/lib/systemd/zram-generator.conf"

// TestZramGenerator lets Debian's generator make the units of swap space out of the
// configuration, and of what a node's /etc puts before it.
func TestZramGenerator(t *testing.T) {
	tr, v := tree.New(), vars()
	v.Zram = "lz4"
	if err := System(tr, v); err != nil {
		t.Fatal(err)
	}
	conf, err := tr.ReadFile(zramConf)
	if err != nil {
		t.Fatal(err)
	}
	const own = "etc/systemd/zram-generator.conf"
	for _, c := range []struct {
		name string
		etc  map[string]string
		swap bool
		fail bool
	}{
		{"as it is", nil, true, false},
		{"off", map[string]string{own: ""}, false, false},
		{"off, with a reason", map[string]string{own: "# No swap.\n"}, false, false},
		{"another size", map[string]string{own + ".d/50-mine.conf": "[zram0]\nzram-size = 100\n"}, true, false},
		{"none of it", map[string]string{own + ".d/50-mine.conf": "[zram0]\nzram-size = 0\n"}, false, false},
		// So a mistake in the size would have been seen above.
		{"a size that is none", map[string]string{own + ".d/50-mine.conf": "[zram0]\nzram-size = min(ram / 2\n"}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, out := t.TempDir(), t.TempDir()
			files := map[string]string{
				"proc/meminfo": "MemTotal:         970000 kB\n", "proc/cmdline": "quiet\n", zramConf: string(conf),
			}
			maps.Copy(files, c.etc)
			for name, text := range files {
				p := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := testtools.Command(t, "usr/lib/systemd/system-generators/zram-generator", out, out, out)
			cmd.Env = append(cmd.Env, "ZRAM_GENERATOR_ROOT="+root)
			said, err := cmd.CombinedOutput()
			if (err != nil) != c.fail {
				t.Fatalf("%v\n%s", err, said)
			}
			unit, err := os.ReadFile(filepath.Join(out, "dev-zram0.swap"))
			if !c.swap {
				if !os.IsNotExist(err) {
					t.Errorf("there is swap: %s, %v", unit, err)
				}
				return
			}
			if err != nil || !strings.Contains(string(unit), "\nWhat=/dev/zram0\n") || !strings.Contains(string(unit), "\nBefore=swap.target\n") {
				t.Errorf("%v\n%s", err, unit)
			}
			if l, err := os.Readlink(filepath.Join(out, "swap.target.wants/dev-zram0.swap")); err != nil || l != "../dev-zram0.swap" {
				t.Errorf("no boot switches it on: %s, %v", l, err)
			}
		})
	}
}

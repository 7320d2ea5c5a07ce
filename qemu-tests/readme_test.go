//go:build boot

package qemutests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme runs the README's commands, so that they cannot go stale: every
// imagegen command line in the order of the text, in an empty folder. Those that
// boot are left to TestSingleNode, which does the same with more questions; of
// `make`, the targets must exist.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	imagegen := imagegenPath(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(imagegen, filepath.Join(dir, "bin/imagegen")); err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Abs("../payload")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for _, line := range strings.Split(block[1], "\n") {
			line, _, _ = strings.Cut(line, " #")
			f := strings.Fields(line)
			switch {
			case len(f) == 0:
			case f[0] == "make":
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(f[1]) + `:`).Match(makefile) {
					t.Errorf("README says %q; the Makefile has no such target", line)
				}
				ran++
			case f[0] == "bin/imagegen" && f[1] == "boot":
				out, err := exec.CommandContext(t.Context(), imagegen, "boot", "--help").Output()
				if err != nil {
					t.Fatal(err)
				}
				for _, arg := range f {
					if strings.HasPrefix(arg, "-") && !strings.Contains(string(out), arg) {
						t.Errorf("README says %q; imagegen boot has no %s", line, arg)
					}
				}
				ran++
			default:
				cmd := exec.CommandContext(context.Background(), "sh", "-ec", line)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "KILN_PAYLOAD="+source)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("README says %q: %v\n%s", line, err, out)
				}
				ran++
			}
		}
	}
	if ran < 7 {
		t.Errorf("only %d commands were found in the README", ran)
	}
	for _, made := range []string{"cluster.yaml", "out/kiln-1.img", "out/secrets/admin.conf", "out/kiln.lock.yaml"} {
		if _, err := os.Stat(filepath.Join(dir, made)); err != nil {
			t.Errorf("README's commands did not make %s: %v", made, err)
		}
	}
}

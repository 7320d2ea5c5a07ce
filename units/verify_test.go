package units

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

var (
	execLine = regexp.MustCompile(`(?m)^Exec[A-Za-z]+=[-@:+!|]*(/[^ \n]+)`)
	unitFile = regexp.MustCompile(`\.(service|mount|socket|target)$`)
)

// TestSystemdAnalyzeVerify lets systemd itself read the units, beside those of
// Debian's systemd that they refer to.
func TestSystemdAnalyzeVerify(t *testing.T) {
	for name, overlay := range overlays {
		root, tr := t.TempDir(), tree.New()
		if err := overlay(tr); err != nil {
			t.Fatal(err)
		}
		const dir = "usr/lib/systemd/system"
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(testtools.Path(t, "/"+dir))); err != nil {
			t.Fatal(err)
		}
		var names []string
		err := tr.Walk(func(p string, e *tree.Entry) error {
			dst := filepath.Join(root, p)
			switch e.Type {
			case tree.Dir:
				return os.MkdirAll(dst, 0o755)
			case tree.Symlink:
				_ = os.Remove(dst)
				return os.Symlink(e.Link, dst)
			}
			r, err := e.Content.Open()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			for _, m := range execLine.FindAllStringSubmatch(string(b), -1) {
				// The programs come from other packages; here they only have to be there.
				program := filepath.Join(root, m[1])
				if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
					return err
				}
			}
			if d := filepath.Dir(p); (d == dir || d == "etc/systemd/system") && unitFile.MatchString(p) {
				names = append(names, filepath.Base(p))
			}
			return os.WriteFile(dst, b, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(names) < 3 {
			t.Fatalf("%s: only %v to verify", name, names)
		}
		cmd := testtools.Command(t, "systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no", "--root=" + root}, names...)...)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "" {
			t.Errorf("%s: systemd-analyze verify %v: %v\n%s", name, names, err, out)
		}
	}
}

// Package kmod makes the indexes of kernel modules (modules.dep, modules.alias
// and their binary forms) that modprobe and udev read.
package kmod

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// Index runs depmod(8) over the modules of one kernel release in t and adds the
// indexes to t. command returns a depmod that is ready to run with args; work is
// an existing folder for temporary files, which is left as it was.
func Index(ctx context.Context, command func(ctx context.Context, args ...string) (*exec.Cmd, error), t *tree.Tree, kernel, work string) error {
	dir := "usr/lib/modules/" + kernel
	tmp, err := os.MkdirTemp(work, "depmod-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	err = t.Walk(func(p string, e *tree.Entry) error {
		if e.Type != tree.File || !strings.HasPrefix(p, dir+"/") {
			return nil
		}
		// depmod looks below lib/modules of its base folder.
		return extract(filepath.Join(tmp, strings.TrimPrefix(p, "usr/")), e)
	})
	if err != nil {
		return fmt.Errorf("depmod: %w", err)
	}
	cmd, err := command(ctx, "-b", tmp, kernel)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(out.String()))
	}
	made, err := filepath.Glob(filepath.Join(tmp, "lib/modules", kernel, "modules.*"))
	if err != nil {
		return err
	}
	for _, f := range made {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		t.AddFile(path.Join(dir, filepath.Base(f)), 0o644, b)
	}
	if t.Get(dir+"/modules.dep.bin") == nil {
		return fmt.Errorf("depmod made no modules.dep.bin for kernel %s\n%s", kernel, tail(out.String()))
	}
	return nil
}

func extract(to string, e *tree.Entry) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	r, err := e.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// tail keeps the end of a tool's output, where the reason is.
func tail(s string) string {
	const keep = 2000
	if len(s) > keep {
		s = "…" + s[len(s)-keep:]
	}
	return strings.TrimSpace(s)
}

package payload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/procgroup"
)

// flags are those of every go build: sources only as go.sum has them, no paths
// and no version control state of the host in the result.
var flags = []string{"-mod=readonly", "-trimpath", "-buildvcs=false"}

// settings are the go command's environment: all that decides the bytes of a
// result, whatever the host's environment says. The instruction sets are the
// least that the architectures' Debian ports ask for.
func settings(o Options) []string {
	return []string{
		"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + o.Arch.Go, "GOARM=" + o.Arch.GoARM,
		"GOAMD64=v1", "GOARM64=v8.0", "GOPPC64=power8",
		"GOEXPERIMENT=", "GOFIPS140=off", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "GOTOOLCHAIN=local",
	}
}

// command is the go command in dir. It is interrupted when ctx ends and leaves no
// compiler running.
func command(ctx context.Context, o Options, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, o.Go, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), settings(o)...) // the last of two values is used
	if o.Offline {
		cmd.Env = append(cmd.Env, "GOPROXY=off") // not among the settings: it decides no byte
	}
	// Its own process group gets the signal whole; go alone would leave compilers behind.
	procgroup.Set(cmd)
	cmd.Cancel = func() error { return procgroup.Interrupt(cmd) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// toolchain returns the version of the go command, which is an input of every build.
func toolchain(ctx context.Context, o Options) (string, error) {
	out, err := run(command(ctx, o, o.SourceDir, "env", "GOVERSION"))
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: compiling what the nodes run needs Go, see the README", err)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(out), nil
}

// modfile tells the go command where c's go.mod is, if it is not beside the source.
func (c Component) modfile(o Options) []string {
	if c.Module == c.Name {
		return nil
	}
	return []string{"-modfile=" + filepath.Join(o.SourceDir, c.Module, "go.mod")}
}

// compile builds the programs of c into dir.
func compile(ctx context.Context, o Options, c Component, dir string) error {
	for _, list := range c.files() {
		if err := compileFile(ctx, o, c, list, dir); err != nil {
			return err
		}
	}
	return nil
}

// compileFile builds one file that is all programs of list.
func compileFile(ctx context.Context, o Options, c Component, list []Program, dir string) error {
	first := list[0]
	o.Progress(fmt.Sprintf("compile %s %s for %s", first.Name, c.Version, o.Arch.Go))
	args := append([]string{"build"}, flags...)
	args = append(args, c.modfile(o)...)
	pkg := first.Package
	if len(list) > 1 {
		tmp, err := os.MkdirTemp("", "kiln-merge-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		var overlay string
		if overlay, pkg, err = merge(ctx, o, c, list, tmp); err != nil {
			return fmt.Errorf("merge %s: %w", c.Name, err)
		}
		args = append(args, "-overlay", overlay)
	}
	args = append(args, "-ldflags", c.ldflags(), "-o", filepath.Join(dir, first.Name), pkg)
	if _, err := run(command(ctx, o, filepath.Join(o.SourceDir, c.Name), args...)); err != nil {
		return err
	}
	for _, p := range list[1:] {
		if err := os.Link(filepath.Join(dir, first.Name), filepath.Join(dir, p.Name)); err != nil {
			return err
		}
	}
	return nil
}

// outputTail is how much of a failed command's output an error keeps, in bytes.
const outputTail = 4096

// run returns what cmd printed on standard output. Its error keeps the arguments
// and the end of what it printed on standard error.
func run(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	err = fmt.Errorf("%s (in %s): %w", strings.Join(cmd.Args, " "), cmd.Dir, err)
	if tail := tailOf(stderr.String(), outputTail); tail != "" {
		err = fmt.Errorf("%w\n%s", err, tail)
	}
	return "", err
}

// tailOf returns the last lines of s with at most limit bytes.
func tailOf(s string, limit int) string {
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	s = s[len(s)-limit:]
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	return "[…]\n" + s
}

// Package squashfs packs a tree into a squashfs image with mksquashfs(1), without
// root: owners, modes, device nodes and extended attributes come from the tree.
package squashfs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/tree"
)

// Options of an image.
type Options struct {
	Compression string // a compressor of mksquashfs; "zstd" is what Kiln's kernels all have
	Level       int    // of the compressor
}

// blockSize of the file system in bytes: larger blocks compress better, but a
// page that is read decompresses a whole block.
const blockSize = 256 << 10

// Write packs t into the file out, which is made anew, with the time mtime on
// every entry. The size is a multiple of 4096 bytes, as dm-verity wants it.
// command returns a mksquashfs that is ready to run with args.
func Write(ctx context.Context, command func(ctx context.Context, args ...string) (*exec.Cmd, error), t *tree.Tree, out string, mtime time.Time, o Options) error {
	stamp := strconv.FormatInt(mtime.Unix(), 10)
	cmd, err := command(ctx, "-", out, "-tar", "-noappend", "-no-progress", "-quiet",
		"-comp", o.Compression, "-Xcompression-level", strconv.Itoa(o.Level), "-b", strconv.Itoa(blockSize),
		"-reproducible", "-no-exports", "-mkfs-time", stamp, "-all-time", stamp,
		"-default-mode", "0755", "-default-uid", "0", "-default-gid", "0",
		"-root-mode", "0755", "-root-uid", "0", "-root-gid", "0")
	if err != nil {
		return err
	}
	// mksquashfs refuses a time on its command line while SOURCE_DATE_EPOCH gives another.
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = without(cmd.Env, "SOURCE_DATE_EPOCH")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("mksquashfs: %w", err)
	}
	tarErr := t.WriteTar(stdin, mtime)
	closeErr := stdin.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(output.String()))
	}
	for _, err := range []error{tarErr, closeErr} {
		if err != nil {
			return fmt.Errorf("feed mksquashfs: %w", err)
		}
	}
	return check(out)
}

// check makes sure of the padding that the hash tree relies on.
func check(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	if err == nil && n%4096 != 0 {
		err = fmt.Errorf("%s has %d bytes, no multiple of 4096: mksquashfs did not pad it", name, n)
	}
	return err
}

func without(env []string, name string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return out
}

// tail keeps the end of a tool's output, where the reason is.
func tail(s string) string {
	const keep = 2000
	if len(s) > keep {
		s = "…" + s[len(s)-keep:]
	}
	return strings.TrimSpace(s)
}

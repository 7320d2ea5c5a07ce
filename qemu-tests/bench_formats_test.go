//go:build boot && bench

package qemutests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/profiles"
)

const (
	// conversionBound is 0.8 times the speed of qemu-img, flashBound 0.9 times that of dd.
	conversionBound = 1.25
	flashBound      = 1.11
	// basesBound is how many seconds the base images of all architectures may take.
	basesBound = 60
	// benchRuns is how often each side runs, in turns; the best run counts.
	benchRuns = 5
)

// TestBenchFormats measures what takes a node's image to its platform: the formats
// beside qemu-img, and the disk beside dd, all until the bytes are on this host's disk.
func TestBenchFormats(t *testing.T) {
	imagegen := imagegenPath(t)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "out")
	run(t, imagegen, "init", file)
	run(t, imagegen, "build", file, "-o", out)
	image := filepath.Join(out, benchNode+".img")
	timed(t, "cp", "--reflink=never", image, os.DevNull) // into memory, for both sides

	for _, f := range []struct {
		name, ext string
		args      []string // of qemu-img convert
	}{
		{"qcow2", ".qcow2", []string{"-O", "qcow2"}},
		{"qcow2-compressed", ".qcow2", []string{"-c", "-O", "qcow2"}},
		{"vhd", ".vhd", []string{"-O", "vpc", "-o", "subformat=fixed,force_size=on"}},
		{"vmdk", ".vmdk", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}},
	} {
		ours, theirs := filepath.Join(dir, "kiln"+f.ext), filepath.Join(dir, "qemu"+f.ext)
		value, reference := inTurns(t, func() time.Duration {
			return timed(t, imagegen, "convert", image, ours, "--format", f.name).took
		}, func() time.Duration {
			start := time.Now()
			args := append(append([]string{"convert", "-f", "raw"}, f.args...), image, theirs)
			if out, err := testtools.Command(t, "qemu-img", args...).CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v\n%s", err, out)
			}
			timed(t, "sync", theirs)
			return time.Since(start)
		})
		for _, name := range []string{ours, theirs} {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		record(t, "raw image to "+f.name, value, "s", reference, bound{ratio: conversionBound})
	}
	benchFlash(t, imagegen, image)
}

// inTurns runs two ways to the same end after each other, several times, and returns
// the seconds of the best run of each.
func inTurns(t *testing.T, ours, theirs func() time.Duration) (value, reference float64) {
	t.Helper()
	a, b := ours(), theirs()
	for range benchRuns - 1 {
		a, b = min(a, ours()), min(b, theirs())
	}
	t.Logf("%.2f s, reference %.2f s", a.Seconds(), b.Seconds())
	return a.Seconds(), b.Seconds()
}

// benchFlash measures imagegen flash, which then reads the disk back, until all is
// written; and dd of the blocks that it wrote, which lie behind each other for dd. Both
// write to files in the place of disks, over what the first run has left there.
func benchFlash(t *testing.T, imagegen, image string) {
	dir := t.TempDir()
	card, used, other := filepath.Join(dir, "card.img"), filepath.Join(dir, "used"), filepath.Join(dir, "other.img")
	writeFile(t, card, nil)
	if err := os.Truncate(card, diskBytes); err != nil {
		t.Fatal(err)
	}
	flash := func() time.Duration {
		var result struct {
			Seconds      float64
			BytesWritten int64
		}
		out, err := exec.CommandContext(t.Context(), imagegen, "flash", image, card, "--yes", "--json").Output()
		if err == nil {
			err = json.Unmarshal(out, &result)
		}
		if err != nil {
			t.Fatalf("imagegen flash: %v\n%s", err, out)
		}
		t.Logf("flash: %d MiB, %.2f s", result.BytesWritten/mib, result.Seconds)
		return time.Duration(result.Seconds * float64(time.Second))
	}
	dd := func() time.Duration {
		// imagegen finds nothing of its disk in memory, since it read that back without.
		run(t, "dd", "of="+other, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none")
		return timed(t, "dd", "if="+used, "of="+other, "bs=4M", "conv=notrunc,fsync").took
	}
	flash()
	if err := dataOf(used, card); err != nil {
		t.Fatal(err)
	}
	dd()
	value, reference := inTurns(t, flash, dd)
	record(t, "flash, until written", value, "s", reference, bound{ratio: flashBound})
}

// dataOf writes to dst the blocks of src that are not in holes, behind each other.
func dataOf(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	numbers, err := sparse.Blocks(in, mib)
	if err != nil {
		return err
	}
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for _, n := range numbers {
		if _, err := io.Copy(out, io.NewSectionReader(in, n*mib, mib)); err != nil {
			return err
		}
	}
	return nil
}

// TestBenchFormatsBases measures the base images of all architectures whose payload is
// compiled, in one build of one cluster; the log names those whose payload is not.
func TestBenchFormatsBases(t *testing.T) {
	imagegen := imagegenPath(t)
	dir := t.TempDir()
	caches := ownCache(t, filepath.Join(dir, "cache"))
	var compiled, all []string
	for _, name := range arch.Names() {
		profile := "qemu-" + name
		if _, err := profiles.Load(profile); err != nil {
			t.Logf("%s is not measured: %v", name, err)
			continue
		}
		missing, err := notCompiled(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if len(missing) > 0 {
			t.Logf("%s is not measured: imagegen payload --arch %s has not compiled %s on this machine", name, name, strings.Join(missing, ", "))
			continue
		}
		compiled = append(compiled, name)
		all = append(all, profile)
	}
	if len(compiled) == 0 {
		t.Fatal("no payload is compiled on this machine: imagegen payload --arch amd64")
	}
	file, out := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "out")
	writeFile(t, file, basesFile(all))
	build := []string{"build", file, "-o", out, "--cache", caches}
	// Makes what is kept: firstboot of each architecture, the verified archive.
	build = append(build, anySuite(t, imagegen, build...)...)
	images, err := filepath.Glob(filepath.Join(out, "*.img"))
	if err != nil || len(images) != len(all) {
		t.Fatalf("%d images of %d nodes, %v", len(images), len(all), err)
	}
	for _, name := range append(images, filepath.Join(caches, "bases")) {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
	}
	took := timed(t, imagegen, append(build, "--locked", "--offline")...).took
	record(t, "base images, warm caches: "+strings.Join(compiled, ", "), took.Seconds(), "s", 0, bound{value: basesBound})
}

// notCompiled lists the parts of an architecture's payload that the cache does not
// have. Nothing is compiled.
func notCompiled(ctx context.Context, goarch string) (missing []string, err error) {
	a, err := arch.Get(goarch)
	if err != nil {
		return nil, err
	}
	components, err := payload.Components(payload.KubernetesVersion)
	if err != nil {
		return nil, err
	}
	for _, c := range components {
		within, cancel := context.WithCancelCause(ctx)
		_, err := payload.Build(within, payload.Options{
			Arch: a, Components: []string{c.Name}, CacheDir: os.Getenv("KILN_CACHE"), Offline: true,
			Progress: func(step string) { cancel(errors.New(step)) }, // it is about to compile
		})
		cause := context.Cause(within)
		cancel(nil)
		switch {
		case err != nil && cause != nil:
			missing = append(missing, c.Name)
		case err != nil:
			return nil, err
		}
	}
	return missing, ctx.Err()
}

// basesFile is a cluster with one node of each profile.
func basesFile(list []string) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: kiln-os.dev/v1alpha1\nkind: Cluster\nname: bases\nnodes:\n")
	for i, p := range list {
		role := "worker"
		if i == 0 {
			role = "control-plane"
		}
		fmt.Fprintf(&b, "  - {name: %s, role: %s, profile: %s, address: 192.168.76.%d/24, gateway: 192.168.76.1}\n", p, role, p, 11+i)
	}
	return b.Bytes()
}

package reset

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-os/kiln/internal/host"
)

// ThisMachine is the running machine.
func ThisMachine(paths host.Paths) Machine { return machine{host.Systemd{}, paths} }

type machine struct {
	host.Systemd
	paths host.Paths
}

// criTimeout bounds each call; a pod may take its whole grace period to end.
const criTimeout = 2 * time.Minute

func (m machine) cri(ctx context.Context, f func(context.Context, criv1.RuntimeServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+m.paths.Containerd(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(ctx, criv1.NewRuntimeServiceClient(conn))
}

// Pods implements Machine.
func (m machine) Pods(ctx context.Context) (out []Pod, err error) {
	err = m.cri(ctx, func(ctx context.Context, c criv1.RuntimeServiceClient) error {
		r, err := c.ListPodSandbox(ctx, &criv1.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		for _, s := range r.Items {
			out = append(out, Pod{ID: s.Id, Namespace: s.GetMetadata().GetNamespace(), Name: s.GetMetadata().GetName()})
		}
		return nil
	})
	return out, err
}

// RemovePod implements Machine.
func (m machine) RemovePod(ctx context.Context, id string) error {
	return m.cri(ctx, func(ctx context.Context, c criv1.RuntimeServiceClient) error {
		if _, err := c.StopPodSandbox(ctx, &criv1.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			return err
		}
		_, err := c.RemovePodSandbox(ctx, &criv1.RemovePodSandboxRequest{PodSandboxId: id})
		return err
	})
}

// Mounts implements Machine.
func (m machine) Mounts() ([]string, error) {
	f, err := os.Open(m.paths.At("/proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts returns the mount points of /proc/self/mountinfo, see
// proc_pid_mountinfo(5): the fifth field, with blanks and backslashes in octal.
func parseMounts(r io.Reader) ([]string, error) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 5 {
			return nil, fmt.Errorf("mountinfo: line %q has %d fields, want at least 5", s.Text(), len(f))
		}
		out = append(out, unescape.Replace(f[4]))
	}
	return out, s.Err()
}

// Unmount implements Machine. A mount that went with another, as one of two that
// share, is no error: the kernel says EINVAL then, or ENOENT if its folder was in the
// other.
func (m machine) Unmount(path string) error {
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// Stamp implements Machine. The boot partition is mounted for as long as it is read.
func (m machine) Stamp() (files []File, err error) {
	device := m.paths.BootPartition()
	if _, err := os.Stat(device); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.paths.At("/run/kiln"), 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(m.paths.At("/run/kiln"), "stamp-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID
	if err := unix.Mount(device, dir, "vfat", flags, "umask=0077"); err != nil {
		return nil, fmt.Errorf("mount the boot partition %s: %w", device, err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	return readStamp(filepath.Join(dir, "kiln"))
}

// readStamp reads the stamp in the folder of the boot partition, and checks that it
// is whole.
func readStamp(dir string) ([]File, error) {
	config, err := os.ReadFile(filepath.Join(dir, "config.ign"))
	if err != nil {
		return nil, err
	}
	sum, err := os.ReadFile(filepath.Join(dir, "config.ign.sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the stamp is damaged: it has no checksum")
	}
	if err != nil {
		return nil, err
	}
	have := sha256.Sum256(config)
	want, _, _ := bytes.Cut(sum, []byte(" "))
	if string(want) != hex.EncodeToString(have[:]) {
		return nil, errors.New("the stamp is damaged: its checksum is another; imagegen stamp writes it anew")
	}
	return ParseStamp(config)
}

package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// unmount lists what is mounted below the kubelet's folder: the volumes of pods. What
// could not be unmounted would be deleted with the folder.
func unmount(_ context.Context, n Node) ([]Change, error) {
	mounts, err := n.mountsBelow(n.Paths.Kubelet())
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, m := range mounts {
		out = append(out, Change{Text: "unmount " + m, Do: func(context.Context) error { return n.Machine.Unmount(m) }})
	}
	return out, nil
}

// mountsBelow lists mount points in a folder, those inside of others first.
func (n Node) mountsBelow(dir string) ([]string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	mounts, err := n.Machine.Mounts()
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	var out []string
	for _, m := range mounts {
		// The folder itself may be a disk of its own, and stays mounted.
		if strings.HasPrefix(m, real+"/") {
			out = append(out, m)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// kubeconfigs are the six that kubeadm deletes.
var kubeconfigs = []string{"admin.conf", "super-admin.conf", "kubelet.conf", "bootstrap-kubelet.conf", "controller-manager.conf", "scheduler.conf"}

// folders lists what is emptied, not removed: each may be a disk of its own.
func (n Node) folders() []string {
	dirs := []string{n.Paths.Manifests(), n.Paths.Kubelet(), n.Paths.PKI(), n.Paths.EtcdData()}
	if n.Options.CleanupTmpDir {
		dirs = append(dirs, n.Paths.At("/etc/kubernetes/tmp"))
	}
	for _, d := range []string{"/etc/cni/net.d", "/var/lib/cni", "/run/flannel", "/var/log/pods", "/var/log/containers"} {
		dirs = append(dirs, n.Paths.At(d))
	}
	return dirs
}

func emptyFolders(_ context.Context, n Node) ([]Change, error) {
	keep, err := n.keeps()
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, dir := range n.folders() {
		out = append(out, Change{Text: "delete the contents of " + n.shown(dir), Do: func(context.Context) error {
			// Looked at again, right before: nothing of a volume may be deleted.
			left, err := n.mountsBelow(dir)
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%s is still mounted", left[0])
			}
			if err != nil {
				return err
			}
			return empty(dir, keep)
		}})
	}
	for _, name := range kubeconfigs {
		path := n.Paths.Kubeconfig(name)
		if _, err := os.Lstat(path); err == nil && !keep[path] {
			out = append(out, Change{Text: "delete " + n.shown(path), Do: func(context.Context) error { return removeFile(path) }})
		}
	}
	// What firstboot knows of its first boot. The marker of this reset goes last of all.
	state := filepath.Dir(n.Paths.Record())
	keepState := map[string]bool{n.Paths.Reset(): true, filepath.Join(state, ignitionDone): true}
	return append(out, Change{Text: "delete firstboot's record in " + n.shown(state), Do: func(context.Context) error { return empty(state, keepState) }}), nil
}

// ignitionDone tells the initramfs that Ignition has run: without it the next boot
// would fill /etc anew.
const ignitionDone = "ignition.done"

// shown is a path as it is on the node.
func (n Node) shown(path string) string {
	if rel, err := filepath.Rel(n.Paths.Root, path); err == nil {
		return "/" + rel
	}
	return path
}

// empty removes what is in a folder, but the files to keep and the folders that they
// are in.
func empty(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case keep[path]:
		case e.IsDir() && keepsBelow(keep, path):
			if err := empty(path, keep); err != nil {
				return err
			}
		default:
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func keepsBelow(keep map[string]bool, dir string) bool {
	for path := range keep {
		if strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

// clusterKeys are the files that every control plane of a cluster is given: the CAs
// and the keys of service accounts.
var clusterKeys = []string{
	"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub",
}

// keeps are the files, by their whole paths, that Ignition delivered: those in the
// stamp, and the cluster's keys on a control plane, which a cloud's user data may
// have brought instead. A node without a boot plan was not made by Kiln, and keeps
// nothing.
func (n Node) keeps() (map[string]bool, error) {
	keep := map[string]bool{}
	if n.Plan == nil {
		return keep, nil
	}
	if n.Plan.Role != bootplan.RoleJoinWorker {
		for _, f := range clusterKeys {
			keep[n.Paths.PKI(f)] = true
		}
	}
	stamp, err := n.Machine.Stamp()
	if errors.Is(err, fs.ErrNotExist) {
		return keep, nil
	}
	for _, f := range stamp {
		keep[n.Paths.At(f.Path)] = true
	}
	return keep, err
}

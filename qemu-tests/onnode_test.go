//go:build boot

package qemutests

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
)

// checkNodeFiles checks the files that kubeadm's commands find on a node, with
// the modes kubeadm gives them.
func checkNodeFiles(t *testing.T, n *node) {
	const pki = "/etc/kubernetes/pki"
	want := map[string]string{
		pki: "755", pki + "/etcd": "755",
		pki + "/sa.key": "600", pki + "/sa.pub": "600",
		"/etc/kubernetes/manifests": "700", "/var/lib/etcd": "700", "/var/lib/kubelet": "700",
		"/var/lib/kubelet/kubeadm-flags.env": "644", "/var/lib/kubelet/instance-config.yaml": "644", "/var/lib/kubelet/config.yaml": "644",
	}
	for _, c := range []string{"ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client", "apiserver-etcd-client", "etcd/ca", "etcd/server", "etcd/peer", "etcd/healthcheck-client"} {
		want[pki+"/"+c+".crt"], want[pki+"/"+c+".key"] = "644", "600"
	}
	for _, c := range []string{"admin", "super-admin", "kubelet", "controller-manager", "scheduler"} {
		want["/etc/kubernetes/"+c+".conf"] = "600"
	}
	for _, c := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		want["/etc/kubernetes/manifests/"+c+".yaml"] = "600"
	}
	got := map[string]string{}
	for _, l := range strings.Split(n.sh(t, "find /etc/kubernetes ! -type l -printf '%m %u:%g %p\\n'; stat -c '%a %U:%G %n' /var/lib/etcd /var/lib/kubelet /var/lib/kubelet/*"), "\n") {
		if f := strings.SplitN(l, " ", 3); len(f) == 3 {
			got[f[2]] = f[0] + " " + f[1]
		}
	}
	for path, mode := range want {
		switch have, ok := got[path]; {
		case !ok && strings.HasSuffix(path, "super-admin.conf"):
			// It is all-powerful and no longer needed: kubeadm copes with its absence.
		case !ok:
			t.Errorf("%s does not exist", path)
		case have != mode+" root:root":
			t.Errorf("%s is %s, want %s root:root", path, have, mode)
		}
	}
	for path := range got {
		dir := filepath.Dir(path)
		if _, known := want[path]; !known && (dir == pki || dir == pki+"/etcd" || dir == "/etc/kubernetes/manifests") {
			t.Errorf("%s is none of kubeadm's files", path)
		}
	}

	if s := n.sh(t, "cat /var/lib/kubelet/instance-config.yaml"); !strings.HasPrefix(s, "containerRuntimeEndpoint:") || !strings.Contains(s, "unix:///") {
		t.Errorf("instance-config.yaml: %q", s)
	}
	if s := n.sh(t, "cat /var/lib/kubelet/kubeadm-flags.env"); !strings.HasPrefix(s, `KUBELET_KUBEADM_ARGS="`) {
		t.Errorf("kubeadm-flags.env: %q", s)
	}
	// An embedded certificate would expire after a year; the file is rotated.
	const current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	kc := n.sh(t, "cat /etc/kubernetes/kubelet.conf")
	for _, key := range []string{"client-certificate: " + current, "client-key: " + current} {
		if !strings.Contains(kc, key) {
			t.Errorf("kubelet.conf has no %q", key)
		}
	}
	if strings.Contains(kc, "client-key-data") {
		t.Error("kubelet.conf holds an embedded key")
	}
	n.sh(t, "test -s "+current)
	for _, unit := range []string{"kubelet", "containerd"} {
		if s := n.sh(t, "systemctl is-enabled "+unit+"; systemctl is-active "+unit); s != "enabled\nactive" {
			t.Errorf("%s is %q", unit, s)
		}
	}
}

// checkImmutable: /usr is a read-only file system whose blocks the kernel checks
// against the root hash of the boot entry.
func checkImmutable(t *testing.T, n *node) {
	if err := n.shFails(t, "touch /usr/kiln-was-here"); !strings.Contains(err.Output, "Read-only file system") {
		t.Error(err)
	}
	n.shFails(t, "mount -o remount,rw /usr")
	var mounts struct {
		Filesystems []struct{ Source, FSType, Options string } `json:"filesystems"`
	}
	out := n.sh(t, "findmnt --json -o SOURCE,FSTYPE,OPTIONS --mountpoint /usr")
	if err := json.Unmarshal([]byte(out), &mounts); err != nil || len(mounts.Filesystems) != 1 {
		t.Fatalf("findmnt /usr: %v\n%s", err, out)
	}
	m := mounts.Filesystems[0]
	if m.Source != "/dev/mapper/usr" || m.FSType != "squashfs" || !strings.HasPrefix(m.Options, "ro") {
		t.Errorf("/usr is %+v, want squashfs on /dev/mapper/usr, read-only", m)
	}
	// device-mapper's UUID says which subsystem made the device.
	if uuid := n.sh(t, `cat /sys/block/$(basename $(readlink -f /dev/mapper/usr))/dm/uuid`); !strings.HasPrefix(uuid, "CRYPT-VERITY-") {
		t.Errorf("/dev/mapper/usr is %q, no dm-verity device", uuid)
	}
	if s := n.sh(t, "cat /sys/block/$(basename $(readlink -f /dev/mapper/usr))/ro"); s != "1" {
		t.Error("/dev/mapper/usr can be written to")
	}
	if s := n.sh(t, "cat /proc/cmdline"); !strings.Contains(s, "usrhash=") {
		t.Errorf("the kernel's command line has no root hash of /usr: %s", s)
	}
	// Everything that changes is on the state partition.
	for _, p := range []string{"/etc", "/var", "/root", "/opt"} {
		if s := n.sh(t, "findmnt -n -o FSTYPE,OPTIONS --target "+p); !strings.HasPrefix(s, "ext4") || !strings.Contains(s, "rw") {
			t.Errorf("%s is on %q, want ext4, writable", p, s)
		}
	}
}

// checkDisk: systemd-repart made slot B and let the state grow to the disk's end.
func checkDisk(t *testing.T, n *node) {
	type device struct {
		Name, PartLabel, PartTypeName, PartType, FSType, Type string
		Size                                                  int64
		Children                                              []device
	}
	var all struct {
		BlockDevices []device `json:"blockdevices"`
	}
	out := n.sh(t, "lsblk --json --bytes -o NAME,PARTLABEL,PARTTYPENAME,PARTTYPE,FSTYPE,TYPE,SIZE")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("lsblk: %v\n%s", err, out)
	}
	var disk *device
	for i, d := range all.BlockDevices {
		if d.Type == "disk" && d.Size == diskBytes {
			disk = &all.BlockDevices[i]
		}
	}
	if disk == nil {
		t.Fatalf("there is no disk of %d bytes\n%s", int64(diskBytes), out)
	}
	byType := map[string][]device{}
	var used int64
	for _, p := range disk.Children {
		byType[p.PartType] = append(byType[p.PartType], p)
		used += p.Size
	}
	const esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	for _, want := range []struct {
		what, partType string
		count          int
	}{
		{"boot partition", esp, 1}, {"/usr slots", n.arch.UsrType, 2}, {"verity slots", n.arch.UsrVerityType, 2}, {"state", n.arch.RootType, 1},
	} {
		if got := len(byType[want.partType]); got != want.count {
			t.Errorf("%s: %d partitions of type %s, want %d\n%s", want.what, got, want.partType, want.count, out)
		}
	}
	for _, pair := range []string{n.arch.UsrType, n.arch.UsrVerityType} {
		if p := byType[pair]; len(p) == 2 && p[0].Size != p[1].Size {
			t.Errorf("slot B differs in size from slot A: %d and %d bytes", p[0].Size, p[1].Size)
		}
	}
	if free := diskBytes - used; free > 64<<20 {
		t.Errorf("%d MiB of the disk are in no partition", free>>20)
	}
	if state := byType[n.arch.RootType]; len(state) == 1 {
		if state[0].FSType != "ext4" {
			t.Errorf("the state partition holds %q, want ext4", state[0].FSType)
		}
		var blocks, blockSize int64
		if _, err := fmt.Sscan(n.sh(t, "stat -f -c '%b %S' /var"), &blocks, &blockSize); err != nil {
			t.Fatal(err)
		}
		// ext4 keeps a part for its own tables.
		if got := blocks * blockSize; got < state[0].Size*9/10 {
			t.Errorf("the state's file system has %d bytes of its partition's %d: it has not grown", got, state[0].Size)
		}
	}
}

func checkNoFailedUnits(t *testing.T, n *node) {
	if out := n.sh(t, "systemctl --failed --no-legend --plain --no-pager"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
	if out := n.sh(t, "systemctl list-jobs --no-legend --no-pager"); out != "" && !strings.Contains(out, "No jobs") {
		t.Logf("jobs still queued:\n%s", out)
	}
}

// checkNoSecretPrinted searches everything a node has printed for every secret
// there is: the bootstrap tokens, and the keys the build made.
func checkNoSecretPrinted(t *testing.T, n *node) {
	needles := map[string]string{"a PEM private key": "PRIVATE KEY-----"}
	for _, s := range bootstrapTokens(n.within(t, time.Minute), t, n) {
		needles["the secret of token "+string(s.Data[bootstrapapi.BootstrapTokenIDKey])] = string(s.Data[bootstrapapi.BootstrapTokenSecretKey])
	}
	keys := 0
	err := filepath.WalkDir(n.secrets, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".key" {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if block, _ := pem.Decode(b); block == nil {
			t.Errorf("%s is not PEM", p)
			return nil
		}
		// A line out of the key's middle: its first lines are the same in many keys.
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		needles[filepath.Base(p)] = lines[len(lines)/2]
		keys++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(needles) < 3 || keys < 4 {
		t.Fatalf("found only %d secrets and %d keys to search for", len(needles), keys)
	}
	ctx := n.within(t, 3*time.Minute)
	journal, err := n.ssh.Run(ctx, "journalctl --no-pager -o cat")
	if err != nil {
		t.Fatal(err)
	}
	pods, err := n.ssh.Run(ctx, "cat /var/log/pods/*/*/*.log")
	if err != nil {
		t.Fatal(err)
	}
	processes, err := n.ssh.Run(ctx, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
	if err != nil {
		t.Logf("process arguments: %v", err) // processes end while they are read
	}
	status, err := n.ssh.Run(ctx, "firstboot status; firstboot status --json")
	if err != nil {
		t.Fatal(err)
	}
	console, err := os.ReadFile(filepath.Join(n.machine.Dir(), "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"journal": journal, "pod logs": pods, "process arguments": processes, "firstboot status": status, "console": string(console)} {
		if len(text) < 100 {
			t.Errorf("%s: only %d bytes to search", where, len(text))
		}
		for what, needle := range needles {
			if strings.Contains(text, needle) {
				t.Errorf("%s shows %s", where, what)
			}
		}
	}
	// The API server's manifest and others must not be readable by ordinary users
	// either, nor what Ignition delivered.
	if out := n.sh(t, `grep -rlsE 'PRIVATE KEY-----' /etc /run /var/lib/kiln /tmp 2>/dev/null | xargs -r stat -c '%a %n' | grep -v '^[0-7]00 ' || true`); out != "" {
		t.Errorf("files with private keys that others may read:\n%s", out)
	}
}

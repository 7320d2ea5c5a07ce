//go:build boot && long

package qemutests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	diskbackend "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/internal/vnet"
)

// cloudFile is of nodes in a cloud, whose network gives the addresses, and to workers
// their names.
var cloudFile = template.Must(template.New("cluster.yaml").Parse(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: story
controlPlaneEndpoint: {{.Endpoint}}
nodes:
  - name: {{.Name}}
    role: control-plane
    profile: openstack-amd64
    formats: [raw]
    taints: []
  - name: workers
    role: worker
    profile: openstack-amd64
    formats: [raw]
    nameFrom: platform
ssh:
  authorizedKeys:
    - {{.Key}}
`))

// metadataAddress is that of all clouds.
var metadataAddress = netip.MustParseAddrPort("169.254.169.254:80")

// userData is an Ignition config with files, by path and source.
func userData(t *testing.T, files ...[2]string) []byte {
	t.Helper()
	type contents struct {
		Source string `json:"source"`
	}
	type file struct {
		Path      string   `json:"path"`
		Contents  contents `json:"contents"`
		Overwrite bool     `json:"overwrite"`
	}
	var list []file
	for _, f := range files {
		list = append(list, file{f[0], contents{f[1]}, true})
	}
	b, err := json.Marshal(map[string]any{"ignition": map[string]any{"version": "3.3.0"}, "storage": map[string]any{"files": list}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestUserData boots a node of the OpenStack profile with each kind of user data.
func TestUserData(t *testing.T) {
	n := bakeFile(t, "amd64", cloudFile, map[string]string{"Name": nodeName, "Endpoint": strings.TrimSuffix(address, "/24") + ":6443"})

	t.Run("none", func(t *testing.T) {
		c := startCloud(t, nil)
		m := n.startInCloud(t, "none", n.image, c)
		m.says(t, 0, m.slow(3*time.Minute), `init of cluster story: `+nodeName, `preflight: done`)
		c.asked(t, "/openstack/latest/user_data", "/openstack/latest/meta_data.json")
	})
	t.Run("of another program", func(t *testing.T) {
		drive := fatDrive(t, []byte("#cloud-config\npassword: hunter2\n"))
		m := n.startInCloud(t, "cloud-config", n.image, startCloud(t, nil), driveArgs(drive, "virtio-blk-pci")...)
		m.says(t, 0, m.slow(2*time.Minute),
			`Kiln: the user data of this machine is a cloud-config for cloud-init, which a Kiln node does not read: give an Ignition config of spec 3\.0\.0 to 3\.3\.0, .*, or no user data at all`,
			`Kiln: this boot has stopped; .* tried again in 5 minutes`)
		for _, l := range m.Console().Lines() {
			if strings.Contains(l.Text, "hunter2") {
				t.Error("the console has what the user data says")
			}
		}
	})
	t.Run("on a CD-ROM", func(t *testing.T) {
		drive := isoDrive(t, userData(t, [2]string{"/etc/from-drive", "data:,drive"}))
		c := startCloud(t, nil)
		workers := filepath.Join(filepath.Dir(n.image), "workers.img")
		m := n.startInCloud(t, "drive", workers, c, driveArgs(drive, "ide-cd")...)
		m.says(t, 0, m.slow(3*time.Minute), `join-worker of cluster story: in-the-cloud at `, `preflight: done`)
		if got := n.sh(t, "cat /etc/from-drive; echo; cat /etc/hostname"); got != "drive\nin-the-cloud" {
			t.Errorf("the files have %q", got)
		}
		c.asked(t) // nothing
	})
	t.Run("in the network", func(t *testing.T) {
		c := startCloud(t, map[string][]byte{
			"/openstack/latest/user_data": userData(t, [2]string{"/etc/from-service", "data:,service"}, [2]string{"/etc/from-source", "http://" + metadataAddress.Addr().String() + "/source"}),
			"/source":                     []byte("source"),
		})
		start := time.Now()
		n.startInCloud(t, "service", n.image, c)
		state, err := cluster.WaitReady(n.within(t, 12*time.Minute), n.client, progress(t, start), nodeName)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("ready after %.0f s\n%s", time.Since(start).Seconds(), state.Table())
		if got := n.sh(t, "cat /etc/from-service /etc/from-source; cat /etc/hostname"); got != "servicesource"+nodeName {
			t.Errorf("the files have %q", got)
		}
		checkNoFailedUnits(t, n)
	})
}

// cloud is a network with a metadata service.
type cloud struct {
	net     *vnet.Network
	port    int // of this host, leads to the node's API server
	sshPort int
	mac     net.HardwareAddr

	mu    sync.Mutex
	paths []string
}

// startCloud starts a network whose metadata service has the given answers.
func startCloud(t *testing.T, answers map[string][]byte) *cloud {
	t.Helper()
	node := netip.MustParsePrefix(address)
	c := &cloud{mac: net.HardwareAddr{0x02, 'k', 'i', 'l', 'n', 0x10}}
	var err error
	c.net, err = vnet.New(vnet.Config{
		Subnets: []vnet.Subnet{{Prefix: node.Masked(), Gateway: netip.MustParseAddr(gateway)}},
		Leases:  []vnet.Lease{{MAC: c.mac, Address: node.Addr()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.net.Listen(metadataAddress)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.paths = append(c.paths, r.URL.Path)
		c.mu.Unlock()
		if b, ok := answers[r.URL.Path]; ok {
			_, _ = w.Write(b) // a machine that is gone
			return
		}
		http.NotFound(w, r)
	})}
	go func() { _ = s.Serve(l) }() // ends when it is closed
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := c.net.Close(); err != nil {
			t.Error(err)
		}
	})
	for guest, host := range map[uint16]*int{6443: &c.port, 22: &c.sshPort} {
		if *host, err = c.net.Forward(netip.AddrPortFrom(node.Addr(), guest)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// asked compares what the metadata service was asked for with what it must be.
func (c *cloud) asked(t *testing.T, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.paths) != fmt.Sprint(want) {
		t.Errorf("the metadata service was asked for %v, want %v", c.paths, want)
	}
}

// startInCloud starts a new machine with an image in a cloud, and connects the
// clients.
func (n *node) startInCloud(t *testing.T, name, image string, c *cloud, args ...string) *faulty {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "network")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.net.Attach(conn) }() // ends with the machine
	m := n.startFaulty(t, name, image, func(cfg *qemu.Config) {
		cfg.Ethernet = &qemu.Ethernet{MAC: c.mac, Cable: os.NewFile(uintptr(fds[1]), "cable")}
		cfg.ExtraArgs, cfg.MemoryMiB = args, guestMemoryMiB
	})
	n.machine, n.ssh = m.Machine, &cluster.SSH{Port: c.sshPort, User: "root", Key: n.key}
	if n.client, n.rest, err = cluster.Client(n.adminConf, c.port); err != nil {
		t.Fatal(err)
	}
	return m
}

// driveArgs attach a config drive to a device.
func driveArgs(image, device string) []string {
	return []string{"-drive", "if=none,id=drive,format=raw,readonly=on,file=" + image, "-device", device + ",drive=drive"}
}

// fatDrive makes a config drive with a FAT file system.
func fatDrive(t *testing.T, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	image, file := filepath.Join(dir, "drive.img"), filepath.Join(dir, "user_data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mkfs.vfat", "-n", "CONFIG-2", image},
		{"mmd", "-i", image, "::/openstack", "::/openstack/latest"},
		{"mcopy", "-i", image, file, "::/openstack/latest/user_data"},
	} {
		if out, err := testtools.Command(t, args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return image
}

// isoDrive makes a config drive as OpenStack does if it is not told otherwise.
func isoDrive(t *testing.T, data []byte) string {
	t.Helper()
	const block = 2048
	image := filepath.Join(t.TempDir(), "drive.iso")
	b, err := diskbackend.CreateFromPath(image, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := iso9660.Create(b, 1<<20, 0, block, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Mkdir("openstack/latest"); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"user_data": data, "meta_data.json": []byte(`{"hostname": "in-the-cloud"}`)} {
		f, err := fs.OpenFile("openstack/latest/"+name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bytes.NewReader(content).WriteTo(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: "config-2"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return image
}

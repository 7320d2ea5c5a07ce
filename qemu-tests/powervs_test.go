//go:build boot && long

package qemutests

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"text/template"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/testtools"
)

var powerVSFile = template.Must(template.New("cluster.yaml").Parse(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: story
nodes:
  - name: {{.Name}}
    role: control-plane
    profile: powervs-ppc64le
    formats: [raw]
    address: {{.Address}}
    gateway: {{.Gateway}}
    nameservers: [{{.DNS}}]
ssh:
  authorizedKeys:
    - {{.Key}}
`))

// TestPowerVS boots a node of IBM Power Virtual Server in a machine that has the devices
// of a partition there: disk and config drive on a virtual SCSI adapter, a virtual
// Ethernet. It ends when the first phase of the first boot, which wants the network, is
// done, and the console's greeting is that of the user data.
func TestPowerVS(t *testing.T) {
	n := bakeBy(t, buildAnySuite, "ppc64le", powerVSFile, words("", ""))
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	create := testtools.Command(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", n.image, "-F", "raw", disk, strconv.Itoa(diskBytes))
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	drive := isoDrive(t, userData(t, [2]string{"/etc/issue", "data:,the%20user%20data%20was%20read%0A"}))
	m := n.startFaulty(t, "partition", n.image, func(c *qemu.Config) {
		c.Disks, c.MemoryMiB = nil, guestMemoryMiB
		c.ExtraArgs = append([]string{
			"-device", "spapr-vscsi,id=scsi0",
			"-drive", "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file=" + disk, "-device", "scsi-hd,bus=scsi0.0,drive=disk,bootindex=1",
			"-netdev", fmt.Sprintf("user,id=net0,ipv6=off,restrict=on,net=192.168.76.0/24,host=%s,dns=%s", gateway, dns), "-device", "spapr-vlan,netdev=net0",
		}, driveArgs(drive, "scsi-cd,bus=scsi0.0")...)
	})
	m.says(t, 0, m.slow(3*time.Minute), `init of cluster story: `+nodeName, `preflight: done`, `the user data was read`)
}

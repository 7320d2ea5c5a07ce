//go:build boot && bench

package qemutests

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
)

var kernelStart = regexp.MustCompile(`Linux version \d`)

// figures are what is measured of one way to a node.
type figures struct {
	ready      time.Duration // from the kernel's first line until the node is Ready
	everything time.Duration // until all pods are ready, too
	written    int64         // bytes written to the disk until the node is Ready
	memory     int64         // bytes in use 60 s after everything is ready
	reboot     time.Duration // a boot that is not the first, from the kernel's first line until Ready: the median of them
}

// The kubelet asks for its Node in growing intervals, so one second boot is some
// seconds longer than the next; the median of a few is not.
const (
	secondBoots = 3
	restBetween = 30 * time.Second // until the node is switched off again
)

// TestBenchFirstBoot measures a node that Kiln set up, and beside it real kubeadm in
// the same virtual machine with the same programs, images and settings.
func TestBenchFirstBoot(t *testing.T) {
	kiln := bake(t)
	kiln.boot(t)
	k := measure(t, kiln)
	extra := referenceDisk(t, kiln, referenceFile(t, "kubeadm.yaml"))
	kiln.machine.Kill() // two machines at once would measure each other

	reference := bakeWith(t, referenceSnippet)
	reference.disks = []qemu.Disk{{Image: extra}}
	reference.boot(t)
	r := measure(t, reference)
	t.Logf("kiln:      %+v", k)
	t.Logf("reference: %+v", r)
	record(t, "kernel start to node Ready", k.ready.Seconds(), "s", r.ready.Seconds(), bound{ratio: 0.6})
	record(t, "kernel start to all pods ready", k.everything.Seconds(), "s", r.everything.Seconds(), bound{})
	record(t, "memory in use, Ready and idle 60 s", float64(k.memory)/mib, "MiB", float64(r.memory)/mib, bound{ratio: 0.9})
	record(t, "bytes written to disk until Ready", float64(k.written)/mib, "MiB", float64(r.written)/mib, bound{ratio: 0.6})
	record(t, "second boot, kernel start to Ready", k.reboot.Seconds(), "s", r.reboot.Seconds(), bound{ratio: 0.8})
}

// measure follows a machine that was just started.
func measure(t *testing.T, n *node) figures {
	t.Helper()
	var f figures
	console := n.machine.Console()
	if _, err := console.WaitFor(n.within(t, 3*time.Minute), kernelStart); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	waitNodeReady(t, n, "")
	f.ready = time.Since(start)
	if err := n.ssh.Wait(n.within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	f.written = n.bytesWritten(t)
	if _, err := cluster.WaitReady(n.within(t, 20*time.Minute), n.client, nil, nodeName); err != nil {
		t.Fatal(err)
	}
	f.everything = time.Since(start)
	n.waitFirstbootEnd(t)
	select {
	case <-n.machine.Context().Done():
		t.Fatal("the machine has stopped")
	case <-time.After(60 * time.Second):
	}
	f.memory = n.memoryInUse(t)
	t.Logf("%s\n%s", n.sh(t, "free -m; ps -eo rss,comm --sort=-rss | head -20"), n.sh(t, "systemd-analyze; systemd-analyze blame | head -20; firstboot status || true"))

	for _, l := range console.Lines() {
		if i := strings.Index(l.Text, "bench: "); i >= 0 {
			t.Logf("reference: %s", l.Text[i:])
		}
	}
	var boots []time.Duration
	for range secondBoots {
		boots = append(boots, measureReboot(t, n))
		select {
		case <-n.machine.Context().Done():
			t.Fatal("the machine has stopped")
		case <-time.After(restBetween):
		}
	}
	t.Logf("second boots: %v", boots)
	slices.Sort(boots)
	f.reboot = boots[len(boots)/2]
	return f
}

// measureReboot switches the machine off and on, and returns how long it takes from the
// kernel's first line until the node is Ready.
func measureReboot(t *testing.T, n *node) time.Duration {
	t.Helper()
	old := n.sh(t, "cat /proc/sys/kernel/random/boot_id")
	// A machine that is switched off and on: after a restart within the same QEMU its
	// emulation is slower for a while, with programs translated for the boot before.
	if _, err := n.ssh.Run(n.within(t, time.Minute), "systemctl poweroff"); err != nil {
		t.Logf("systemctl poweroff: %v", err)
	}
	off, cancel := context.WithTimeout(t.Context(), n.machine.Scale(3*time.Minute))
	defer cancel()
	if err := n.machine.Wait(off); err != nil {
		t.Fatal(err)
	}
	n.bootAgain(t)
	if _, err := n.machine.Console().WaitFor(n.within(t, 3*time.Minute), kernelStart); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	waitNodeReady(t, n, old)
	took := time.Since(start)
	if err := n.ssh.Wait(n.within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Logf("second boot:\n%s", n.sh(t, "systemd-analyze; systemd-analyze critical-chain kubelet.service; systemd-analyze blame | head -20; "+
		"journalctl -b -o short-monotonic --no-pager -u kubelet -u containerd -u kiln-start-order | grep -E 'Start(ing|ed) |StartContainer for|RunPodSandbox for|Starting kubelet|registered node|Successfully|NodeReady' | cut -c1-220 | head -80"))
	return took
}

// waitNodeReady waits until the node is Ready in another boot than old.
func waitNodeReady(t *testing.T, n *node, old string) {
	t.Helper()
	ctx := n.within(t, 20*time.Minute)
	for {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		obj, err := n.client.CoreV1().Nodes().Get(call, nodeName, metav1.GetOptions{})
		cancel()
		if err == nil && obj.Status.NodeInfo.BootID != old {
			if ready, _ := cluster.NodeReady(*obj); ready {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("node %s is not Ready: %v; last answer: %v", nodeName, context.Cause(ctx), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// bytesWritten is what went to the node's disk, with what the kernel still holds back.
func (n *node) bytesWritten(t *testing.T) int64 {
	t.Helper()
	// The seventh field counts sectors of 512 bytes (Documentation/block/stat.rst).
	fields := strings.Fields(n.sh(t, "sync; cat /sys/block/vda/stat"))
	if len(fields) < 7 {
		t.Fatalf("/sys/block/vda/stat: %q", fields)
	}
	return 512 * number(t, fields[6])
}

func (n *node) memoryInUse(t *testing.T) int64 {
	t.Helper()
	out := n.sh(t, "cat /proc/meminfo")
	of := func(name string) int64 {
		m := regexp.MustCompile(`(?m)^` + name + `: +(\d+) kB`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("/proc/meminfo has no %s", name)
		}
		return number(t, m[1]) << 10
	}
	return of("MemTotal") - of("MemAvailable")
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

//go:build boot

package qemutests

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
)

// TestSingleNode is the life of the smallest cluster: baked from a file, switched
// on, ready without a login or a download, compatible with kubeadm, immutable,
// and the same cluster again after a reboot.
func TestSingleNode(t *testing.T) {
	n := bake(t)
	t.Cleanup(func() { t.Logf("times:\n%s", n.times) })
	n.boot(t)

	interrupt(t, n)
	start := time.Now()
	state, err := cluster.WaitReady(n.within(t, 15*time.Minute), n.client, progress(t, start), nodeName)
	if err != nil {
		t.Fatal(err)
	}
	n.times.add("from the reset: everything is ready", time.Since(start))
	n.times.addConsole(n.machine.Console())
	t.Logf("ready after %.0f s\n%s", time.Since(start).Seconds(), state.Table())
	if err := n.ssh.Wait(n.within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}

	for _, part := range []struct {
		name  string
		check func(*testing.T, *node)
	}{
		{"firstboot is finished", checkFirstbootDone},
		{"kubeadm can read the cluster back", checkKubeadm},
		{"RBAC is kubeadm's", checkRBAC},
		{"files on the node are kubeadm's", checkNodeFiles},
		{"/usr is immutable", checkImmutable},
		{"the disk has grown into its layout", checkDisk},
		{"nothing has failed", checkNoFailedUnits},
		{"pods reach services by name", checkPodNetwork},
		{"no secret was printed", checkNoSecretPrinted},
		{"a reboot brings the same cluster back", checkReboot},
		{"pods reach services by name after the reboot", checkPodNetwork},
		{"nothing has failed after the reboot", checkNoFailedUnits},
		{"no secret was printed after the reboot", checkNoSecretPrinted},
	} {
		t.Run(part.name, func(t *testing.T) { part.check(t, n) })
	}

	ctx := n.within(t, time.Minute)
	if err := n.machine.Stop(ctx); err != nil {
		t.Errorf("the power button does not shut the node down: %v", err)
	}
}

// interrupted is the phase of firstboot in which the first boot is reset.
const interrupted = "wait-control-plane"

// interrupt presses the reset button in the middle of the first boot, which has to
// go on where it was: checkFirstbootDone looks at what was done twice.
func interrupt(t *testing.T, n *node) {
	t.Helper()
	_, err := n.machine.Console().WaitFor(n.within(t, 5*time.Minute), regexp.MustCompile(interrupted+`: waiting for the control plane \(`))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.machine.Reset(n.within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// progress logs what is waited for, with the time since start.
func progress(t *testing.T, start time.Time) func(string) {
	return func(s string) { t.Logf("%6.1f s  waiting for: %s", time.Since(start).Seconds(), s) }
}

// checkFirstbootDone waits for the end of the boot, checks what firstboot says
// about itself and notes how long its phases took.
func checkFirstbootDone(t *testing.T, n *node) {
	// firstboot ends after the node is Ready, and systemd's start-up after that.
	ctx := n.within(t, 3*time.Minute)
	for {
		state, err := n.ssh.Run(ctx, "systemctl is-system-running")
		var remote *cluster.RemoteError // any state but "running" is an exit status
		if err != nil && !errors.As(err, &remote) {
			t.Fatal(err)
		}
		state = strings.TrimSpace(state)
		if state == "running" {
			break
		}
		if state != "starting" && state != "initializing" {
			t.Fatalf("the system is %q\n%s", state, n.sh(t, "systemctl --failed --no-pager --no-legend; true"))
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the system is still %q\n%s", state, n.sh(t, "systemctl list-jobs --no-pager"))
		case <-time.After(2 * time.Second):
		}
	}
	if got := n.sh(t, "systemctl show -P Result -P ActiveState firstboot.service | sort | xargs"); got != "active success" {
		t.Errorf("firstboot.service: %s", got)
	}
	if parts := n.times.addAnalyze(n.sh(t, "systemd-analyze time")); parts < 3 {
		t.Errorf("systemd-analyze knows of %d parts of the boot, want kernel, initrd and userspace at least", parts)
	}
	record := n.firstbootRecord(t)
	reached := false
	for _, p := range record.Phases {
		n.times.add("firstboot: "+p.Name, time.Duration(p.Took))
		if !p.Done {
			t.Errorf("firstboot's phase %s is not done", p.Name)
		}
		switch {
		case p.Name == interrupted:
			reached = true
			if p.Attempts < 2 {
				t.Errorf("firstboot was reset in phase %s and did not begin it again", p.Name)
			}
		case !reached && p.Attempts != 1:
			t.Errorf("firstboot did phase %s %d times, although it was done before the reset", p.Name, p.Attempts)
		case p.Attempts > 1:
			t.Logf("firstboot's phase %s took %d attempts: %s", p.Name, p.Attempts, p.LastError)
		}
	}
	if record.Boots != 2 {
		t.Errorf("firstboot counts %d boots, want two: the one that was reset, and the one after it", record.Boots)
	}
	if len(record.Phases) == 0 || record.State != phase.StateComplete || record.LastError != "" {
		t.Errorf("firstboot is %s after %d phases; last error: %s", record.State, len(record.Phases), record.LastError)
	}
}

// firstbootRecord is what firstboot says about itself to programs.
func (n *node) firstbootRecord(t *testing.T) phase.Record {
	t.Helper()
	out := n.sh(t, "firstboot status --json")
	var r phase.Record
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("firstboot status --json: %v\n%s", err, out)
	}
	return r
}

// identity is what makes a cluster this one.
type identity struct{ clusterUID, nodeUID, machineID, hostKey, ca string }

func (n *node) identity(t *testing.T) identity {
	t.Helper()
	ns, err := n.client.CoreV1().Namespaces().Get(n.within(t, time.Minute), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	obj, err := n.client.CoreV1().Nodes().Get(n.within(t, time.Minute), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return identity{
		clusterUID: string(ns.UID), nodeUID: string(obj.UID),
		machineID: n.sh(t, "cat /etc/machine-id"),
		hostKey:   n.sh(t, "cat /etc/ssh/ssh_host_ed25519_key.pub"),
		ca:        n.sh(t, "sha256sum < /etc/kubernetes/pki/ca.crt"),
	}
}

// containers maps each running container of kube-system to its id.
func containers(s cluster.State) map[string]string {
	ids := map[string]string{}
	for _, p := range s.Pods {
		for _, c := range p.Status.ContainerStatuses {
			if p.Namespace == metav1.NamespaceSystem && c.State.Running != nil {
				ids[p.Name+"/"+c.Name] = c.ContainerID
			}
		}
	}
	return ids
}

// checkReboot reboots the node in order and expects everything back by itself.
func checkReboot(t *testing.T, n *node) {
	const bootIDFile = "/proc/sys/kernel/random/boot_id"
	before := n.identity(t)
	bootID := n.sh(t, "cat "+bootIDFile)
	old, err := cluster.Get(n.within(t, time.Minute), n.client)
	if err != nil {
		t.Fatal(err)
	}
	record := n.firstbootRecord(t)
	resets := n.machine.Resets()
	start := time.Now()
	// The connection may or may not survive the answer to this.
	if _, err := n.ssh.Run(n.within(t, 30*time.Second), "systemctl reboot"); err != nil {
		t.Logf("systemctl reboot: %v", err)
	}

	ctx := n.within(t, 5*time.Minute)
	now := bootID
	for now == bootID {
		if err := n.ssh.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		// The old boot answers until its SSH server is stopped.
		if out, err := n.ssh.Run(ctx, "cat "+bootIDFile); err == nil {
			now = strings.TrimSpace(out)
		}
		select {
		case <-ctx.Done():
			t.Fatal("the node did not reboot")
		case <-time.After(time.Second):
		}
	}
	if n.machine.Resets() == resets {
		t.Error("the boot id has changed, but the machine saw no reset")
	}
	n.times.add("reboot: SSH login", time.Since(start))
	state, err := cluster.WaitBooted(n.within(t, 10*time.Minute), n.client, progress(t, start), nodeName, now, old)
	if err != nil {
		t.Fatal(err)
	}
	n.times.add("reboot: everything is ready", time.Since(start))

	if after := n.identity(t); after != before {
		t.Errorf("it is not the same cluster any more:\nbefore %+v\nafter  %+v", before, after)
	}
	ids := containers(state)
	for name, id := range containers(old) {
		switch ids[name] {
		case "":
			t.Errorf("%s runs no more", name)
		case id:
			t.Errorf("%s is said to be the same container as before the reboot; nothing has reported yet", name)
		}
	}

	// The kubelet has taken over what was started before it came up.
	resumed := n.sh(t, "journalctl -b -u kiln-resume -o cat --no-pager")
	for _, component := range []string{"etcd", "kube-apiserver"} {
		_, id, _ := strings.Cut(ids[component+"-"+nodeName+"/"+component], "://")
		if id == "" || !strings.Contains(resumed, component+" runs: container "+id+",") {
			t.Errorf("%s runs in container %q, want the one that was started before the kubelet:\n%s", component, id, resumed)
		}
	}

	// What was held back for the API server goes on, with what it had before.
	order := n.sh(t, "journalctl -b -u kiln-start-order -o cat --no-pager; systemctl is-active kiln-start-order || true")
	if !strings.HasSuffix(order, "\ninactive") || strings.Contains(order, "until their leases have run out") {
		t.Errorf("kiln-start-order:\n%s", order)
	}
	t.Logf("kiln-start-order:\n%s", order)
	if got := n.sh(t, "cat /sys/fs/cgroup/system.slice/cpu.weight"); got != "100" {
		t.Errorf("the system's services have the weight %s after the boot, want 100", got)
	}

	// The second boot has nothing to set up: the unit is not even started. Asked for
	// by hand, firstboot says so.
	if got := n.sh(t, "systemctl show -P ConditionResult -P ExecMainStartTimestampMonotonic -P ActiveState firstboot.service | sort | xargs"); got != "0 inactive no" {
		t.Errorf("firstboot.service in the second boot: %s, want a condition that kept it from starting", got)
	}
	if out := n.sh(t, "firstboot run 2>&1"); !strings.Contains(out, "nothing to do") {
		t.Errorf("firstboot run on a node that is set up: %s", out)
	}
	n.checkIgnitionRanOnce(t, record.Boots+1)
	if out := n.sh(t, "journalctl -b -1 -u firstboot -o cat -n 1 --no-pager"); out == "" {
		t.Error("the journal of the boot that finished the setup is gone")
	}
	if r := n.firstbootRecord(t); r.State != phase.StateComplete || !slices.EqualFunc(r.Phases, record.Phases, func(a, b phase.PhaseRecord) bool {
		return a.Name == b.Name && a.Attempts == b.Attempts && a.Took == b.Took
	}) {
		t.Errorf("the second boot ran phases again:\nbefore %+v\nafter  %+v", record, r)
	}
	t.Logf("firstboot status:\n%s", n.sh(t, "firstboot status"))
}

// checkIgnitionRanOnce expects that the journal still has every boot, so many, and that
// Ignition ran in the first of them alone.
func (n *node) checkIgnitionRanOnce(t *testing.T, want int) {
	t.Helper()
	var boots []struct {
		ID string `json:"boot_id"`
	}
	out := n.sh(t, "journalctl --list-boots -o json --no-pager")
	if err := json.Unmarshal([]byte(out), &boots); err != nil {
		t.Fatalf("journalctl --list-boots -o json: %v\n%s", err, out)
	}
	if len(boots) != want {
		t.Fatalf("the journal knows %d boots, want those of the setup and this one, %d:\n%s", len(boots), want, out)
	}
	ran := strings.Fields(n.sh(t, `journalctl _COMM=ignition -o json --output-fields=_COMM --no-pager | grep -o '"_BOOT_ID":"[0-9a-f]*"' | cut -d'"' -f4 | sort -u`))
	if want := []string{boots[0].ID}; !slices.Equal(ran, want) {
		t.Errorf("Ignition ran in the boots %q, want %q", ran, want)
	}
}

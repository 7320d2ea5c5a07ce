//go:build boot && long

package qemutests

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// virtualIP is the address that the control planes of TestControlPlaneLost share.
const virtualIP = "192.168.78.10"

// slowEtcd are the settings that docs/guide.md has for slow machines: emulated ones are,
// and what one of them hears of another takes a turn besides.
const slowEtcd = `---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
etcd:
  local:
    extraArgs:
      - {name: heartbeat-interval, value: "500"}
      - {name: election-timeout, value: "5000"}
`

// TestControlPlaneLost is a cluster of three control planes without a load balancer,
// one of which loses its power: the API goes on at the shared address, with writes,
// and the machine comes back into the same cluster.
func TestControlPlaneLost(t *testing.T) {
	c := bakeNetwork(t, "virtualIP: {address: "+virtualIP+"}\n"+slowEtcd, "cp-1", "cp-2", "cp-3", "worker-1")
	start := time.Now()
	// One after the other, as boxes are unpacked.
	for _, name := range c.names {
		c.start(t, name)
		c.ready(t, 20*time.Minute, name)
		if err := c.node(t, name).ssh.Wait(c.within(t, 3*time.Minute)); err != nil {
			t.Fatal(err)
		}
		c.node(t, name).waitFirstbootEnd(t)
		t.Logf("%s is in the cluster after %.0f s", name, time.Since(start).Seconds())
	}
	checkMembers(t, c, "cp-1", 3)
	holder := holderOf(t, c)
	var others []string
	for _, name := range []string{"cp-1", "cp-2", "cp-3"} {
		if name != holder {
			others = append(others, name)
		}
	}
	t.Logf("%s has %s", holder, virtualIP)

	w := startWriter(t, c)
	w.runs(t, c.turns.Scale(15*time.Second)) // before
	c.losePower(t, holder, func() {
		killed := time.Now()
		w.runs(t, c.turns.Scale(time.Minute))
		t.Logf("while %s was gone: %s", holder, w)
		if w.since(killed) == 0 {
			t.Errorf("no write went through after %s was killed: %s", holder, w)
		}
		if now := holderOf(t, c, others...); now == holder {
			t.Errorf("%s still has %s", now, virtualIP)
		}
	})
	w.stop()
	t.Logf("until %s was back: %s", holder, w)
	checkMembers(t, c, holder, 3)
	// What was written while it was gone is read from its own API server.
	written, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(c.within(t, time.Minute), writerName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address, _ := c.plan.Node(holder)
	out, err := c.node(t, holder).ssh.Run(c.within(t, 2*time.Minute), "kubectl --kubeconfig /etc/kubernetes/admin.conf --server https://"+address.API().String()+" get configmap "+writerName+" -o jsonpath={.data.count}")
	if want := written.Data["count"]; err != nil || strings.TrimSpace(out) != want || want == "" {
		t.Errorf("%s reads %q, %v; the last write was %q", holder, out, err, want)
	}
	checkAcrossNodes(t, c, holder, "worker-1")
}

// holderOf returns which of the running control planes has the shared address.
func holderOf(t *testing.T, c *network, among ...string) string {
	t.Helper()
	if len(among) == 0 {
		among = []string{"cp-1", "cp-2", "cp-3"}
	}
	ctx := c.within(t, 3*time.Minute)
	for {
		for _, name := range among {
			out, err := c.node(t, name).ssh.Run(ctx, "ip -o address")
			if err == nil && strings.Contains(out, " "+virtualIP+"/") {
				return name
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("none of %v has %s", among, virtualIP)
		case <-time.After(time.Second):
		}
	}
}

// checkMembers expects etcd to have so many members that vote.
func checkMembers(t *testing.T, c *network, on string, want int) {
	t.Helper()
	out := c.node(t, on).sh(t, "kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-system exec etcd-"+on+" -- etcdctl --endpoints=https://127.0.0.1:2379"+
		" --cacert=/etc/kubernetes/pki/etcd/ca.crt --cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt --key=/etc/kubernetes/pki/etcd/healthcheck-client.key member list")
	if got := strings.Count(out, ", started,"); got != want || strings.Contains(out, ", true") {
		t.Errorf("etcd's members, want %d that vote:\n%s", want, out)
	}
}

// writerName is the ConfigMap that is written again and again.
const writerName = "writer"

// writer counts up in the cluster, from a machine that reaches it by the shared
// address alone.
type writer struct {
	mu      sync.Mutex
	count   int
	written []time.Time
	failed  int
	longest time.Duration // between two writes
	err     error
	stop    func()
}

// startWriter counts from worker-1 with the rights of admin.conf.
func startWriter(t *testing.T, c *network) *writer {
	t.Helper()
	n := c.node(t, "worker-1")
	if _, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(c.within(t, time.Minute), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: writerName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const kubeconfig = "/run/writer.conf"
	n.sh(t, "umask 077; cat >"+kubeconfig+" <<'END'\n"+string(n.adminConf.Reveal())+"\nEND\ngrep -q 'server: https://"+virtualIP+":6443' "+kubeconfig)
	ctx, cancel := context.WithCancel(t.Context())
	w, done := &writer{}, make(chan struct{})
	w.stop = func() { cancel(); <-done }
	t.Cleanup(w.stop)
	go func() {
		defer close(done)
		for next := 1; ctx.Err() == nil; {
			call, end := context.WithTimeout(ctx, time.Minute)
			_, err := n.ssh.Run(call, fmt.Sprintf(`kubectl --kubeconfig %s --request-timeout=20s patch configmap %s --type=merge -p '{"data":{"count":"%d"}}'`, kubeconfig, writerName, next))
			end()
			if ctx.Err() != nil {
				return // stopped in the middle of a call
			}
			w.note(next, err)
			if err == nil {
				next++
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	}()
	return w
}

func (w *writer) note(n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed, w.err = w.failed+1, err
		return
	}
	now := time.Now()
	if len(w.written) > 0 {
		w.longest = max(w.longest, now.Sub(w.written[len(w.written)-1]))
	}
	w.count, w.written = n, append(w.written, now)
}

// runs lets the writer go on for a while.
func (w *writer) runs(t *testing.T, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

// since counts the writes after an instant.
func (w *writer) since(at time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, when := range w.written {
		if when.After(at) {
			n++
		}
	}
	return n
}

func (w *writer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := fmt.Sprintf("%d writes, %d failed, the longest time between two %.0f s", w.count, w.failed, w.longest.Seconds())
	if w.err != nil {
		s += fmt.Sprintf("; last error: %v", w.err)
	}
	return s
}

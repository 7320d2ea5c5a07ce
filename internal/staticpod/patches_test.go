package staticpod

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// TestPatches: each pod gets its own, after the user's flags.
func TestPatches(t *testing.T) {
	cfg := config()
	cfg.Plan.Cluster.Kubeadm.Scheduler.ExtraArgs = []Arg{{Name: "v", Value: "4"}}
	cfg.Plan.Node.Patches = []bootplan.Patch{
		{File: "etcd+merge.yaml", Data: "metadata: {annotations: {a: b}}"},
		{File: "kube-scheduler0.yaml", Data: "spec: {containers: [{name: kube-scheduler, resources: {requests: {cpu: 10m}}}]}"},
		{File: "kube-scheduler1+json.json", Data: `[{"op":"test","path":"/spec/containers/0/command/0","value":"kube-scheduler"},{"op":"add","path":"/spec/containers/0/command/-","value":"--last=1"}]`},
	}
	for _, p := range pods(t, cfg, rootWith(t)) {
		c := p.Spec.Containers[0]
		switch p.Name {
		case Scheduler:
			last := strings.Join(c.Command[len(c.Command)-2:], " ")
			if c.Resources.Requests.Cpu().String() != "10m" || last != "--v=4 --last=1" || c.StartupProbe == nil {
				t.Errorf("%+v", c)
			}
		case Etcd:
			if p.Annotations["a"] != "b" || p.Annotations[EtcdClientURLsAnnotation] == "" {
				t.Errorf("%v", p.Annotations)
			}
		default:
			if c.Resources.Requests.Cpu().String() == "10m" || p.Annotations["a"] != "" {
				t.Errorf("%s has the patch of another pod", p.Name)
			}
		}
	}
	cfg.Plan.Node.Patches = []bootplan.Patch{{File: "etcd.yaml", Data: "spec: {container: []}"}}
	if _, err := EtcdPod(cfg); err == nil || !strings.Contains(err.Error(), "etcd with its patches") {
		t.Errorf("an unknown field: %v", err)
	}
}

// TestAnotherPort: the API server's port is in its flag, its probes and its annotation.
func TestAnotherPort(t *testing.T) {
	cfg := config()
	cfg.Plan.Node.APIPort = 8443
	for _, p := range pods(t, cfg, rootWith(t)) {
		if p.Name != APIServer {
			continue
		}
		c := p.Spec.Containers[0]
		if !strings.Contains(strings.Join(c.Command, " "), "--secure-port=8443 ") || c.Ports[0].ContainerPort != 8443 || !strings.HasSuffix(p.Annotations[APIServerEndpointAnnotation], ":8443") {
			t.Errorf("%v %v %v", c.Command, c.Ports, p.Annotations)
		}
	}
}

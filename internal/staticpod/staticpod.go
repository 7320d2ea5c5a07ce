// Package staticpod renders the static pods of a control plane exactly as kubeadm
// 1.37 does (cmd/kubeadm/app/phases/controlplane, .../phases/etcd and
// .../util/staticpod): kubeadm upgrade compares what it finds with what it would
// write. The user's patches are applied last. One difference is meant: the proxy variables of firstboot's own
// environment are not passed on, because what reaches a local etcd and a service
// network through a proxy does not reach it at all.
package staticpod

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/patches"
)

// Annotations that kubeadm reads back to find an API server's and an etcd
// member's address.
const (
	APIServerEndpointAnnotation = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"
	EtcdClientURLsAnnotation    = "kubeadm.kubernetes.io/etcd.advertise-client-urls"
)

// Names of the components; each is the name of its pod, container, program and manifest.
const (
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Etcd              = "etcd"
)

// Ports of the components besides the API server's.
const (
	ControllerManagerPort = 10257
	SchedulerPort         = 10259
	etcdClientPort        = 2379
	etcdPeerPort          = 2380
	etcdMetricsPort       = 2381
)

// probePort is the name by which all probes refer to a container's port.
const probePort = "probe-port"

// component is one row of the table of static pods.
type component struct {
	name, image   string
	command       []string
	env           []corev1.EnvVar
	cpu, memory   string // requests; "" means none
	port          int32
	host          string // of the probes
	scheme        corev1.URIScheme
	live, ready   string // paths of the probes; ready "" means no readiness probe
	startup       string
	volumes       []volume
	annotations   map[string]string
	unsortedMount bool // mounts in the order of volumes
}

type volume struct {
	name, path string
	mount      string // path in the container; "" means the same
	readOnly   bool
	kind       corev1.HostPathType // "" is checked by nobody
}

// with adds the user's volumes; one that has the name of a default replaces it.
func with(volumes []volume, extra []kubeadmapi.HostPathMount) []volume {
	out := slices.Clone(volumes)
	for _, e := range extra {
		out = slices.DeleteFunc(out, func(v volume) bool { return v.name == e.Name })
		out = append(out, volume{name: e.Name, path: e.HostPath, mount: e.MountPath, readOnly: e.ReadOnly, kind: e.PathType})
	}
	return out
}

// caCertDirs are mounted beside /etc/ssl/certs if the host has them, because
// /etc/ssl/certs may hold links into them.
var caCertDirs = []string{
	"/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
}

// etcdVolumes are the folders with the files of an external etcd, as far as they are
// not mounted anyway and none lies in another.
func etcdVolumes(cfg nodeconfig.Config) []volume {
	external := cfg.Plan.Cluster.ExternalEtcd()
	if external == nil {
		return nil
	}
	mounted := append([]string{cfg.Plan.Cluster.CertificatesDir(), "/etc/ssl/certs"}, caCertDirs...)
	within := func(dir string) func(string) bool {
		return func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") }
	}
	var dirs []string
	for _, f := range []string{external.CAFile, external.CertFile, external.KeyFile} {
		dir := path.Dir(f)
		if f == "" || slices.ContainsFunc(mounted, within(dir)) || slices.ContainsFunc(dirs, within(dir)) {
			continue
		}
		dirs = slices.DeleteFunc(dirs, func(d string) bool { return within(d)(dir) })
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	var out []volume
	for i, d := range dirs {
		out = append(out, volume{name: fmt.Sprintf("etcd-certs-%d", i), path: d, readOnly: true, kind: corev1.HostPathDirectoryOrCreate})
	}
	return out
}

// externalCA reports whether the key of the cluster's CA is kept elsewhere.
func externalCA(paths host.Paths) (bool, error) {
	_, err := os.Stat(paths.PKI("ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		_, err = os.Stat(paths.PKI("ca.key"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// ControlPlane returns the pods of the API server, the controller manager and the
// scheduler. paths is asked which of the folders with CA certificates exist, and
// whether the key of the cluster's CA is there.
func ControlPlane(cfg nodeconfig.Config, paths host.Paths) ([]corev1.Pod, error) {
	certs := []volume{
		{name: "k8s-certs", path: cfg.Plan.Cluster.CertificatesDir(), readOnly: true, kind: corev1.HostPathDirectoryOrCreate},
		{name: "ca-certs", path: "/etc/ssl/certs", readOnly: true, kind: corev1.HostPathDirectoryOrCreate},
	}
	for _, d := range caCertDirs {
		st, err := os.Stat(filepath.Join(paths.Root, d))
		switch {
		case err == nil && st.IsDir():
			certs = append(certs, volume{name: strings.ReplaceAll(d, "/", "-")[1:], path: d, readOnly: true, kind: corev1.HostPathDirectoryOrCreate})
		case err != nil && !os.IsNotExist(err):
			return nil, err
		}
	}
	conf := func(name string) volume {
		return volume{name: "kubeconfig", path: confDir + "/" + name + ".conf", readOnly: true, kind: corev1.HostPathFileOrCreate}
	}
	foreign, err := externalCA(paths)
	if err != nil {
		return nil, err
	}
	version, user := cfg.Plan.Cluster.KubernetesVersion, cfg.Plan.Cluster.Kubeadm
	table := []component{
		{
			name: APIServer, image: kubernetesImage(APIServer, version), cpu: "250m",
			command: command(APIServer, apiServerArgs(cfg), ExtraArgs(cfg, APIServer)),
			env:     environment(ExtraEnvs(cfg, APIServer)),
			port:    int32(cfg.Plan.Node.Port()), host: cfg.AdvertiseAddress.String(), scheme: corev1.URISchemeHTTPS,
			live: "/livez", ready: "/readyz", startup: "/livez",
			volumes:     with(append(certs[:len(certs):len(certs)], etcdVolumes(cfg)...), user.APIServer.ExtraVolumes),
			annotations: map[string]string{APIServerEndpointAnnotation: cfg.LocalAPIEndpoint()},
		},
		{
			name: ControllerManager, image: kubernetesImage(ControllerManager, version), cpu: "200m",
			command: command(ControllerManager, controllerManagerArgs(cfg, foreign), ExtraArgs(cfg, ControllerManager)),
			env:     environment(ExtraEnvs(cfg, ControllerManager)),
			port:    ControllerManagerPort, host: bindHost(cfg, ControllerManager), scheme: corev1.URISchemeHTTPS,
			live: "/healthz", startup: "/healthz",
			volumes: with(append(certs[:len(certs):len(certs)], conf("controller-manager")), user.ControllerManager.ExtraVolumes),
		},
		{
			name: Scheduler, image: kubernetesImage(Scheduler, version), cpu: "100m",
			command: command(Scheduler, schedulerArgs(), ExtraArgs(cfg, Scheduler)),
			env:     environment(ExtraEnvs(cfg, Scheduler)),
			port:    SchedulerPort, host: bindHost(cfg, Scheduler), scheme: corev1.URISchemeHTTPS,
			live: "/livez", ready: "/readyz", startup: "/livez",
			volumes: with([]volume{conf("scheduler")}, user.Scheduler.ExtraVolumes),
		},
	}
	var pods []corev1.Pod
	for _, c := range table {
		pod, err := patched(cfg, c)
		if err != nil {
			return nil, err
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

// EtcdPod returns the pod of a local etcd that starts a new cluster.
func EtcdPod(cfg nodeconfig.Config) (corev1.Pod, error) { return etcdPod(cfg, etcdArgs(cfg)) }

// JoiningEtcdPod returns the pod of a local etcd that joins the members of initial,
// the value of --initial-cluster.
func JoiningEtcdPod(cfg nodeconfig.Config, initial string) (corev1.Pod, error) {
	args := append(etcdArgs(cfg), Arg{Name: "initial-cluster-state", Value: "existing"})
	for i := range args {
		if args[i].Name == "initial-cluster" {
			args[i].Value = initial
		}
	}
	return etcdPod(cfg, args)
}

// EtcdPeerURL is where the other members reach the node's etcd; they tell it apart by it.
func EtcdPeerURL(cfg nodeconfig.Config) string {
	return etcdURL(cfg.AdvertiseAddress.String(), etcdPeerPort)
}

// EtcdClientURL is where other nodes' API servers would reach the node's etcd.
func EtcdClientURL(cfg nodeconfig.Config) string {
	return etcdURL(cfg.AdvertiseAddress.String(), etcdClientPort)
}

// InitialCluster returns --initial-cluster of the manifest of etcd that is there; "" if
// it has none.
func InitialCluster(paths host.Paths) (string, error) {
	data, err := os.ReadFile(filepath.Join(paths.Manifests(), Etcd+".yaml"))
	if err != nil {
		return "", err
	}
	var pod corev1.Pod
	if err := yaml.Unmarshal(data, &pod); err != nil {
		return "", fmt.Errorf("the manifest of %s: %w", Etcd, err)
	}
	for _, c := range pod.Spec.Containers {
		for _, a := range c.Command {
			if v, ok := strings.CutPrefix(a, "--initial-cluster="); ok {
				return v, nil
			}
		}
	}
	return "", nil
}

func etcdPod(cfg nodeconfig.Config, args []Arg) (corev1.Pod, error) {
	local, pki := cfg.Plan.Cluster.LocalEtcd(), pkiOf(cfg)
	probeHost, probePort, scheme := etcdProbe(cfg)
	return patched(cfg, component{
		name: Etcd, image: EtcdImage, cpu: "100m", memory: "100Mi",
		command: command(Etcd, args, ExtraArgs(cfg, Etcd)),
		env:     environment(ExtraEnvs(cfg, Etcd)),
		port:    probePort, host: probeHost, scheme: scheme,
		live: "/livez", ready: "/readyz", startup: "/readyz",
		// kubeadm upgrade looks for the volume etcd-data.
		volumes: []volume{
			{name: "etcd-data", path: local.DataDir, kind: corev1.HostPathDirectoryOrCreate},
			{name: "etcd-certs", path: pki("etcd"), kind: corev1.HostPathDirectoryOrCreate},
		},
		unsortedMount: true,
		annotations:   map[string]string{EtcdClientURLsAnnotation: etcdURL(cfg.AdvertiseAddress.String(), etcdClientPort)},
	})
}

// patched is the component's pod with the user's patches applied.
func patched(cfg nodeconfig.Config, c component) (corev1.Pod, error) {
	pod, err := c.pod(startupTimeout(cfg))
	if err != nil {
		return pod, err
	}
	return pod, patches.Apply(cfg.Plan.Node.Patches, c.name, &pod)
}

// startupTimeout is how long the kubelet lets a component start before it kills
// it: kubeadm's timeouts.controlPlaneComponentHealthCheck, for which the boot plan
// has a more patient value.
func startupTimeout(cfg nodeconfig.Config) time.Duration {
	return time.Duration(cfg.Plan.Timeouts.ControlPlane)
}

func (c component) pod(startup time.Duration) (corev1.Pod, error) {
	requests := corev1.ResourceList{}
	for name, v := range map[corev1.ResourceName]string{corev1.ResourceCPU: c.cpu, corev1.ResourceMemory: c.memory} {
		if v == "" {
			continue
		}
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return corev1.Pod{}, fmt.Errorf("static pod %s: %s %q: %w", c.name, name, v, err)
		}
		requests[name] = q
	}
	const period = 10 // seconds
	starts := int32((startup + period*time.Second - 1) / (period * time.Second))
	alive := int32(10)
	if c.name == Etcd || c.name == APIServer {
		// After a reboot these run before the kubelet does (see package resume). It takes
		// what it finds running for started, passes over the startup probe, and would
		// restart an API server that is not up a minute and a half later.
		alive = starts * period
	}
	container := corev1.Container{
		Name: c.name, Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: c.command,
		Resources:     corev1.ResourceRequirements{Requests: requests},
		Ports:         []corev1.ContainerPort{{Name: probePort, ContainerPort: c.port, Protocol: corev1.ProtocolTCP}},
		LivenessProbe: c.probe(c.live, alive, 8, period),
		StartupProbe:  c.probe(c.startup, 10, starts, period),
	}
	if c.ready != "" {
		container.ReadinessProbe = c.probe(c.ready, 0, 3, 1)
	}
	container.Env = c.env
	var volumes []corev1.Volume
	for _, v := range c.volumes {
		kind := v.kind
		volumes = append(volumes, corev1.Volume{Name: v.name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: v.path, Type: &kind}}})
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: v.name, MountPath: cmp.Or(v.mount, v.path), ReadOnly: v.readOnly})
	}
	sort.Slice(volumes, func(i, j int) bool { return volumes[i].Name < volumes[j].Name })
	if m := container.VolumeMounts; !c.unsortedMount {
		sort.Slice(m, func(i, j int) bool { return m[i].Name < m[j].Name })
	}
	priority := int32(2000001000) // of the class system-node-critical
	return corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: c.name, Namespace: metav1.NamespaceSystem,
			Labels:      map[string]string{"component": c.name, "tier": "control-plane"},
			Annotations: c.annotations,
		},
		Spec: corev1.PodSpec{
			Containers:        []corev1.Container{container},
			Priority:          &priority,
			PriorityClassName: "system-node-critical",
			HostNetwork:       true,
			Volumes:           volumes,
			SecurityContext:   &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		},
	}, nil
}

// probe makes an HTTP probe; delay and period are in seconds.
func (c component) probe(path string, delay, failures, period int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: c.host, Path: path, Port: intstr.FromString(probePort), Scheme: c.scheme,
		}},
		InitialDelaySeconds: delay, TimeoutSeconds: 15, FailureThreshold: failures, PeriodSeconds: period,
	}
}

// Marshal renders a pod as YAML. Same input, same bytes.
func Marshal(pod corev1.Pod) ([]byte, error) {
	out, err := yaml.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("static pod %s: %w", pod.Name, err)
	}
	return out, nil
}

// Write puts the pod's manifest into the kubelet's folder. A manifest that is the
// same already is left alone, so that the kubelet does not restart the pod. The
// temporary file begins with a dot: the kubelet takes any other file for a pod.
func Write(paths host.Paths, pod corev1.Pod) (changed bool, err error) {
	data, err := Marshal(pod)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(paths.Manifests(), 0o700); err != nil {
		return false, err
	}
	path := filepath.Join(paths.Manifests(), pod.Name+".yaml")
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, data):
		return false, nil
	case err != nil && !os.IsNotExist(err):
		return false, err
	}
	return true, atomicfile.WriteFile(path, data, 0o600)
}

func etcdURL(host string, port int) string { return "https://" + hostPort(host, port) }

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

package waitcontrolplane

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// endpoints are the health endpoints of the components that are asked without
// credentials.
type endpoints struct{ kubelet, controllerManager, scheduler string }

// findEndpoints reads from the kubelet's configuration and the static pods where
// the components answer, as kubeadm does: what was written is what runs.
func findEndpoints(paths host.Paths) (endpoints, error) {
	var out endpoints
	var kc kubeletv1beta1.KubeletConfiguration
	if err := read(paths.Kubelet("config.yaml"), &kc); err != nil {
		return out, err
	}
	port := kubeletconfig.HealthzPort
	if kc.HealthzPort != nil {
		port = int(*kc.HealthzPort)
	}
	out.kubelet = healthURL("http", cmp.Or(kc.HealthzBindAddress, "127.0.0.1"), strconv.Itoa(port), "/healthz")
	for _, c := range []struct {
		name, path string
		port       int
		url        *string
	}{
		{staticpod.ControllerManager, "/healthz", staticpod.ControllerManagerPort, &out.controllerManager},
		{staticpod.Scheduler, "/livez", staticpod.SchedulerPort, &out.scheduler},
	} {
		var pod corev1.Pod
		if err := read(filepath.Join(paths.Manifests(), c.name+".yaml"), &pod); err != nil {
			return out, err
		}
		if len(pod.Spec.Containers) != 1 {
			return out, fmt.Errorf("static pod %s has %d containers, want one", c.name, len(pod.Spec.Containers))
		}
		command := pod.Spec.Containers[0].Command
		*c.url = healthURL("https", cmp.Or(flagValue(command, "bind-address"), "127.0.0.1"),
			cmp.Or(flagValue(command, "secure-port"), strconv.Itoa(c.port)), c.path)
	}
	return out, nil
}

func read(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// flagValue is the value of the last --name=value; "" if there is none.
func flagValue(command []string, name string) (value string) {
	for _, a := range command {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			value = v
		}
	}
	return value
}

func healthURL(scheme, host, port, path string) string {
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: path}).String()
}

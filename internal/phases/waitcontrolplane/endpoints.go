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

// kubeletEndpoint reads from the kubelet's configuration where it says that it is
// healthy, as kubeadm does: what was written is what runs. A kubelet that is told to
// say it nowhere has none.
func kubeletEndpoint(paths host.Paths) (string, error) {
	var kc kubeletv1beta1.KubeletConfiguration
	if err := read(paths.Kubelet("config.yaml"), &kc); err != nil {
		return "", err
	}
	port := kubeletconfig.HealthzPort
	if kc.HealthzPort != nil {
		port = int(*kc.HealthzPort)
	}
	if port == 0 {
		return "", nil
	}
	return healthURL("http", cmp.Or(kc.HealthzBindAddress, "127.0.0.1"), strconv.Itoa(port), "/healthz"), nil
}

// componentEndpoint reads from its static pod where the controller manager or the
// scheduler, which are asked without credentials, says that it is healthy.
func componentEndpoint(paths host.Paths, name string) (string, error) {
	path, port := "/healthz", staticpod.ControllerManagerPort
	if name == staticpod.Scheduler {
		path, port = "/livez", staticpod.SchedulerPort
	}
	var pod corev1.Pod
	if err := read(filepath.Join(paths.Manifests(), name+".yaml"), &pod); err != nil {
		return "", err
	}
	if len(pod.Spec.Containers) != 1 {
		return "", fmt.Errorf("static pod %s has %d containers, want one", name, len(pod.Spec.Containers))
	}
	command := pod.Spec.Containers[0].Command
	return healthURL("https", cmp.Or(flagValue(command, "bind-address"), "127.0.0.1"),
		cmp.Or(flagValue(command, "secure-port"), strconv.Itoa(port)), path), nil
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

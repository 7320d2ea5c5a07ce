package preflight

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// supportedKernels are the kernels that Kubernetes is validated with.
var supportedKernels = regexp.MustCompile(`^(5\.4|5\.10|5\.15|([6-9]|[1-9][0-9]+)\.[0-9]+)(\D|$)`)

// systemVerification checks kernel and cgroups as system-validators does.
func systemVerification(_ context.Context, m *Machine) error {
	data, err := os.ReadFile(m.Paths.At("/sys/fs/cgroup/cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("cgroups are not version 2 (no /sys/fs/cgroup/cgroup.controllers); the kubelet does not start without")
	}
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, c := range strings.Fields(string(data)) {
		have[c] = true
	}
	// devices and freezer are part of cgroup v2 without a controller of their own.
	for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !have[c] {
			return fmt.Errorf("cgroup controller %s is missing", c)
		}
	}
	release, err := m.Kernel()
	if err != nil {
		return err
	}
	if err := kernelConfig(m, release); err != nil {
		return err
	}
	var warnings []error
	if !supportedKernels.MatchString(release) {
		warnings = append(warnings, fmt.Errorf("kernel release %s is not one of 5.4, 5.10, 5.15, 6 and later", release))
	}
	for _, c := range []string{"hugetlb", "io"} {
		if !have[c] {
			warnings = append(warnings, fmt.Errorf("optional cgroup controller %s is missing", c))
		}
	}
	if len(warnings) > 0 {
		return asWarning{errors.Join(warnings...)}
	}
	return nil
}

// kernelOptions are the options that Kubernetes needs with cgroup v2; of several in
// one row any serves (system-validators 1.12, validators/types_unix.go).
var kernelOptions = [][]string{
	{"NAMESPACES"}, {"NET_NS"}, {"PID_NS"}, {"IPC_NS"}, {"UTS_NS"}, {"CPUSETS"}, {"MEMCG"}, {"INET"}, {"EXT4_FS"}, {"PROC_FS"},
	{"NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT"}, {"NETFILTER_XT_MATCH_COMMENT"}, {"FAIR_GROUP_SCHED"},
	{"CGROUPS"}, {"CGROUP_BPF"}, {"CGROUP_PIDS"}, {"CGROUP_SCHED"},
}

// kernelConfig checks the configuration that the running kernel was built with. The
// image has it in the folder of its modules.
func kernelConfig(m *Machine, release string) error {
	places := []string{
		"/proc/config.gz", "/boot/config-" + release, "/usr/src/linux-" + release + "/.config", "/usr/src/linux/.config",
		"/usr/lib/modules/" + release + "/config", "/usr/lib/ostree-boot/config-" + release, "/usr/lib/kernel/config-" + release,
		"/usr/src/linux-headers-" + release + "/.config", "/lib/modules/" + release + "/build/.config",
	}
	for _, p := range places {
		f, err := os.Open(m.Paths.At(p))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("the kernel's configuration: %w", err)
		}
		missing, err := missingOptions(f, strings.HasSuffix(p, ".gz"))
		_ = f.Close() // nothing was written
		if err != nil {
			return fmt.Errorf("the kernel's configuration %s: %w", p, err)
		}
		if len(missing) > 0 {
			return fmt.Errorf("unexpected kernel config: %s; %s has them neither built in nor as modules", strings.Join(missing, " "), p)
		}
		return nil
	}
	return fmt.Errorf("the configuration of kernel %s cannot be checked: it is in none of %s", release, strings.Join(places, ", "))
}

// kernelOption is a line of a kernel's configuration that sets an option.
var kernelOption = regexp.MustCompile(`^CONFIG_([A-Z0-9_]+)=[ym]`)

// missingOptions reads a kernel's configuration and returns what it lacks.
func missingOptions(r io.Reader, compressed bool) ([]string, error) {
	if compressed {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	}
	have := map[string]bool{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		if match := kernelOption.FindStringSubmatch(strings.TrimSpace(s.Text())); match != nil {
			have[match[1]] = true
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	var missing []string
	for _, any := range kernelOptions {
		found := false
		for _, o := range any {
			found = found || have[o]
		}
		if !found {
			missing = append(missing, "CONFIG_"+any[0])
		}
	}
	return missing, nil
}

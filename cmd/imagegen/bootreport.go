package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/progress"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/secret"
)

func writeKubeconfig(path string, admin secret.Value, port int) error {
	kc, err := cluster.Kubeconfig(admin, port)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, kc.Reveal(), 0o600)
}

// bootResult is the result of boot for programs.
type bootResult struct {
	Kubeconfig string     `json:"kubeconfig"`
	APIPort    int        `json:"apiPort"` // of 127.0.0.1, to a control plane that answers
	Nodes      []bootNode `json:"nodes"`
}

type bootNode struct {
	Node    string           `json:"node"`
	APIPort int              `json:"apiPort,omitempty"`
	SSHPort int              `json:"sshPort"`
	Steps   []build.StepTime `json:"steps"`
}

// reportBoot prints the result: what runs, and how long the build's and the boot's
// steps took.
func (a *app) reportBoot(report *progress.Reporter, state cluster.State, f *fleet, out string) error {
	result := bootResult{Kubeconfig: f.kubeconfig, APIPort: f.network.API}
	now := time.Now()
	for _, b := range f.machines {
		result.Nodes = append(result.Nodes, bootNode{b.node.Name, b.ports.API, b.ports.SSH, b.watch.times(now)})
	}
	if a.json {
		return a.printJSON(result)
	}
	var steps []build.StepTime
	text, err := os.ReadFile(filepath.Join(out, build.TimesFile))
	if err == nil {
		err = json.Unmarshal(text, &steps)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		report.Notef("times of the build: %v", err)
	}
	fmt.Fprintf(a.Out, "\n%s\n", state.Table())
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tSECONDS")
	for _, s := range steps {
		fmt.Fprintf(w, "build: %s\t%.1f\n", s.Name, s.Seconds)
	}
	for _, n := range result.Nodes {
		what := "boot"
		if len(result.Nodes) > 1 {
			what += " " + n.Node
		}
		for _, s := range n.Steps {
			fmt.Fprintf(w, "%s: %s\t%.1f\n", what, s.Name, s.Seconds)
		}
	}
	return w.Flush()
}

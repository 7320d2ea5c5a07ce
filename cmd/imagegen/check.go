package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/discoveryfile"
	"github.com/kiln-os/kiln/internal/patches"
	"github.com/kiln-os/kiln/internal/release"
	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/profiles"
)

// defaultClusterFile is what imagegen init writes.
const defaultClusterFile = "cluster.yaml"

func (a *app) checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Print everything that is wrong with a cluster file",
		Long: `Print everything that is wrong with a cluster file, with kubeadm's documents and the
Butane snippets in it, and with the files that it names: each mistake with its line
and column, and what would be right. Nothing is built and nothing is written. Notes say
what is no mistake but good to know, such as what a 32-bit processor cannot do.`,
		Example: `  imagegen check cluster.yaml
  imagegen check cluster.yaml --json   # for programs: each mistake is an event`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := a.load(args[0])
			if err != nil {
				return err
			}
			notes, err := notesOn(c)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(checked{args[0], c.Name, c.KubernetesVersion, len(c.Nodes), notes})
			}
			fmt.Fprintf(a.Out, "%s: cluster %q, %d node(s), Kubernetes %s: no mistakes\n", args[0], c.Name, len(c.Nodes), c.KubernetesVersion)
			for _, n := range notes {
				fmt.Fprintln(a.Out, "note: "+n)
			}
			return nil
		},
	}
	a.jsonFlag(c)
	return c
}

// checked is a cluster file without mistakes.
type checked struct {
	File       string `json:"file"`
	Cluster    string `json:"cluster"`
	Kubernetes string `json:"kubernetes"`
	Nodes      int    `json:"nodes"`
	// Notes are what is no mistake but good to know.
	Notes []string `json:"notes,omitempty"`
}

// load reads a cluster file, and the payload manifest that it names, and prints their
// mistakes. The manifest is nil if the payload is compiled.
func (a *app) load(file string) (*spec.Cluster, *release.Manifest, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w; imagegen init writes a cluster file to start from", err)
	}
	if err != nil {
		return nil, nil, err
	}
	var manifest *release.Manifest
	known := spec.Known{
		Profiles: profiles.Names(), Clouds: profiles.Clouds(), WiFi: profiles.WithWiFi(),
		Formats: format.Names(), Suites: osbase.Suites(), Versions: payload.KubernetesVersions(),
	}
	known.Release = func(name string) (string, diag.List) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		m, mistakes := release.Load(name, false)
		if len(mistakes) > 0 {
			return "", mistakes
		}
		manifest = m
		return m.Kubernetes(), nil
	}
	known.Patches = func(dir string) ([]bootplan.Patch, []error) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(filepath.Dir(file), dir)
		}
		return patches.ReadDir(dir)
	}
	known.DiscoveryFile = func(name string) (secret.Value, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		return discoveryfile.Read(name, time.Now())
	}
	c, mistakes := spec.Parse(file, data, known)
	if manifest != nil {
		lost, err := missingParts(c, manifest)
		if err != nil {
			return nil, nil, err
		}
		mistakes = append(mistakes, lost...)
	}
	mistakes = append(mistakes, render.CheckSnippets(c)...)
	if mistakes.Sort(); len(mistakes) == 0 {
		return c, manifest, nil
	}
	return nil, nil, a.showMistakes(file, mistakes)
}

// missingParts reports what a manifest lacks for the architectures of the nodes.
func missingParts(c *spec.Cluster, m *release.Manifest) (diag.List, error) {
	var lost diag.List
	seen := map[string]bool{}
	for _, n := range c.Nodes {
		if !slices.Contains(profiles.Names(), n.Profile) {
			continue // reported
		}
		p, err := profiles.Load(n.Profile)
		if err != nil {
			return nil, err
		}
		if !seen[p.Arch] {
			seen[p.Arch] = true
			lost = append(lost, m.Missing(p.Arch)...)
		}
	}
	return lost, nil
}

// nameServerNote is for a node that does not become Ready by itself: CoreDNS ends where it
// has nobody to ask.
func nameServerNote(n spec.Node) string {
	if !n.Static() || len(n.Nameservers) > 0 {
		return ""
	}
	return n.Name + " has a static address and no name server: the cluster's DNS asks those of the nodes for names outside, and does not start on a node without one; set nameservers, or network.nameservers"
}

// notesOn says what is no mistake, but should be known before machines are bought.
func notesOn(c *spec.Cluster) ([]string, error) {
	var notes []string
	for _, n := range c.Nodes {
		p, err := profiles.Load(n.Profile)
		if err != nil {
			return nil, err
		}
		a, err := arch.Get(p.Arch)
		if err != nil {
			return nil, err
		}
		if note := nameServerNote(n); note != "" {
			notes = append(notes, note)
		}
		if a.ELFClass != elf.ELFCLASS32 {
			continue
		}
		note := fmt.Sprintf("%s is a 32-bit machine (%s): a program there has at most 3 GiB of memory, and many container images are not made for it", n.Name, a.Go)
		if n.Role == spec.RoleControlPlane {
			note += fmt.Sprintf("; etcd keeps at most 1.5 GiB (2 GiB is what it can map) and is not supported by its makers on %s, so it runs with ETCD_UNSUPPORTED_ARCH=%[1]s", a.Go)
			if strings.HasPrefix(string(c.EncryptionAlgorithm), "RSA") {
				note += fmt.Sprintf("; signing with %s keys, at the start of each connection, takes 32 bits about ten times as long as 64: encryptionAlgorithm: ECDSA-P256 is several times faster there", c.EncryptionAlgorithm)
			}
		}
		notes = append(notes, note)
	}
	return notes, nil
}

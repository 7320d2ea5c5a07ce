package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/release"
	"github.com/kiln-os/kiln/payload"
)

func (a *app) payloadCommand() *cobra.Command {
	var goarch, kubernetes, manifest string
	var offline bool
	c := &cobra.Command{
		Use:   "payload",
		Short: "Get what the nodes run, and list it",
		Long: `Compile Kubernetes, etcd, containerd, CoreDNS, the CNI plugins, flannel and pause
into the cache, as build does when they are missing, and list name, version and
file of each program.

With --manifest they are not compiled but fetched, by digest, from the URLs and
registries that the manifest names, and each is checked to be what the manifest says
it is; images are listed with their reference. A cluster file says the same with

  payload:
    source: release
    manifest: payload.yaml

Proxies and certificate authorities are those of the environment (see imagegen help
environment), credentials for registries those of ~/.docker/config.json.`,
		Example: `  imagegen payload
  imagegen payload --arch amd64 --json
  imagegen payload --kubernetes v1.36.3             # the minor version before
  imagegen payload pin payload.yaml                   # write the digests of what has none
  imagegen payload --manifest payload.yaml            # fetch and check all of it
  imagegen payload --manifest payload.yaml --offline  # is all of it in the cache?`,
		Args:              exactArgs(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := arch.Get(goarch)
			if err != nil {
				return usageError{err}
			}
			if manifest != "" && cmd.Flags().Changed("kubernetes") {
				return usageError{errors.New("--kubernetes is for what is compiled; a manifest has its own versions")}
			}
			if manifest != "" {
				return a.fetchPayload(cmd, manifest, target, offline)
			}
			p := a.reporter()
			if !slices.Contains(payload.KubernetesVersions(), kubernetes) {
				return usageError{fmt.Errorf("--kubernetes: there is no payload of Kubernetes %q; want %s", kubernetes, strings.Join(payload.KubernetesVersions(), " or "))}
			}
			p.Step("compile the payload for " + goarch)
			r, err := payload.Build(cmd.Context(), payload.Options{Arch: target, CacheDir: a.cacheDir, SourceDir: a.payloadDir, Kubernetes: kubernetes, Offline: offline, Progress: p.Log})
			err = orInterrupted(cmd.Context(), err)
			p.Finish(err)
			if errors.Is(err, context.Canceled) {
				return a.interrupted(err)
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printPayload(r)
			}
			a.listPrograms(r)
			return nil
		},
	}
	c.Flags().StringVar(&goarch, "arch", "amd64", "architecture, by its Go name")
	c.Flags().StringVar(&kubernetes, "kubernetes", payload.KubernetesVersion, "version of Kubernetes that is compiled: "+strings.Join(payload.KubernetesVersions(), " or "))
	c.Flags().StringVar(&manifest, "manifest", "", "payload manifest of a release; nothing is compiled then")
	c.Flags().BoolVar(&offline, "offline", false, "take everything from the caches; fetch nothing")
	completeWords(c, "arch", arch.Names()...)
	completeWords(c, "kubernetes", payload.KubernetesVersions()...)
	register(c, "manifest", clusterFile)
	a.jsonFlag(c)
	c.AddCommand(a.pinCommand())
	return c
}

func (a *app) listPrograms(r payload.Result) {
	for _, b := range r.Binaries {
		fmt.Fprintf(a.Out, "%s\t%s\t%s\n", b.Name, b.Version, b.Path)
	}
}

// fetchPayload gets what a manifest has for an architecture, and lists it.
func (a *app) fetchPayload(cmd *cobra.Command, file string, target arch.Arch, offline bool) error {
	m, mistakes := release.Load(file, false)
	if len(mistakes) == 0 {
		mistakes = m.Missing(target.Go)
	}
	if len(mistakes) > 0 {
		return a.showMistakes(file, mistakes)
	}
	store, err := cache.Open(a.cacheDir)
	if err != nil {
		return err
	}
	p := a.reporter()
	p.Step("fetch the payload for " + target.Go)
	r, err := release.Get(cmd.Context(), m, release.Options{Arch: target, Cache: store, Offline: offline, Progress: p.Log, Bytes: p.Bytes})
	err = orInterrupted(cmd.Context(), err)
	p.Finish(err)
	if err != nil {
		return err
	}
	if a.json {
		return a.printPayload(r.Programs)
	}
	a.listPrograms(r.Programs)
	for _, s := range r.Sources {
		if _, ok := r.Images[s.Name]; ok {
			fmt.Fprintf(a.Out, "%s\t%s\t%s\n", s.Name, s.Version, s.From)
		}
	}
	return nil
}

func (a *app) pinCommand() *cobra.Command {
	var update bool
	c := &cobra.Command{
		Use:   "pin MANIFEST",
		Short: "Write the digests of a release into its payload manifest",
		Long: `Fetch what a payload manifest has without a digest, and write the digests into it:
sha256 and size of binaries and archives, and the digest that an image's tag stands
for. Everything else in the file, comments too, stays as it is. A build takes nothing
whose digest the manifest does not have.

Where a server has a digest file beside a binary (URL.sha256, .sha256sum, .sha512 or
.sha512sum) it must say the same, as must a sha512 that the manifest has. A program
must be what its entry says: for the architecture, of the version. The digests of
what is pinned first come from the network: look at them before you commit the file.

A manifest without digests:

  apiVersion: kiln-os.dev/v1alpha1
  kind: Payload
  binaries:
    - name: kubelet
      version: v1.37.2
      arch: amd64
      url: https://downloads.example.com/v1.37.2/bin/linux/amd64/kubelet
    - name: containerd
      version: v2.4.2
      arch: amd64
      url: https://downloads.example.com/containerd-2.4.2-linux-amd64.tar.gz
      members:
        containerd: bin/containerd
        containerd-shim-runc-v2: bin/containerd-shim-runc-v2
        ctr: bin/ctr
  images:
    - name: kube-apiserver
      version: v1.37.2
      ref: registry.example.com/kube-apiserver:v1.37.2`,
		Example: `  imagegen payload pin payload.yaml
  imagegen payload pin payload.yaml --update   # resolve tags and URLs anew, and show what changed
  imagegen payload pin payload.yaml --json`,
		Args:              exactArgs("MANIFEST"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, mistakes := release.Load(args[0], true)
			if len(mistakes) > 0 {
				return a.showMistakes(args[0], mistakes)
			}
			store, err := cache.Open(a.cacheDir)
			if err != nil {
				return err
			}
			p := a.reporter()
			p.Step("pin " + args[0])
			list, err := release.Pin(cmd.Context(), m, update, release.Options{Cache: store, Progress: p.Log, Bytes: p.Bytes})
			err = orInterrupted(cmd.Context(), err)
			p.Finish(err)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]release.Pinned{}, list...))
			}
			return a.listPinned(args[0], list)
		},
	}
	c.Flags().BoolVar(&update, "update", false, "resolve also what has a digest")
	a.jsonFlag(c)
	return c
}

func (a *app) listPinned(file string, list []release.Pinned) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(a.Out, "%s: everything has its digest already\n", file)
		return err
	}
	var errs []error
	for _, p := range list {
		note := ""
		switch {
		case p.Was != "":
			note = "\twas " + p.Was
		case len(p.CheckedBy) > 0:
			note = "\tchecked by " + p.CheckedBy[0]
		}
		_, err := fmt.Fprintf(a.Out, "%s\t%s\tsha256:%s%s\n", p.Name, p.From, p.SHA256, note)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// printPayload prints the list for programs.
func (a *app) printPayload(r payload.Result) error {
	type program struct {
		payload.Binary
		File string `json:"file"`
	}
	programs := make([]program, 0, len(r.Binaries))
	for _, b := range r.Binaries {
		programs = append(programs, program{b, b.Path})
	}
	return a.printJSON(programs)
}

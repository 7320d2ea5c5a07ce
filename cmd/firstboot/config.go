package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
)

// nodePlan returns the node's boot plan and makes the app's paths those of it; nil
// if the node has none, as one that Kiln did not make.
func (a *app) nodePlan() (*bootplan.Plan, error) {
	data, err := os.ReadFile(a.paths.BootPlan())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, planError{fmt.Errorf("boot plan: %w", err)}
	}
	plan, err := bootplan.Parse(data)
	if err != nil {
		return nil, planError{err}
	}
	a.paths.CertificatesDir, a.paths.EtcdDataDir = plan.Cluster.CertificatesDir(), plan.Cluster.LocalEtcd().DataDir
	return &plan, nil
}

// repositoryForm is what can stand before the names of images.
var repositoryForm = regexp.MustCompile(`^[a-zA-Z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)*/?$`)

// imageList is what kubeadm config images list -o json prints.
type imageList struct {
	metav1.TypeMeta `json:",inline"`
	Images          []string `json:"images"`
}

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Show what the cluster is made of",
		Long: "Show what the cluster is made of.", Example: "  firstboot config images list",
		Args: subcommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	images := &cobra.Command{
		Use: "images", Short: "The cluster's container images",
		Long: "The cluster's container images.", Example: "  firstboot config images list",
		Args: subcommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	images.AddCommand(a.imagesListCommand())
	c.AddCommand(images)
	return c
}

func (a *app) imagesListCommand() *cobra.Command {
	var o output
	var version, repository string
	c := &cobra.Command{
		Use: "list", Short: "List the images of a control plane", Args: noArgs,
		Long: `List the container images of a control plane as kubeadm config images list does: by
the node's boot plan, whose pod network comes last, or by the flags alone. Without
both, the version is the one that this node's operating system carries.`,
		Example: `  firstboot config images list
  firstboot config images list --kubernetes-version v1.37.2 --image-repository registry.example.com/k8s`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			list, err := a.imageNames(version, repository)
			if err != nil {
				return err
			}
			if o.text() {
				_, err := fmt.Fprintln(a.Out, strings.Join(list, "\n"))
				return err
			}
			return printObjects(a.Out, o, imageList{metav1.TypeMeta{Kind: "Images", APIVersion: "output.kubeadm.k8s.io/v1alpha3"}, list})
		},
	}
	c.Flags().StringVar(&version, "kubernetes-version", "", "version of the control plane (default the boot plan's, else that of the operating system)")
	c.Flags().StringVar(&repository, "image-repository", "", "registry and folder of the images (default "+kubeadmapi.DefaultImageRepository+")")
	o.flags(c)
	return c
}

func (a *app) imageNames(version, repository string) ([]string, error) {
	plan, err := a.nodePlan()
	if err != nil {
		return nil, err
	}
	var c kubeadmapi.ClusterConfiguration
	var network []string
	if plan != nil {
		c = plan.Cluster.Kubeadm
		c.KubernetesVersion = plan.Cluster.KubernetesVersion
		if plan.Cluster.PodNetwork == "flannel" {
			image, err := addonflannel.Image()
			if err != nil {
				return nil, err
			}
			network = append(network, image)
		}
	}
	if version != "" {
		if c.KubernetesVersion, err = kubeadmapi.ParseVersion(version); err != nil {
			return nil, usageError{fmt.Errorf("--kubernetes-version: %w", err)}
		}
	}
	if repository != "" {
		if !repositoryForm.MatchString(repository) {
			return nil, usageError{fmt.Errorf("--image-repository: %q is not a registry and folder, such as registry.example.com/k8s", repository)}
		}
		c.ImageRepository = strings.TrimSuffix(repository, "/")
	}
	if c.KubernetesVersion == "" {
		if c.KubernetesVersion, err = a.osKubernetes(); err != nil {
			return nil, err
		}
	}
	return append(kubeadmapi.Images(c), network...), nil
}

// osKubernetes is the version of Kubernetes that the operating system carries.
func (a *app) osKubernetes() (string, error) {
	const key = "KILN_KUBERNETES="
	f, err := os.Open(a.paths.At("/usr/lib/os-release"))
	if err == nil {
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() {
			if v, ok := strings.CutPrefix(s.Text(), key); ok {
				return strings.Trim(v, `"`), nil
			}
		}
		err = s.Err()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return "", usageError{errors.New("this is no Kiln node, so give --kubernetes-version, such as v1.37.2")}
}
